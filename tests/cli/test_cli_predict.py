"""``xpnet predict``: the network it finds, what it prints and writes, and one line for what is wrong."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imsave

import xpnet
from xpnet import SGD, Trainer, datasets, mlp
from xpnet.cli import main

pytestmark = pytest.mark.backends("numpy")
DATA = datasets.synthetic(train=60, validation=20, test=20)
X = DATA.test.x[:4]
LOAD = datasets.load


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a data set of 60 training images in place of the one that would be loaded."""
    monkeypatch.setattr(datasets, "load", lambda *_, **__: DATA)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the directories of a run, a sweep and a search in two rounds."""
    place = tmp_path_factory.mktemp("runs")
    found = {"train": place / "run", "sweep": place / "sweep", "search": place / "search"}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(datasets, "load", lambda *_, **__: DATA)
        short = ("--hidden", "4", "--steps", "4")
        assert main(["train", *short, "--out", str(found["train"])]) == 0
        assert main(["sweep", *short, "--l2", "0,0.1", "--out", str(found["sweep"])]) == 0
        assert main(["sweep", *short, "--l2", "uniform(0,1)", "--draws", "2", "--coarse-to-fine", "--out",
                     str(found["search"])]) == 0
    return found


@pytest.fixture
def file(tmp_path: Path) -> str:
    """Return a file of four images."""
    np.save(tmp_path / "x.npy", X)
    return str(tmp_path / "x.npy")


def predicted(capsys: pytest.CaptureFixture[str], *arguments: Any) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["predict", *map(str, arguments), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize(("kind", "name"), [
    ("train", "network.safetensors"), ("sweep", "best.safetensors"), ("search", "best.safetensors")])
def test_predictions_are_the_networks(
    kind: str, name: str, runs: dict[str, Path], file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    network = xpnet.Network.load(runs[kind] / name)
    found = predicted(capsys, runs[kind], file)
    assert found["classes"] == list(DATA.classes)
    rows = found["predictions"]
    np.testing.assert_array_equal([row["probabilities"] for row in rows], network.predict_proba(X))
    assert [row["class"] for row in rows] == [DATA.classes[i] for i in network.predict(X)]
    assert [(row["file"], row["row"], row["probability"]) for row in rows] == [
        (file, i, max(row["probabilities"])) for i, row in enumerate(rows)]
    assert predicted(capsys, runs[kind] / name, file)["predictions"] == rows  # the file itself


def test_files_of_every_kind(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=[0])
    np.savetxt(tmp_path / "a.csv", X, "%d", ",")
    imsave(tmp_path / "a.png", X[0].reshape(3, 32, 32).transpose(1, 2, 0))
    files = [tmp_path / name for name in ("a.npz", "a.csv", "a.png")]
    rows = predicted(capsys, runs["train"], *files, "--key", "x")["predictions"]
    assert [(row["file"], row["row"]) for row in rows] == [
        (str(file), i) for file, n in zip(files, (4, 4, 1), strict=True) for i in range(n)]
    found = [row["probabilities"] for row in rows]
    np.testing.assert_allclose(found[4:], [*found[:4], found[0]], atol=1e-5)


def test_text_for_people(runs: dict[str, Path], file: str, capsys: pytest.CaptureFixture[str]) -> None:
    network = xpnet.Network.load(runs["train"] / "network.safetensors")
    assert main(["predict", str(runs["train"]), file]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["row", "class", "probability"]
    best = network.predict_proba(X).max(axis=1)
    assert [line.split()[0] for line in lines] == list("0123")
    assert [float(line.split()[-1]) for line in lines] == pytest.approx(best.tolist(), abs=5e-5)
    assert main(["predict", str(runs["train"]), file, file, "--raw"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.startswith("file")
    assert DATA.classes[9] in header
    assert len(lines) == 8


def test_csv(runs: dict[str, Path], file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.csv"
    assert main(["predict", str(runs["train"]), file, "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"wrote {out}\n"
    assert main(["predict", str(runs["train"]), file, "--out", str(tmp_path / "out.json"), "--json"]) == 0
    assert capsys.readouterr().out == ""
    header, *rows = csv.reader(io.StringIO(out.read_text("utf-8")))
    assert header == ["file", "row", "class", "probability", *DATA.classes]
    expected = predicted(capsys, runs["train"], file)["predictions"]
    assert [[float(v) for v in row[4:]] for row in rows] == [row["probabilities"] for row in expected]
    assert main(["predict", str(runs["train"]), file, "--format", "csv"]) == 0
    assert capsys.readouterr().out == out.read_text("utf-8")


def test_npy(runs: dict[str, Path], file: str, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    network, out = xpnet.Network.load(runs["train"] / "network.safetensors"), tmp_path / "out.npy"
    assert main(["predict", str(runs["train"]), file, file, "--out", str(out)]) == 0
    np.testing.assert_array_equal(np.load(out, allow_pickle=False), np.tile(network.predict_proba(X), (2, 1)))
    assert capfdbinary.readouterr().out == f"wrote {out}\n".encode()
    assert main(["predict", str(runs["train"]), file, file, "--format", "npy"]) == 0
    assert capfdbinary.readouterr().out == out.read_bytes()


def test_outputs_instead_of_probabilities(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = np.linspace(-1, 1, 10, dtype="float32").reshape(5, 2)
    trainer = Trainer(mlp(2, [3], 1), loss=xpnet.MeanSquaredError(), optimizer=SGD(), schedule=0.1, batch_size=5)
    trainer.fit(x, x[:, :1], steps=2)
    trainer.network.save(tmp_path / "network")
    np.save(tmp_path / "x.npy", x)
    found = predicted(capsys, tmp_path / "network", tmp_path / "x.npy", "--raw", "--classes", "height")
    assert found["classes"] == ["height"]
    np.testing.assert_array_equal([row["outputs"] for row in found["predictions"]], trainer.network(x))
    assert main(["predict", str(tmp_path / "network"), str(tmp_path / "x.npy")]) == 2
    assert "--raw" in capsys.readouterr().err


def test_classes_are_those_named_or_numbers(
    runs: dict[str, Path], file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    xpnet.Network.load(runs["train"] / "network.safetensors").to_npz(tmp_path / "network.npz")
    assert predicted(capsys, tmp_path / "network.npz", file)["classes"] == list("0123456789")
    named = predicted(capsys, runs["train"], file, "--classes", "a, b,c,d,e,f,g,h,i,j")
    assert named["classes"] == list("abcdefghij")
    assert named["predictions"][0]["class"] in list("abcdefghij")
    assert main(["predict", str(runs["train"]), file, "--classes", "a,b"]) == 2
    assert "--classes: expected 10 names, one for each output of the network, got 2" in capsys.readouterr().err


def test_what_is_no_run_is_refused_in_one_line(
    runs: dict[str, Path], file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty, begun, odd, several, own = (tmp_path / name for name in ("empty", "begun", "odd", "several", "own"))
    for folder in (empty, begun / "checkpoints" / "step-00000001", odd, own / "checkpoints" / "step-00000001"):
        folder.mkdir(parents=True)
    (begun / "config.json").write_text("{}", "utf-8")
    (odd / "network.safetensors").write_bytes((runs["train"] / "network.safetensors").read_bytes())
    (odd / "config.json").write_text('{"classes": ["a", "b"]}', "utf-8")
    both = Trainer(mlp(3072, [3], 10), l2=np.asarray([0.0, 1.0]), batch_size=20, schedule=0.1)
    both.fit(DATA.train.x, DATA.train.y, steps=1)
    both.network.save(several)
    for run, words in (
        (tmp_path / "none", "no run and no file"), (empty, "expected a directory that xpnet train --out"),
        (begun, f"xpnet train --resume {begun}"), (odd, "config.json is damaged: expected 10 classes"),
        (own, "its checkpoints are a Trainer's: go on with trainer.resume"),
        (several, "holds 2 models side by side"), (Path(file), "not a network that xpnet wrote"),
    ):
        assert main(["predict", str(run), file]) == 2
        captured = capsys.readouterr()
        assert words in captured.err
        assert (captured.err.count("\n"), captured.out) == (1, "")
    assert main(["train", "--resume", str(runs["sweep"])]) == 2
    assert "it is a sweep's: the same xpnet sweep command goes on" in capsys.readouterr().err


def test_other_widths_are_refused(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "x.npy", X[:, :100])
    imsave(tmp_path / "x.png", np.zeros((8, 8, 3)))
    for name, words in (("x.npy", "expected 3,072 features, as many as the network takes; got 100 (shape (4, 100))"),
                        ("x.png", "as many as the network takes: an image of 32 x 32 pixels in colour; got 192")):
        assert main(["predict", str(runs["train"]), str(tmp_path / name)]) == 2
        assert words in capsys.readouterr().err


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a run, a sweep, and networks' files of features with names."""
    place = tmp_path_factory.mktemp("named")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    np.savez(place / "mine.npz", x=x, y=(x[:, 0] > 0).astype(int), feature_names=["a", "b", "c"])
    data = ("--data", str(place / "mine.npz"), "--hidden", "8", "--lr", "0.5", "--epochs", "20")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(datasets, "load", LOAD)
        assert main(["train", *data, "--out", str(place / "run")]) == 0
        assert main(["sweep", *data, "--l2", "0,0.1", "--out", str(place / "sweep")]) == 0
    network = xpnet.Network.load(place / "run" / "network.safetensors")
    network.to_npz(place / "network.npz")
    network.fold().save(place / "folded")
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    estimator = xpnet.MLPClassifier((8,), max_iter=200, learning_rate_init=0.05, tol=0.01, random_state=0)
    estimator.fit(pandas.DataFrame(x, columns=["a", "b", "c"]), x[:, 0] > 0).network_.save(place / "estimator")
    return {name: place / name for name in ("run", "sweep", "network.npz", "folded", "estimator")}


