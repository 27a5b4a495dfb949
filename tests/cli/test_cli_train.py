"""``xpnet train``: runs that go on, with the options they had, and what a run's configuration cannot do."""

from __future__ import annotations

import argparse
import json
import signal
import warnings
from pathlib import Path
from typing import Any

import pytest

import xpnet
from xpnet import datasets
from xpnet.cli import main
from xpnet.cli import train as cli_train
from xpnet.cli.commands import _parser
from xpnet.cli.train import read_config
from xpnet.nn.formats.safetensors import CheckpointError
from xpnet.training.checkpoints import ResumeWarning, steps_in


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> datasets.Dataset:
    """Put a data set of 120 training images in place of the one that would be loaded."""
    data = datasets.synthetic(train=120, validation=40, test=40)
    monkeypatch.setattr(datasets, "load", lambda *_, **__: data)
    return data


def train(*arguments: str) -> int:
    """Begin a run of 24 updates with an evaluation at every sixth."""
    length = () if {"--steps", "--epochs"} & set(arguments) else ("--epochs", "4")
    return main(["train", "--data", "synthetic", "--hidden", "8", "--batch-size", "20", *length, *arguments])


def interrupt(monkeypatch: pytest.MonkeyPatch, at: int, number: int = signal.SIGTERM) -> None:
    """Have a signal come during update ``at``."""
    update = xpnet.Trainer.update

    def ignore_overflow(self: xpnet.Trainer, *arguments: Any) -> Any:
        if self.step == at - 1:
            signal.raise_signal(number)
        return update(self, *arguments)

    monkeypatch.setattr(xpnet.Trainer, "update", ignore_overflow)


def files(run: Path) -> dict[str, bytes]:
    """Return what a run wrote, its configuration apart."""
    return {name: (run / name).read_bytes() for name in ("network.safetensors", "history.jsonl", "curves.png")}


