"""``xpnet sweep``: what it prints and writes, its exit codes, and one line for every wrong argument."""

from __future__ import annotations

import json
import platform
import signal
from pathlib import Path
from typing import Any, NoReturn

import pytest

from xpnet import Trainer, datasets
from xpnet.cli import main, sweep
from xpnet.training.checkpoints import steps_in

pytestmark = pytest.mark.backends("numpy")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a data set of 60 training images in place of the one that would be loaded."""
    data = datasets.synthetic(train=60, validation=20, test=20)
    monkeypatch.setattr(datasets, "load", lambda *_, **__: data)


def run(*arguments: str) -> int:
    length = () if {"--steps", "--epochs"} & set(arguments) else ("--steps", "6")
    return main(["sweep", "--hidden", "4", *length, *arguments])


def strictly(text: str) -> Any:
    """Read JSON that has nothing in it that other readers refuse."""
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"no JSON: {constant}")

    return json.loads(text, parse_constant=refuse)


def test_reading_strictly_can_fail() -> None:
    with pytest.raises(ValueError, match="no JSON: NaN"):
        strictly("[NaN]")


@pytest.mark.parametrize("options", [
    (), ("--seed", "0:3"), ("--l2", "0,0.1", "--halve-at", "3"), ("--lr", "1e30,0.1", "--steps", "30"),
    ("--coarse-to-fine", "--l2", "log-uniform(1e-5, 1e-1)", "--draws", "3"),
], ids=["one", "seeds", "halved", "diverged", "two rounds"])
def test_the_answer_is_json(capsys: pytest.CaptureFixture[str], options: tuple[str, ...]) -> None:
    assert run(*options, "--json") == 0
    told = strictly(capsys.readouterr().out)
    assert told["data"] == "synthetic"
    assert told["device"] == "cpu"
    assert 0 <= told["best"]["test_accuracy"] <= 1
    assert 1 <= told["ensemble"]["networks"] <= 3
    tables = [told[name] for name in ("coarse", "fine", "table") if name in told]
    assert all(row["validation_accuracy"] is not None for table in tables for row in table if not row["diverged"])


def test_the_text_says_what_was_trained(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run("--l2", "0,0.1", "--seed", "0:2", "--halve-at", "3", "--out", str(tmp_path)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("data: synthetic, ")
    assert lines[0].endswith("device: cpu")
    assert lines[1].split()[0] == "l2"
    assert lines[-2].startswith("test accuracy: best network")
    assert lines[-1] == f"wrote {tmp_path}"
    assert run("--l2", "0,0.1", "--seed", "0:2", "--halve-at", "3", "--out", str(tmp_path)) == 0  # goes on
    assert capsys.readouterr().out.splitlines() == lines
    assert run("--l2", "0,0.2", "--seed", "0:2", "--halve-at", "3", "--out", str(tmp_path)) == 2
    assert "holds another sweep: points[2].l2 was 0.1, and is 0.2 here" in capsys.readouterr().err


def test_steps_stand_in_the_table_where_they_differ(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--l2", "0,0.1", "--halve-at", "3") == 0
    table = capsys.readouterr().out.splitlines()[1:4]
    assert [line.split()[1] for line in table] == ["step", "6", "3"]


def test_when_all_diverge_the_exit_code_is_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run("--lr", "1e30", "--steps", "30", "--out", str(tmp_path)) == 1
    assert "every network diverged; the first: the train loss was nan" in capsys.readouterr().err
    assert strictly((tmp_path / "table.json").read_text())[0]["diverged"] == 1


@pytest.mark.parametrize(("arguments", "words"), [
    (("--steps", "0"), "--steps: expected an integer of at least 1, got '0'"),
    (("--epochs", "-1"), "--epochs: expected a number above 0, got '-1'"),
    (("--epochs", "nan"), "--epochs: expected a number above 0"),
    (("--steps", "3", "--epochs", "2"), "not allowed with"),
    (("--batch-size", "0"), "--batch-size: expected an integer of at least 1"),
    (("--images", "0"), "--images: expected an integer of at least 1"),
    (("--step-size", "0"), "--step-size: expected an integer of at least 1"),
    (("--workers", "0"), "--workers: expected an integer of at least 1"),
    (("--hidden", "0"), "--hidden: expected widths of at least 1"),
    (("--seed", "uniform(0, 5)"), "--seed: expected values like 1,2,3, 0:5, got 'uniform(0, 5)'"),
    (("--seed", "0:10000000000"), "--seed: expected at most 1,000,000 values, got '0:10000000000'"),
    (("--halve-at", "uniform(1, 2)"), "--halve-at: expected values like 1,2,3"),
    (("--l2", "log-uniform(0, 1)"), "--l2: LogUniform: expected finite low < high above 0"),
], ids=" ".join)
def test_wrong_options_are_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(("arguments", "words"), [
    (("--halve-at", "6"), "halve_at as updates from 1 to 5"),
    (("--l2", "1,1"), "is there twice"),
    (("--coarse-to-fine",), "--coarse-to-fine needs values to draw"),
    (("--out", __file__), "expected a directory to write to"),
    (("--device", "tpu"), "expected the device 'cpu'"),
], ids=str)
def test_wrong_values_are_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    assert run(*arguments) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


def test_ctrl_c_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from xpnet.sweeps import blocks

    def interrupted(*arguments: Any, **options: Any) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(blocks, "run", interrupted)
    assert run("--out", str(tmp_path)) == 130
    assert f"what was done is in {tmp_path}; the same command goes on from there" in capsys.readouterr().err


def test_sigterm_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before, update = signal.getsignal(signal.SIGTERM), Trainer.update

    def ended(self: Trainer, *arguments: Any) -> Any:
        if self.step == 4:
            signal.raise_signal(signal.SIGTERM)
        return update(self, *arguments)

    options = ("--evaluate-every", "2", "--out", str(tmp_path))
    monkeypatch.setattr(Trainer, "update", ended)
    assert run(*options) == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert "xpnet sweep: ended by SIGTERM: 0 of 1 networks were done up to update 6; " in capsys.readouterr().err
    monkeypatch.undo()
    assert [max(steps_in(path)) for path in (tmp_path / "runs").iterdir()] == [4]


def test_a_lock_that_was_left_is_taken_over_in_a_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "lock").write_text(json.dumps({"host": platform.node(), "pid": 2**30, "started": "1"}), "utf-8")
    assert run("--out", str(tmp_path)) == 0
    said = capsys.readouterr().err
    assert said.startswith(f"xpnet sweep: {tmp_path / 'lock'}: process {2**30} on ")
    assert said.endswith("ended without letting go of this run; taken over\n")
    assert said.count("\n") == 1


def test_a_fallback_to_the_cpu_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    class NoGPU(sweep.Device):
        def __init__(self, name: str) -> None:
            super().__init__("cpu")
            self.why = f"(for {name}: no GPU)"

    monkeypatch.setattr(sweep, "Device", NoGPU)
    assert run("--device", "auto") == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("device: cpu (for auto: no GPU)")