@pytest.mark.parametrize("which", ["run", "sweep", "network.npz", "folded", "estimator"])
def test_features_are_compared_and_ordered_by_name(
    which: str, named: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body, classes = "-2,0,0.5\n2,0,0\n2,0,0\n", ["0", "1", "1"]  # a decides the class

    def found(text: str, *options: str) -> Any:
        (tmp_path / "x.csv").write_text(text, "utf-8")
        result = predicted(capsys, named[which], tmp_path / "x.csv", *options)
        return [row["class"] for row in result["predictions"]], result["notes"][0].partition(": ")[2]

    assert found("a,b,c\n" + body) == (classes, "the first line names the columns: a, b, c")
    assert found("c,b,a\n0.5,0,-2\n0,0,2\n0,0,2\n") == (
        classes, "the first line names the columns: c, b, a; taken as a, b, c")
    assert found(body) == (classes, "no line of names; columns are taken as a, b, c")
    for text, words in (("a,b,d\n" + body, "lacks 'c'; has also 'd'"),
                        ("0,1,2\n" + body, "--header yes or --header no"),
                        ("-2,,0\n" + body, "line 1, column 2: expected a number, got nothing"),
                        ("-2,NA,0\n" + body, "line 1, column 2: expected a number, got 'NA'")):
        (tmp_path / "x.csv").write_text(text, "utf-8")
        assert main(["predict", str(named[which]), str(tmp_path / "x.csv")]) == 2
        assert words in capsys.readouterr().err
    predictions = found("0,1,2\n" + body, "--header", "no")[0]
    assert (len(predictions), predictions[1:]) == (4, classes)


def test_headers_without_names_in_the_run(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [",".join(map(str, row)) for row in X.tolist()]
    (tmp_path / "x.csv").write_text("\n".join([",".join(map(str, range(3072))), *lines]), "utf-8")
    assert main(["predict", str(runs["train"]), str(tmp_path / "x.csv")]) == 2
    assert "may be the numbers of the columns or an example: --header yes or --header no" in capsys.readouterr().err
    for header, count in (("yes", 4), ("no", 5)):
        assert main(["predict", str(runs["train"]), str(tmp_path / "x.csv"), "--header", header]) == 0
        printed = capsys.readouterr()
        assert len(printed.out.splitlines()) == 1 + count
        assert ("the network keeps no names to compare them with" in printed.err) == (header == "yes")
        assert ("no line of names" in printed.err) == (header == "no")
