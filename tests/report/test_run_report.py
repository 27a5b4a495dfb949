"""``xpnet report``: what the page of a run or a sweep holds, and what it does with a directory that was changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import Parsed, headings, tables

import xpnet
from xpnet import datasets
from xpnet.cli import main
from xpnet.nn.formats.safetensors import CheckpointError
from xpnet.report.run import page
from xpnet.training.callbacks import JSONLines

pytestmark = pytest.mark.backends("numpy")
DATA = datasets.synthetic(train=60, validation=20, test=30)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a data set of 60 training images in place of the one that would be loaded."""
    monkeypatch.setattr(datasets, "load", lambda *_, **__: DATA)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the directories of a run, a sweep and a search in two rounds."""
    place = tmp_path_factory.mktemp("kept")
    commands: dict[str, tuple[str, ...]] = {
        "run": ("train", "--batch-norm", "--l2", "0.01"), "sweep": ("sweep", "--l2", "0,0.1", "--seed", "0:2"),
        "search": ("sweep", "--l2", "uniform(0,1)", "--draws", "2", "--coarse-to-fine"),
    }
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(datasets, "load", lambda *_, **__: DATA)
        for name, words in commands.items():
            short = ("--hidden", "4", "--steps", "4", "--evaluate-every", "2", "--out", str(place / name))
            assert main([*words, *short]) == 0
    return {name: place / name for name in commands}


@pytest.fixture
def copy(kept: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """Return copies that a test may change."""
    return {name: Path(shutil.copytree(path, tmp_path / name)) for name, path in kept.items()}


def test_the_page_of_a_run(copy: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(copy["run"])]) == 0
    assert capsys.readouterr().out == f"wrote {copy['run'] / 'report.html'}\n"
    parsed = Parsed((copy["run"] / "report.html").read_text("utf-8"))
    assert headings(parsed) == ["Result", "Curves", "Network", "On the test images", "How it was made"]
    rows = [json.loads(line) for line in (copy["run"] / "history.jsonl").read_text("utf-8").splitlines()]
    charts = parsed.json()
    assert [len(chart["series"]) for chart in charts] == [4, 2, 1]
    for chart in charts:
        for line in chart["series"]:
            assert line["x"] == [0, 2, 4]
            name = "lr" if line["name"] == "learning rate" else line["name"].replace(" ", "_")
            assert line["y"] == [row[name] for row in rows]
    assert [chart["from_zero"] for chart in charts] == [False, False, True]
    assert [parsed.all("h1")[0]["text"], parsed.all("p", "subtitle")[0]["text"]] == [
        "run: a training run", f"xpnet {xpnet.__version__}, synthetic, cpu"]
    network = xpnet.Network.load(copy["run"] / "network.safetensors")
    right = network.predict(DATA.test.x) == DATA.test.y
    result, layers, classes, sizes, settings = tables(parsed)
    assert result["data"] == ["train", "validation", "test"]
    assert list(result) == ["data", "loss", "cost", "accuracy"]
    assert result["accuracy"][1] == f"{rows[-1]['validation_accuracy']:.2%}"
    assert layers["type"] == ["Standardize", "Linear", "BatchNorm", "ReLU", "Linear"]
    assert result["accuracy"][2] == f"{right.mean():.2%}"
    loss = -np.log(network.predict_proba(DATA.test.x)[np.arange(30), DATA.test.y]).mean()
    assert float(result["loss"][2]) == pytest.approx(loss, rel=1e-3)
    assert classes["class"] == list(DATA.classes)
    assert classes["recognised"] == [f"{right[DATA.test.y == i].mean():.2%}" for i in range(10)]
    assert sum(map(int, classes["taken for it"])) == 30
    assert len(sizes["layer"]) == 5
    assert "SGD(momentum=0, nesterov=false)" in settings["value"]
    assert [image["attributes"].get("class") for image in parsed.all("img")] == [None, "drawing", None]
    assert all(image["attributes"]["alt"] for image in parsed.all("img"))
    assert any("--batch-norm" in text["text"] for text in parsed.all("code"))


@pytest.mark.slow
def test_a_cost_that_is_the_loss_is_not_said_twice(copy: dict[str, Path]) -> None:
    path = copy["run"] / "history.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    same = [{**row, **{f"{split}_cost": row[f"{split}_loss"] for split in ("train", "validation")}} for row in rows]
    for kept, without in ((rows, False), (same, True),
                          ([{k: v for k, v in row.items() if "cost" not in k} for row in rows], True)):
        path.write_text("\n".join(map(json.dumps, kept)), "utf-8")
        parsed = Parsed(page(copy["run"])[0].html())
        assert ("cost" not in tables(parsed)[0]) == without
        assert len(parsed.json()[0]["series"]) == (2 if without else 4)
    table = json.loads((copy["sweep"] / "table.json").read_text("utf-8"))
    assert "train cost" in tables(Parsed(page(copy["sweep"])[0].html()))[0]
    table = [{**row, "train_cost": row["train_loss"]} for row in table]
    (copy["sweep"] / "table.json").write_text(json.dumps(table), "utf-8")
    shown = tables(Parsed(page(copy["sweep"])[0].html()))[0]
    assert "train cost" not in shown
    assert "train loss" in shown


def test_what_was_best_is_said_of_each_measure_as_its_loss_declares(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 3)).astype("float32")
    trainer = xpnet.Trainer(xpnet.mlp(3, [8], 1), loss=xpnet.MeanSquaredError(), schedule=0.05,
                            callbacks=[JSONLines(tmp_path / "history.jsonl")])
    history = trainer.fit(x[:60], x[:60, 0] * x[:60, 1], steps=40, evaluate_every=4,
                          validation=(x[60:], x[60:, 0] * x[60:, 1]))
    best = int(history["validation_r2"].argmax())
    made, _ = page(tmp_path)
    parsed = Parsed(made.html())
    assert f"The highest validation r2 was {history['validation_r2'][best]:.4g}, at update {4 * best}." in made.html()
    assert ["train r2", "validation r2"] in [[line["name"] for line in c["series"]] for c in parsed.json()]


def test_what_a_directory_from_python_does_not_know_is_left_out(copy: dict[str, Path]) -> None:
    (copy["run"] / "config.json").unlink()
    made, missing = page(copy["run"])
    assert made.subtitle == ""
    assert "--data names them" in missing  # the network takes such images
    architecture = xpnet.mlp(5, [4], 3)
    arrays = {name: np.zeros(shape, np.float32) for name, shape in architecture.shapes.items()}
    xpnet.Network(architecture, arrays).save(copy["run"] / "network.safetensors")
    made, missing = page(copy["run"])
    assert missing == ""
    assert "Not on this page" not in made.html()


def test_the_page_of_a_sweep(kept: dict[str, Path], tmp_path: Path) -> None:
    assert main(["report", str(kept["sweep"]), "--out", str(tmp_path / "page.html")]) == 0
    parsed = Parsed((tmp_path / "page.html").read_text("utf-8"))
    assert headings(parsed) == ["Result", "The best network", "On the test images", "How it was made"]
    rows = json.loads((kept["sweep"] / "table.json").read_text("utf-8"))
    result = tables(parsed)[0]
    assert list(result)[:3] == ["l2", "validation accuracy", "train loss"]
    assert not {"diverged", "step", "lr"} & set(result)  # the same for all
    assert [float(cell) for cell in result["l2"]] == [row["l2"] for row in rows]
    assert result["validation accuracy"] == [
        f"{row['validation_accuracy']:.2%} ± {row['validation_accuracy_margin']:.2%}" for row in rows]
    assert any("On the test images the best network has accuracy" in text["text"] for text in parsed.all("p"))
    assert any("hidden [4]" in text["text"] for text in parsed.all("p"))
    chart = parsed.json()[0]
    assert sorted(line["name"] for line in chart["series"]) == [
        f"l2 {l2}, seed {seed}" for l2 in ("0", "0.1") for seed in (0, 1)]
    assert len(parsed.all("img")) == 4


def test_the_page_of_two_rounds(kept: dict[str, Path]) -> None:
    parsed = Parsed(page(kept["search"])[0].html())
    assert headings(parsed)[:3] == ["Result of the coarse round", "Result of the fine round", "The best network"]
    assert "±" not in tables(parsed)[0]["validation accuracy"][0]  # of one seed


def test_many_members_are_not_all_drawn(copy: dict[str, Path]) -> None:
    path = copy["sweep"] / "curves.json"
    curves = [{"point": {"l2": i}, "step": [0, 4], "validation_accuracy": [0.0, i / 100]} for i in range(40)]
    path.write_text(json.dumps(curves), "utf-8")
    chart = Parsed(page(copy["sweep"])[0].html()).json()[0]
    assert [line["name"] for line in chart["series"]] == [f"l2 {i}" for i in range(39, 18, -1)]


def test_an_unfinished_run_and_absent_data_are_said(
    copy: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(*_: Any, **__: Any) -> Any:
        raise datasets.DataNotFoundError("no CIFAR-10 here")

    monkeypatch.setattr(datasets, "load", absent)
    assert main(["report", str(copy["run"]), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["missing"] == "the test images (no CIFAR-10 here); --data says where they are"
    text = Path(told["page"]).read_text("utf-8")
    assert "Not on this page: the test images (no CIFAR-10 here)" in text
    assert headings(Parsed(text)) == ["Result", "Curves", "Network", "How it was made"]
    (copy["run"] / "network.safetensors").unlink()
    assert main(["report", str(copy["run"])]) == 0
    assert f"not on the page: no trained network in {copy['run']}" in capsys.readouterr().out
    (copy["run"] / "config.json").unlink()
    assert main(["report", str(copy["run"])]) == 0
    assert headings(Parsed((copy["run"] / "report.html").read_text("utf-8"))) == ["Result", "Curves"]


def test_other_test_images_are_said(copy: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    split = datasets.Split(DATA.test.x[:, :12], DATA.test.y)
    other = datasets.Dataset("synthetic", split, split, split, DATA.classes, "", (3, 2, 2))
    monkeypatch.setattr(datasets, "load", lambda *_, **__: other)
    assert "it was trained on others" in page(copy["run"])[0].html()


def test_there_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in (tmp_path, tmp_path / "none"):
        assert main(["report", str(place)]) == 2
        assert f"no run in {place}, neither history.jsonl nor table.json" in capsys.readouterr().err


HOSTILE = "</script><script>alert(1)</script>"
CHANGES = {
    "run/history.jsonl": [
        '{"step": 1, "a": 2}\n{"step": 2, "b": 2}',
        "", "{", "[1]", '{"step": "x"}', '{"step": null}', '{"a": 1}', f'{{"step": 1{"0" * 400}}}',
        '{"step": 1, "train_loss": [1]}'],
    "run/config.json": ["[]", "[" * 5000], "run/network.safetensors": ["x"],
    "sweep/table.json": ["{}", "[]", "[1]", '[{"n": 1}]', "[" * 5000],
    "sweep/curves.json": [
        "[]", '[{"point": 1}]', '[{"point": {}}]', '[{"point": {}, "step": 1}]',
        '[{"point": {}, "step": [1], "a": [1, 2]}]'],
}


@pytest.mark.parametrize(("run", "name", "text"), [
    pytest.param(*path.split("/"), text, id=f"{path} {i}")
    for path, texts in CHANGES.items() for i, text in enumerate(texts)
])
def test_a_damaged_file_is_refused_in_one_line(
    run: str, name: str, text: str, copy: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (copy[run] / name).write_text(text, "utf-8")
    with pytest.raises(CheckpointError, match=name):
        page(copy[run])
    assert main(["report", str(copy[run])]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (copy[run] / "report.html").exists()


def test_a_picture_that_is_none_is_refused(copy: dict[str, Path]) -> None:
    (copy["sweep"] / "sweep.png").write_bytes(b"GIF89a")
    with pytest.raises(ValueError, match="expected a PNG image"):
        page(copy["sweep"])


def test_hostile_values_are_shown_and_never_run(copy: dict[str, Path]) -> None:
    config = json.loads((copy["run"] / "config.json").read_text("utf-8"))
    config |= {"version": HOSTILE, "data": HOSTILE, "arguments": [HOSTILE], "l2": {"type": HOSTILE}, HOSTILE: 10**400,
               "place": ["x"], "seed": None}
    (copy["run"] / "config.json").write_text(json.dumps(config), "utf-8")
    (copy["run"] / "history.jsonl").write_text(json.dumps({"step": 0, "train_loss": 1, HOSTILE: 2}), "utf-8")
    made, missing = page(copy["run"])
    assert "no configuration that names them" in missing
    parsed = Parsed(made.html())
    assert len(parsed.all("script")) == 2  # a chart's numbers and the page's own
    rows = json.loads((copy["sweep"] / "table.json").read_text("utf-8"))
    (copy["sweep"] / "table.json").write_text(
        json.dumps([{**rows[0], "l2": {HOSTILE: 1}, "n": 10**400}, {HOSTILE: 1, "n": HOSTILE}]), "utf-8")
    parsed = Parsed(page(copy["sweep"])[0].html())
    assert len(parsed.all("script")) == 2
    assert HOSTILE in tables(parsed)[0]["n"]
