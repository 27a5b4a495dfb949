"""The command line: what it writes, its exit codes, and one line for every wrong argument."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import xpnet
from xpnet import datasets
from xpnet.cli import main


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> datasets.Dataset:
    """Put a data set of 120 training images in place of the one that would be loaded."""
    data = datasets.synthetic(train=120, validation=40, test=40)
    monkeypatch.setattr(datasets, "load", lambda *_, **__: data)
    return data


def train(*arguments: str) -> int:
    length = () if {"--steps", "--epochs"} & set(arguments) else ("--epochs", "2")
    return main(["train", "--data", "synthetic", "--hidden", "8", "--batch-size", "20", *length, *arguments])


def test_train_writes_a_run(small: datasets.Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert train("--batch-norm", "--out", str(out), "--l2", "0.001") == 0
    text = capsys.readouterr().out
    assert "data: synthetic" in text
    assert "test accuracy" in text
    rows = [json.loads(line) for line in (out / "history.jsonl").read_text("utf-8").splitlines()]
    assert [row["step"] for row in rows] == [0, 6, 12]
    assert rows[-1]["train_cost"] > rows[-1]["train_loss"]
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    config = json.loads((out / "config.json").read_text("utf-8"))
    assert config["l2"] == 0.001
    network = xpnet.Network.load(out / "network.safetensors")
    right = float(np.mean(network.predict(small.test.x) == small.test.y))
    assert f"test accuracy: {right:.4f}" in text


def test_train_refuses_to_write_over_a_run(
    small: datasets.Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("--out", str(tmp_path)) == 0
    before = (tmp_path / "history.jsonl").read_bytes()
    assert train("--out", str(tmp_path)) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert (tmp_path / "history.jsonl").read_bytes() == before


@pytest.mark.parametrize("options", [
    ["--optimizer", "adam", "--schedule", "constant", "--lr", "1e-3"],
    ["--optimizer", "adamw", "--schedule", "cosine", "--lr", "1e-3"],
    ["--optimizer", "sgd", "--momentum", "0.9", "--nesterov", "--schedule", "step", "--lr", "1e-2"],
    ["--dropout", "0.2", "--initializer", "xavier", "--dtype", "float64"],
    ["--initializer", "normal:1e-2", "--no-standardize", "--lr", "1e-4", "--steps", "5"],
], ids=lambda options: options[1])
def test_train_json(small: datasets.Dataset, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--json", *options) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result["data"] == small.name
    assert 0.0 <= result["test_accuracy"] <= 1.0
    assert captured.err == ""


def test_divergence_is_exit_code_1(small: datasets.Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    with np.errstate(all="ignore"):
        code = train("--lr", "1e6", "--schedule", "constant", "--epochs", "20")
    assert code == 1
    assert "was nan at update" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "words"), [
    (["train", "--hidden", "50,x"], "widths of at least 1"),
    (["train", "--hidden", "50,0"], "widths of at least 1"),
    (["train", "--epochs", "0"], "a number above 0"),
    (["train", "--batch-size", "1.5"], "an integer of at least 1"),
    (["train", "--dropout", "1"], "at least 0 and below 1"),
    (["train", "--initializer", "normal:-1"], "he, xavier or normal:SIGMA"),
    (["train", "--initializer", "zeros"], "he, xavier or normal:SIGMA"),
    (["train", "--optimizer", "rmsprop"], "'sgd', 'adam', 'adamw'"),
    (["train", "--epochs", "1", "--steps", "1"], "not allowed with"),
    (["train", "--nesterov"], "--momentum above 0"),
    (["train", "--optimizer", "adam", "--momentum", "0.9"], "--momentum belongs to --optimizer sgd"),
    (["train", "--weight-decay", "0.1"], "--weight-decay belongs to --optimizer adamw"),
    (["train", "--lr", "1e-6"], "--lr-min 1e-05 is above --lr 1e-06"),
    (["train", "--data", "synthetic", "--images", "100", "--batch-norm", "--batch-size", "1"], "at least 2"),
    (["train", "--device", "gpu"], "'cpu', 'cuda', 'cuda:N' or 'auto'"),
    (["train", "--data", "/no/such/place"], "/no/such/place"),
    (["train", "--seed", "-1"], "at least 0"),
    (["gradcheck", "--samples", "1"], "at least 2"),
    (["gradcheck", "--method", "forward"], "'central', 'complex', 'both'"),
    (["gradcheck", "--backend", "jax"], "numpy"),
    (["train", "--hiden", "5"], "unrecognized arguments: --hiden 5; the nearest is --hidden (see xpnet train --help)"),
    (["devices", "xyz"], "unrecognized arguments: xyz (see xpnet devices --help)"),
    (["sing"], "train"),
    ([], "COMMAND"),
], ids=lambda value: " ".join(value) or "nothing" if isinstance(value, list) else "")
def test_wrong_arguments_get_one_line_and_code_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(arguments)
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert words in captured.err
    assert "Traceback" not in captured.err


def test_gradcheck_passes_and_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gradcheck", "--hidden", "5,4", "--batch-norm", "--dropout", "0.2", "--l2", "0.01"]) == 0
    text = capsys.readouterr().out
    assert "18 of 18 gradients pass on numpy" in text
    assert "a bias that batch norm cancels, has no relative error" in text
    assert main(["gradcheck", "--hidden", "5"]) == 0
    assert "cancels" not in capsys.readouterr().out


def test_gradcheck_fails_on_a_wrong_gradient(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forward = xpnet.ReLU.forward

    def wrong(self: xpnet.ReLU, x: object, *arrays: object, **options: object) -> object:
        y, pullback, statistics = forward(self, x, *arrays, **options)
        return y, lambda *a, **k: (-pullback(*a, **k)[0], ()), statistics

    monkeypatch.setattr(xpnet.ReLU, "forward", wrong)
    assert main(["gradcheck", "--hidden", "5", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["passes"] is False


@pytest.mark.parametrize("method", ["central", "complex"])
def test_gradcheck_all_as_json(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gradcheck", "--all", "--method", method, "--backend", "strict", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {"Linear", "BatchNorm", "SoftmaxCrossEntropy"} <= {row["case"] for row in result["rows"]}
    assert result["passes"] is True


def test_data_tells_where_it_looked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "--data", str(tmp_path), "--json"]) == 2
    result = json.loads(capsys.readouterr().out)
    assert result["found"] is False
    assert str(tmp_path) in result["places"][0]["path"]


def test_devices(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["device"] == "cpu"
    assert rows[0]["works"] is True
    assert all(row["works"] or "--device cpu" in row["detail"] for row in rows)


def test_version_and_help_from_the_shell() -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "xpnet", *arguments], capture_output=True, text=True, check=False)

    version, text = run("--version"), run("--help")
    assert version.stdout == f"xpnet {xpnet.__version__}\n"
    assert text.returncode == 0
    lines = text.stdout.splitlines()
    assert len(lines) < 24  # and the prompt beneath
    assert max(map(len, lines)) <= 80
    assert {line.split()[1] for line in lines if line.startswith("  xpnet ")} >= {"train", "sweep", "predict"}


def test_a_reader_who_has_enough_gets_no_traceback() -> None:
    done = subprocess.run(f"{sys.executable} -m xpnet devices | true; echo ${{PIPESTATUS[0]}}", shell=True,  # noqa: S602
                          executable="/bin/bash", capture_output=True, text=True, check=False)
    assert done.stdout in ("0\n", "141\n")
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/bin/sh").exists(), reason="streams are closed by a shell")
@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "1>&- 2>&-"])
def test_closed_streams_are_no_failure(closed: str, tmp_path: Path) -> None:
    options = "train --data synthetic --images 50 --hidden 4 --steps 2 --out run"
    command = ["/bin/sh", "-c", f'"{sys.executable}" -m xpnet {options} {closed}']
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "network.safetensors").is_file()
