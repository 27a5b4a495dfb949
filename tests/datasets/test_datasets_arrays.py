"""A user's own arrays: what is read of them, what is set apart, and one line for whatever cannot be used."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import Parsed, headings, tables
from test_inputs import Trap

import xpnet
from xpnet import datasets
from xpnet.cli import main
from xpnet.datasets import inputs
from xpnet.datasets.inputs import InputError

pytestmark = pytest.mark.backends("numpy")
X = np.random.default_rng(0).normal(size=(60, 4))
NAMES = np.array(["low", "high"])[(X[:, 0] > 0).astype(int)]
Y = np.arange(60) % 3


def write(folder: Path, name: str = "mine.npz", **arrays: Any) -> Path:
    """Write an npz file of x, y and others; None leaves one out."""
    np.savez(folder / name, **{key: value for key, value in {"x": X, "y": Y, **arrays}.items() if value is not None})
    return folder / name


# What is read ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "int64", "uint64", ">i4"])
def test_integers_are_classes(dtype: str, tmp_path: Path) -> None:
    y = np.where(Y == 1, 4, Y).astype(dtype)
    data = datasets.load(write(tmp_path, y=y, x_validation=X, y_validation=y, x_test=X[:7], y_test=y[:7]))
    assert (data.name, data.classes) == ("mine", ("0", "1", "2", "3", "4"))
    assert data.source == str(tmp_path / "mine.npz")
    for split, n in ((data.train, 60), (data.validation, 60), (data.test, 7)):
        np.testing.assert_array_equal(split.x, X[:n])
        np.testing.assert_array_equal(split.y, y[:n])
        assert split.y.dtype == np.int64


def test_strings_are_classes(tmp_path: Path) -> None:
    data = datasets.load(write(tmp_path, y=NAMES, x_validation=X, y_validation=NAMES, x_test=X, y_test=["low"] * 60))
    assert data.classes == ("high", "low")
    np.testing.assert_array_equal(np.array(data.classes)[data.train.y], NAMES)
    assert data.test.y.tolist() == [1] * 60


@pytest.mark.parametrize(("given", "words"), [
    ((), ", of which 6 examples were drawn for validation and 6 for test"),
    (("validation",), ", of which 6 examples were drawn for test"),
    (("test",), ", of which 6 examples were drawn for validation"),
], ids=["neither", "validation", "test"])
def test_a_tenth_is_set_apart_for_what_is_missing(given: tuple[str, ...], words: str, tmp_path: Path) -> None:
    rows = np.arange(60.0)[:, None]
    named = {f"{letter}_{part}": value for part in given for letter, value in (("x", rows - 100), ("y", Y))}
    path = write(tmp_path, x=rows, **named)
    data, again = datasets.load(path), datasets.load(str(path))
    assert data.source == f"{path}{words}"
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    own = [split.x for part, split in parts.items() if part not in given]
    np.testing.assert_array_equal(np.sort(np.concatenate(own), axis=0), rows)  # each once
    assert all((np.diff(x[:, 0]) > 0).all() for x in own)  # in their order
    for part, split in parts.items():
        assert len(split.y) == (60 if part in given else 6 if part != "train" else 60 - 6 * (2 - len(given)))
        np.testing.assert_array_equal(split.y, split.x[:, 0] % 3 if part not in given else Y)
        np.testing.assert_array_equal(split.x, getattr(again, part).x)


def test_three_examples_are_enough(tmp_path: Path) -> None:
    data = datasets.load(write(tmp_path, x=X[:3], y=Y[:3]))
    assert [len(split.y) for split in (data.train, data.validation, data.test)] == [1, 1, 1]
    assert data.source.endswith("of which 1 example was drawn for validation and 1 for test")


def test_the_first_examples_are_taken(tmp_path: Path) -> None:
    path = write(tmp_path)
    whole, data = datasets.load(path), datasets.load(path, train=10, validation=3, test=2)
    for part, size in (("train", 10), ("validation", 3), ("test", 2)):
        np.testing.assert_array_equal(getattr(data, part).x, getattr(whole, part).x[:size])
    with pytest.raises(ValueError, match="expected train from 0 to 48 examples of mine, got 49"):
        datasets.load(path, train=49)


@pytest.mark.parametrize(("x", "shape"), [
    (np.zeros((60, 3072), "uint8"), (3, 32, 32)), (np.zeros((60, 3072), "int16"), None),
    (np.zeros((60, 3071), "uint8"), None), (X, None),
], ids=["images", "not uint8", "another width", "floats"])
def test_only_what_can_be_images_has_an_image_shape(x: Any, shape: Any, tmp_path: Path) -> None:
    data = datasets.load(write(tmp_path, x=x))
    assert data.image_shape == shape
    assert data.noun == ("images" if shape else "examples")
    mixed = write(tmp_path, x=x, x_test=x.astype("float32"), y_test=Y)
    assert datasets.load(mixed).image_shape is None


def test_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "mine.NPZ.npz").rename(tmp_path / "mine.NPZ")
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    assert datasets.load("~/mine.NPZ").name == "mine"


# What is refused ------------------------------------------------------------------------------------------------------

HOLE = X.copy()
HOLE[7, 2] = np.nan
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no x": ({"x": None}, r"no array x among y; x and y go together, as in numpy.savez\(\"mine.npz\", x=x, y=y\)"),
    "nothing": ({"x": None, "y": None, "a": X}, "no array x and no y among a; x and y go together"),
    "x_test alone": ({"x_test": X}, "no array y_test among x, y, x_test; x_test and y_test go together"),
    "y_validation alone": ({"y_validation": Y}, "no array x_validation among x, y, y_validation"),
    "another name": ({"x_val": X, "y_val": Y}, "an array x_val: expected x, y, x_validation, y_validation, x_test"),
    "images": ({"x": np.zeros((60, 2, 2))}, r"x: expected shape \(n, features\), got \(60, 2, 2\): x.reshape\(len"),
    "one feature": ({"x": X[:, 0]}, r"x: expected shape \(n, features\), got \(60,\)"),
    "no features": ({"x": X[:, :0]}, r"x: expected at least one example, got shape \(60, 0\)"),
    "complex": ({"x": X * 1j}, "x: expected real numbers, got dtype complex128"),
    "not finite": ({"x": HOLE}, r"x: row 7, column 2 \(from 0\) is nan: expected finite numbers"),
    "not finite in test": ({"x_test": HOLE, "y_test": Y}, "x_test: row 7, column 2"),
    "other lengths": ({"y": Y[:-1]}, r"one label for each example, got shapes \(60, 4\) of x and \(59,\) of y"),
    "no labels": ({"y": Y[:0]}, r"got shapes \(60, 4\) of x and \(0,\) of y"),
    "other lengths in test": ({"x_test": X, "y_test": Y[1:]}, r"of x_test and \(59,\) of y_test"),
    "another width": ({"x_test": X[:, :3], "y_test": Y}, "x_test: expected 4 features, as many as x, got 3"),
    "floats": ({"y": Y * 1.0}, r"y: expected integers from 0, or strings, .*y.astype\(int\) .*, got dtype float64"),
    "booleans": ({"y": Y > 1}, r"y: expected integers from 0, or strings, .*y.astype\(int\).*, got dtype bool"),
    "bytes": ({"y": NAMES.astype("S")}, r"y: expected .* or strings, .*y.astype\(str\), got dtype \|S4"),
    "objects": ({"y": NAMES.astype(object)}, r"y: expected .*y.astype\(str\), got dtype object; nothing is unpickled"),
    "a trap": ({"x": np.array([Trap()] * 60)}, "x: expected real numbers, got dtype object; nothing is unpickled"),
    "one-hot": ({"y": np.eye(3, dtype=int)[Y]}, r"y: expected shape \(n,\), got \(60, 3\): .*y.argmax\(axis=1\)"),
    "a column": ({"y": Y[:, None]}, r"y: expected shape \(n,\), got \(60, 1\): y.ravel\(\)"),
    "negative": ({"y": Y - 1}, r"y: expected integers from 0, got -1; numpy.unique\(y, return_inverse=True\)\[1\]"),
    "one class": ({"y": Y * 0}, "y: expected 2 to 1,000 classes, got 1$"),
    "one name": ({"y": ["a"] * 60}, "y: expected 2 to 1,000 classes, got 1$"),
    "far too high": ({"y": Y.astype("uint64") * 2**62}, "1,000 classes, got 9,223,372,036,854,775,809"),
    "too many names": ({"x": np.zeros((1001, 2)), "y": np.arange(1001).astype(str)}, "classes, got 1,001"),
    "a long name": ({"y": ["a", "b" * 101] * 30}, "y: expected names of at most 100 bytes, got 'bbb"),
    "half a character": ({"y": ["a", "\ud800"] * 30}, "surrogates not allowed"),
    "a class that is only in test": ({"x_test": X, "y_test": Y + 1}, "y_test: expected the classes of y, got '3' in "
                                     "example 2"),
    "a name that is only in test": ({"y": NAMES, "x_test": X[:1], "y_test": ["mid"]}, "y_test: .* got 'mid' in"),
    "negative in test": ({"x_test": X, "y_test": Y - 1}, "y_test: expected the classes of y, got '-1' in example 0"),
    "numbers and names": ({"x_test": X, "y_test": NAMES}, "y_test: expected integers, as in y, got dtype <U4"),
    "names and numbers": ({"y": NAMES, "x_test": X, "y_test": Y}, "y_test: expected strings, as in y, got dtype int"),
    "too few": ({"x": X[:2], "y": Y[:2]}, "x: expected at least 3 examples, since one is set apart for each of "
                "validation and test, got 2"),
    "too few for test": ({"x": X[:1], "y": [1], "x_validation": X[:1], "y_validation": [0]}, "at least 2 examples"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_used_is_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrays, words = WRONG[name]
    path = write(tmp_path, **arrays)
    with pytest.raises(InputError, match=words) as caught:
        datasets.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    for command in ("train", "sweep"):
        assert main([command, "--data", str(path)]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err == f"xpnet {command}: error: {' '.join(str(caught.value).split())}\n"


@pytest.mark.parametrize("content", [
    b"", b"x" * 100, pickle.dumps(Trap()), b"PK\x03\x04" + bytes(60)], ids=["empty", "text", "a pickle", "cut"])
def test_what_is_no_npz_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "mine.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"mine.npz: not an npz file, which numpy.savez writes"):
        datasets.load(tmp_path / "mine.npz")


def test_strings_that_take_no_room_are_refused() -> None:
    header = b"{'descr': '<U0', 'fortran_order': False, 'shape': (1000000000000,), }"
    content = (b"\x93NUMPY\1\0v\0" + header).ljust(127)
    with pytest.raises(InputError, match="cut or damaged"):
        inputs.array(content + b"\n", "U")


@pytest.mark.parametrize("order", ["<", ">"])
def test_characters_that_there_are_not_are_refused(order: str, tmp_path: Path) -> None:
    y = np.array([65, 0x110000] * 30, f"{order}u4").view(f"{order}U1")
    with pytest.raises(InputError, match="y: is damaged: it has characters that there are not"):
        datasets.load(write(tmp_path, y=y))


def test_a_file_that_is_missing_or_of_another_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    how = r'expected an \.npz file with arrays x and y: numpy\.savez\("mine\.npz", x=x, y=y\) writes one'
    with pytest.raises(datasets.DataNotFoundError, match=rf"no file .*none\.npz: {how}"):
        datasets.load(tmp_path / "none.npz")
    for name in ("x.npy", "x.csv", "x.CSV", "x.txt", "x.tsv"):
        with pytest.raises(InputError, match=rf"{name}: features and labels belong into one file; {how}"):
            datasets.load(tmp_path / name)
    for name in ("none.npz", "x.csv"):
        assert main(["train", "--data", str(tmp_path / name)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    (tmp_path / "mine.npz").mkdir()
    with pytest.raises(InputError, match="is not a plain file"):
        datasets.load(tmp_path / "mine.npz")
    (tmp_path / "data.csv").mkdir()  # may hold CIFAR-10
    with pytest.raises(datasets.DataNotFoundError, match="CIFAR-10 not found"):
        datasets.load(tmp_path / "data.csv")


def test_arrays_that_take_too_much_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path)
    monkeypatch.setattr(inputs.Device, "free_memory", lambda _: 4 * X.nbytes)
    with pytest.raises(InputError, match=r"mine.npz has .* bytes, more than the 1,920 that are read"):
        datasets.load(path)
    np.savez_compressed(path, x=np.zeros((60, 4)), y=Y)
    with pytest.raises(InputError, match="x has 2,048 bytes, more than a quarter of the free memory"):
        datasets.load(path)


# From the command line ------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """Return a run on arrays whose classes have names, begun beside them."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path, y=NAMES)
    assert main(["train", "--data", "mine.npz", "--hidden", "8", "--steps", "40", "--lr", "0.3", "--batch-size", "20",
                 "--out", "run"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("data: mine, mine.npz, of which 6 examples were drawn for validation and 6 for test; ")
    return Path("run")


def test_a_run_predicts_and_has_a_page(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = json.loads((run / "config.json").read_text("utf-8"))
    assert config["classes"] == ["high", "low"]
    assert config["image_shape"] is None
    assert config["arguments"][:2] == ["--data", "mine.npz"]
    assert main(["predict", str(run), "mine.npz", "--key", "x", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["predictions"]
    assert np.mean([row["class"] == name for row, name in zip(rows, NAMES, strict=True)]) > 0.9
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out == f"wrote {run / 'report.html'}\n"
    text = (run / "report.html").read_text("utf-8")
    parsed = Parsed(text)
    assert headings(parsed)[-2:] == ["On the test examples", "How it was made"]
    assert "image" not in re.sub(r"<(script|style).*?</\1>|<[^>]*>", "", text, flags=re.DOTALL)
    assert len(parsed.all("img")) == 1  # the confusion matrix
    right = xpnet.Network.load(run / "network.safetensors").predict(datasets.load("mine.npz").test.x)
    assert tables(parsed)[0]["accuracy"][-1] == f"{(right == datasets.load('mine.npz').test.y).mean():.2%}"
    assert any("examples" in table for table in tables(parsed))


def test_a_run_goes_on_and_other_arrays_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--resume", str(run), "--steps", "50", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == 50
    write(Path(), x=X + 1, y=NAMES)
    assert main(["train", "--resume", str(run)]) == 2
    assert "features.sha256 was" in capsys.readouterr().err


def test_a_page_without_the_arrays(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.npz").rename("moved.npz")
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out.startswith("not on the page: the test examples (no file mine.npz: expected an .npz")
    assert main(["report", str(run), "--data", "moved.npz"]) == 0
    assert "not on the page" not in capsys.readouterr().out


def test_options_from_a_file(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("train", "sweep"):
        assert main([command, "--data", "mine.npz", "--images", "40", "--dry-run"]) == 0
        text = capsys.readouterr().out
        assert "40 training examples" in text.splitlines()[0]
        assert 'data = "mine.npz"' in text
        Path("run.toml").write_text(text, "utf-8")
        assert main([command, "--config", "run.toml", "--dry-run"]) == 0
        assert capsys.readouterr().out == text


def test_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    words = ["sweep", "--data", "mine.npz", "--hidden", "4", "--steps", "6", "--l2", "0,0.1", "--out", "sweep"]
    assert main(words) == 0
    assert main(words) == 0  # goes on
    assert main(["predict", "sweep", "mine.npz", "--key", "x", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["classes"] == ["0", "1", "2"]
    assert main(["report", "sweep"]) == 0
    assert "On the test examples" in Path("sweep/report.html").read_text("utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(("k", "pictures"), [(40, 1), (1000, 0)])
def test_many_classes_with_odd_names(
    k: int, pictures: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    y = np.array([f"$\\frac{i}$ <b>&{i} {'é' * 40}" for i in range(k)])  # the configuration has more than 64 KiB
    x = np.arange(float(k))[:, None]
    write(tmp_path, "a$b_$.npz", x=x, y=y, x_test=x, y_test=y, x_validation=x, y_validation=y)
    assert main(["train", "--data", "a$b_$.npz", "--hidden", "2", "--steps", "2", "--out", "run"]) == 0
    assert main(["train", "--resume", "run"]) == 0
    assert main(["predict", "run", "a$b_$.npz", "--key", "x_test"]) == 0
    assert main(["report", "run"]) == 0
    parsed = Parsed(Path("run/report.html").read_text("utf-8"))
    assert len(parsed.all("img")) == pictures
    assert ("too large to draw" in " ".join(text["text"] for text in parsed.all("p"))) is not bool(pictures)


def test_own_images_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, x=np.random.default_rng(0).integers(0, 256, (60, 3072), "uint8"))
    assert main(["train", "--data", "mine.npz", "--hidden", "2", "--steps", "2", "--out", "run"]) == 0
    assert main(["report", "run"]) == 0
    parsed = Parsed(Path("run/report.html").read_text("utf-8"))
    assert "On the test images" in headings(parsed)
    assert len(parsed.all("img")) == 3  # weights, confusion matrix, mistakes