@pytest.mark.parametrize("options", [
    ["--batch-norm", "--dropout", "0.2", "--momentum", "0.9"], ["--optimizer", "adam", "--no-standardize"],
    ["--optimizer", "adamw", "--schedule", "cosine", "--dtype", "float64", "--seed", "3"],
    ["--initializer", "normal:1e-2", "--evaluate-every", "4", "--checkpoint-every", "2"],
], ids=["momentum", "adam", "adamw", "normal"])
def test_a_run_that_was_interrupted_ends_as_if_it_had_not_been(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(*options, "--out", str(tmp_path / "calm")) == 0
    with monkeypatch.context() as patched:
        interrupt(patched, 11)
        assert train(*options, "--out", str(tmp_path / "run")) == 143
    captured = capsys.readouterr()
    assert captured.err == (f"xpnet train: ended by SIGTERM after update 11 of 24; go on with: xpnet train --resume "
                            f"{tmp_path / 'run'}\n")
    assert max(steps_in(tmp_path / "run")) == 11
    assert not (tmp_path / "run" / "network.safetensors").exists()
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
    assert f"going on with {tmp_path / 'run'} from update 11\n" in capsys.readouterr().out
    assert files(tmp_path / "run") == files(tmp_path / "calm")
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0  # it is done already
    assert files(tmp_path / "run") == files(tmp_path / "calm")


def test_ctrl_c_without_a_directory(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    interrupt(monkeypatch, 11, signal.SIGINT)
    assert train("--json") == 130
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == ("xpnet train: ended by SIGINT after update 11 of 24; nothing is kept, for there was no "
                            "--out\n")


def test_a_run_without_checkpoints_begins_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--out", str(tmp_path / "calm")) == 0
    assert train("--out", str(tmp_path / "run")) == 0
    for step in steps_in(tmp_path / "run"):
        for file in (tmp_path / "run" / "checkpoints" / f"step-{step:08d}").iterdir():
            file.unlink()
        (tmp_path / "run" / "checkpoints" / f"step-{step:08d}").rmdir()
    capsys.readouterr()
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
    assert "from the beginning" in capsys.readouterr().out
    assert files(tmp_path / "run") == files(tmp_path / "calm")


def test_a_longer_run(tmp_path: Path) -> None:
    assert train("--out", str(tmp_path / "run"), "--steps", "12", "--step-size", "7") == 0
    assert main(["train", "--resume", str(tmp_path / "run"), "--epochs", "4", "--json"]) == 0
    assert train("--out", str(tmp_path / "calm"), "--step-size", "7") == 0
    assert files(tmp_path / "run") == files(tmp_path / "calm")
    config = json.loads((tmp_path / "run" / "config.json").read_text("utf-8"))
    assert config["steps"] == 24  # and it stays as long when it goes on again
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
    assert files(tmp_path / "run") == files(tmp_path / "calm")


@pytest.mark.parametrize(("options", "words"), [
    (["--l2", "0.1"], "l2 was 0.0, and is 0.1 here"), (["--seed", "1"], "seed was 0, and is 1 here"),
    (["--hidden", "9"], "out_width was 8, and is 9 here"),
    (["--evaluate-every", "5"], "evaluate_every was 6, and is 5 here"),
    (["--schedule", "cosine"], 'schedule.type was "CyclicLR", and is "Cosine" here'),
    (["--out", "elsewhere"], "leave --out elsewhere away"),
], ids=lambda value: value[0] if isinstance(value, list) else "")
def test_other_options_are_refused(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("--out", str(tmp_path)) == 0
    before, config = files(tmp_path), (tmp_path / "config.json").read_bytes()
    capsys.readouterr()
    assert main(["train", "--resume", str(tmp_path), *options]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.count("\n") == 1
    assert files(tmp_path) == before
    assert (tmp_path / "config.json").read_bytes() == config


def test_other_data_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("--out", str(tmp_path)) == 0
    other = datasets.synthetic(train=120, validation=40, test=40, seed=1)
    monkeypatch.setattr(datasets, "load", lambda *_, **__: other)
    assert main(["train", "--resume", str(tmp_path)]) == 2
    assert "train features.sha256 was" in capsys.readouterr().err


def test_a_run_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--out", str(tmp_path)) == 0
    assert train("--out", str(tmp_path)) == 2
    assert f"already holds a run: go on with it with --resume {tmp_path}" in capsys.readouterr().err


def test_halving_the_rate_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--lr", "3e3", "--schedule", "constant", "--divergence", "halve", "--out", str(tmp_path)) in (0, 1)
    said = capsys.readouterr().err
    assert said.startswith("xpnet train: the ")
    assert "and on with half the rate\n" in said


def test_a_rate_too_high_ends_the_run_with_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--lr", "1e9", "--schedule", "constant", "--out", str(tmp_path)) == 1
    said = capsys.readouterr().err
    assert "not finite first: " in said
    assert "as it was at update 0" in said
    assert steps_in(tmp_path) == [0]


def test_more_images_than_memory(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--images", str(10**12)) == 2
    assert "--images 1000000000000 need 3.072 PB, " in (errors := capsys.readouterr().err)
    assert errors.rstrip().endswith("B are free: lower --images")


# A run's configuration ------------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """Return the parser of ``xpnet train``."""
    found = _parser().parse_args(["train"]).parser
    assert isinstance(found, argparse.ArgumentParser)
    return found


def test_the_configuration_holds_the_options(tmp_path: Path) -> None:
    assert train("--out", str(tmp_path), "--l2", "0.25", "--json") == 0
    found, steps = read_config(tmp_path / "config.json", parser())
    assert (found.l2, found.hidden, found.batch_size, steps) == (0.25, [8], 20, 24)


CONFIGS: dict[str, Any] = {
    "nothing": {}, "no list": {"arguments": "--l2 1", "steps": 1}, "no text": {"arguments": ["--l2", 1], "steps": 1},
    "no steps": {"arguments": []}, "steps of text": {"arguments": [], "steps": "1"},
    "no steps at all": {"arguments": [], "steps": 0}, "true": {"arguments": [], "steps": True},
    "an option that is not there": {"arguments": ["--exec", "id"], "steps": 1},
    "a wrong value": {"arguments": ["--l2", "x"], "steps": 1}, "a wrong choice": {
        "arguments": ["--optimizer", "os.system"], "steps": 1},
    "help": {"arguments": ["--help"], "steps": 1}, "a place too many": {"arguments": ["x"], "steps": 1},
    "two lengths": {"arguments": ["--steps", "1", "--epochs", "1"], "steps": 1},
    "long": {"arguments": ["--l2"] * 20_000, "steps": 1},
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_configuration_that_is_something_else_is_refused(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS[kind]), "utf-8")
    with pytest.raises(CheckpointError, match=r"config\.json is damaged: "):
        read_config(tmp_path / "config.json", parser())
    assert capsys.readouterr() == ("", "")
    assert main(["train", "--resume", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_configuration_writes_nowhere_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    assert train("--out", str(run)) == 0
    config = json.loads((run / "config.json").read_text("utf-8"))
    config["arguments"] += ["--out", str(elsewhere), "--resume", str(elsewhere), "--json"]
    (run / "config.json").write_text(json.dumps(config), "utf-8")
    precious = tmp_path / "precious"
    precious.write_bytes(b"data")
    for name in ("history.jsonl", "curves.png", "network.safetensors"):
        (run / name).unlink()
        (run / name).symlink_to(precious)
    capsys.readouterr()
    assert main(["train", "--resume", str(run)]) == 0
    assert "wrote" in capsys.readouterr().out
    assert not elsewhere.exists()
    assert precious.read_bytes() == b"data"


def test_there_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in (tmp_path, tmp_path / "none"):
        assert main(["train", "--resume", str(place)]) == 2
        assert f"no run in {place}: expected a directory" in capsys.readouterr().err


def test_warnings_are_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with cli_train.warnings_in_lines("train"):
        warnings.warn("this and that", ResumeWarning, stacklevel=1)
    assert capsys.readouterr().err == "xpnet train: this and that\n"
