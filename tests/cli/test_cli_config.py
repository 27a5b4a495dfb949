"""``--config FILE`` and ``--dry-run``: what a file of options says, and every way in which it can be wrong."""

from __future__ import annotations

import argparse
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from xpnet import datasets
from xpnet.cli import main
from xpnet.cli.commands import _parser
from xpnet.cli.config import ConfigError, read, write

pytestmark = pytest.mark.backends("numpy")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a data set of 60 training images in place of the one that would be loaded."""
    data = datasets.synthetic(train=60, validation=20, test=20)
    monkeypatch.setattr(datasets, "load", lambda *_, **__: data)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the place of a file of options."""
    return tmp_path / "options.toml"


def parser(command: str) -> argparse.ArgumentParser:
    found = _parser().parse_args([command]).parser
    assert isinstance(found, argparse.ArgumentParser)
    return found


def resolved(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """Return what ``--dry-run`` prints, read."""
    assert main([*arguments, "--dry-run"]) == 0
    return tomllib.loads(capsys.readouterr().out)


TRAIN = """
hidden = [8, 4]
batch-norm = true
standardize = false
l2 = 1e-3
lr = 1
epochs = 2
batch_size = 20          # a key may have _, too
initializer = "normal:1e-2"
optimizer = "sgd"
momentum = 0.9
"""


def test_the_options_of_a_file_are_those_of_a_command_line(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(TRAIN, "utf-8")
    found = resolved(capsys, "train", "--config", str(file))
    same = resolved(capsys, "train", "--hidden", "8,4", "--batch-norm", "--no-standardize", "--l2", "0.001", "--lr",
                    "1", "--epochs", "2", "--batch-size", "20", "--initializer", "normal:0.01", "--momentum", "0.9")
    assert found == same
    assert (found["hidden"], found["batch-norm"], found["standardize"]) == ([8, 4], True, False)
    assert (found["step-size"], found["data"], found["initializer"]) == (15, "synthetic", "normal:0.01")
    assert "steps" not in found


def test_what_is_given_comes_before_the_file(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(TRAIN, "utf-8")
    found = resolved(capsys, "train", "--steps", "7", "--config", str(file), "--no-batch-norm", "--hidden", "3")
    assert (found["steps"], found["hidden"], found["batch-norm"], found["l2"]) == (7, [3], False, 0.001)
    assert "epochs" not in found


SWEEP = """
hidden = [[4], [3, 3]]
l2 = "log-uniform(1e-5, 1e-1)"
lr = [0.1, 1]
seed = "0:2"
draws = 3
halve-at = [2]
steps = 4
"""


def test_a_sweep_reads_values_arrays_and_distributions(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(SWEEP, "utf-8")
    assert main(["sweep", "--config", str(file), "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("# xpnet sweep --config FILE: 24 networks, 60 training images, 1 updates an epoch, on cpu\n")
    found = tomllib.loads(text)
    assert found["hidden"] == [[4], [3, 3]]
    assert (found["l2"], found["lr"], found["seed"]) == ("log-uniform(1e-05, 0.1)", [0.1, 1.0], [0, 1])
    assert resolved(capsys, "sweep", "--config", str(file), "--hidden", "5", "--l2", "0.1")["hidden"] == [[5]]
    file.write_text("hidden = [50, 40]\nl2 = 0.5\nsigma = 0.1\n", "utf-8")
    found = resolved(capsys, "sweep", "--config", str(file))
    assert (found["hidden"], found["l2"], found["sigma"]) == ([[50, 40]], [0.5], [0.1])


@pytest.mark.parametrize(("command", "text"), [("train", TRAIN), ("sweep", SWEEP), ("train", ""), ("sweep", "")])
def test_what_a_dry_run_prints_is_read_again(
    command: str, text: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(text, "utf-8")
    assert main([command, "--config", str(file), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    file.write_text(printed, "utf-8")
    assert main([command, "--config", str(file), "--dry-run"]) == 0
    assert capsys.readouterr().out == printed
    assert main([command, "--config", str(file), "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == tomllib.loads(printed)


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    for command in ("train", "sweep"):
        assert main([command, "--dry-run", "--out", str(tmp_path / "run")]) == 0
    assert not (tmp_path / "run").exists()


def test_a_dry_run_refuses_what_a_run_would(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["train", "--dry-run", "--optimizer", "adam", "--momentum", "0.9"]) == 2
    assert "--momentum belongs to --optimizer sgd" in capsys.readouterr().err
    assert main(["sweep", "--dry-run", "--l2", "1,1"]) == 2
    assert "is there twice" in capsys.readouterr().err
    assert main(["train", "--dry-run", "--resume", str(tmp_path)]) == 2
    assert "leave --resume away" in capsys.readouterr().err


def test_a_run_of_a_file_goes_on_without_it(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(TRAIN.replace("lr = 1", "lr = 0.1"), "utf-8")
    run = tmp_path / "run"
    assert main(["train", "--config", str(file), "--steps", "3", "--out", str(run)]) == 0
    file.unlink()
    assert main(["train", "--resume", str(run), "--steps", "6", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["step"] == 6


def test_strings_survive(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = 'a "b" \\ \x7f\t\u2603 \U0001f600'
    file.write_text("", "utf-8")
    assert resolved(capsys, "train", "--config", str(file), "--out", odd)["out"] == odd
    a = parser("train").parse_args(["--out", odd])
    file.write_text(write(argparse.Namespace(**{**vars(a), "epochs": None})), "utf-8")
    assert read(file, parser("train"))["out"] == [f"--out={odd}"]


WRONG = [
    ("train", "batchnorm = true", "'batchnorm' is no option of xpnet train; the nearest is 'batch-norm'"),
    ("train", "xyzzy = 1", "'xyzzy' is no option of xpnet train; they are hidden, batch-norm, "),
    ("train", "[train]\nl2 = 1", "'train' is no option of xpnet train"),
    ("train", "json = true", "'json' is no option"), ("train", 'config = "x"', "'config' is no option"),
    ("train", 'resume = "x"', "'resume' is no option"), ("train", "help = true", "'help' is no option"),
    ("train", "draws = 3", "'draws' is no option of xpnet train"),
    ("train", "batch-norm = true\nbatch_norm = true", "'batch-norm' is there twice"),
    ("train", "epochs = 1\nsteps = 1", "epochs and steps exclude each other"),
    ("train", "batch-norm = 1", "batch-norm: expected true or false, got 1"),
    ("train", 'batch-norm = "yes"', "batch-norm: expected true or false, got the string \"yes\""),
    ("train", 'lr = "fast"', "lr: expected a number, got the string \"fast\""),
    ("train", "lr = true", "lr: expected a number, got true"), ("train", "lr = [1]", "lr: expected a number"),
    ("train", "lr = nan", "lr: expected a number above 0, got 'nan'"), ("train", "lr = inf", "lr: expected a number"),
    ("train", "lr = -1", "lr: expected a number above 0, got '-1'"),
    ("train", "seed = 1.5", "seed: expected an integer, got 1.5"),
    ("train", "seed = 2020-01-01", "seed: expected an integer, got datetime.date"),
    ("train", f"seed = 0x{'f' * 5000}", "seed: "),
    ("train", "l2.a = 1", "l2: expected a number, got a table {'a': 1}"),
    ("train", 'hidden = "50,50"', "hidden: expected an array of integers, like [50, 50], got the string"),
    ("train", "hidden = [50, true]", "hidden: expected an array of integers"),
    ("train", "hidden = [0]", "hidden: expected widths of at least 1"),
    ("train", "hidden = [[5], [6]]", "hidden: expected an array of integers"),
    ("train", 'optimizer = "adamm"', "expected 'sgd' or 'adam' or 'adamw' (the nearest is 'adam')"),
    ("train", "initializer = 1", "initializer: expected a string, got 1"),
    ("train", 'initializer = "zeros"', "initializer: expected he, xavier or normal:SIGMA"),
    ("train", "out = 1", "out: expected a string"), ("train", "l2 = ", "not a TOML file"),
    ("train", "l2 = 1\nl2 = 2", "not a TOML file"), ("train", "a = " + "[" * 3000, "not a TOML file"),
    ("sweep", 'l2 = ["a"]', "l2: expected a number, an array of them, or a string like 'log-uniform(1e-5, 1e-1)'"),
    ("sweep", 'seed = "uniform(0, 1)"', "seed: expected values like 1,2,3, 0:5"),
    ("sweep", "seed = 0.5", "seed: expected an integer, an array of them, or a string like '0:5', got 0.5"),
    ("sweep", "l2 = []", "l2: expected values like"), ("sweep", 'seed = "0:9999999999"', "at most 1,000,000 values"),
]


@pytest.mark.parametrize(("command", "text", "words"), WRONG, ids=[text[:30] for _, text, _ in WRONG])
def test_a_wrong_file_is_refused_in_one_line(
    command: str, text: str, words: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(text, "utf-8")
    with pytest.raises(ConfigError):
        read(file, parser(command))
    assert main([command, "--config", str(file)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"xpnet {command}: error: {file}: ")
    assert words in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_files_that_are_none(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config", str(file)]) == 2
    assert f"no file {file}: --config expects a TOML file" in capsys.readouterr().err
    file.write_bytes(b"\xff\xfe")
    assert main(["train", "--config", str(file)]) == 2
    assert "not a TOML file" in capsys.readouterr().err
    file.write_bytes(b"#" * (2**16 + 1))
    assert main(["train", "--config", str(file)]) == 2
    assert "more than the 65,536 that are read" in capsys.readouterr().err
    assert main(["train", "--config", str(tmp_path)]) == 2
    assert "is not a plain file" in capsys.readouterr().err
    file.write_text("l2 = 0.5", "utf-8")
    (tmp_path / "link.toml").symlink_to(file)
    assert resolved(capsys, "train", "--config", str(tmp_path / "link.toml"))["l2"] == 0.5
