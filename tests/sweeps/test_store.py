"""A sweep's directory: blocks that are damaged, foreign or cut, disks that are full, and what is named then."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sweeping import data, make

from xpnet import Adam, Network, Sweep, Trainer, sweep
from xpnet.files.locks import LockedError, RunLock
from xpnet.sweeps import blocks as blocks_module
from xpnet.sweeps import store
from xpnet.sweeps.blocks import Block, check
from xpnet.sweeps.store import DamagedBlockWarning, Store
from xpnet.training import checkpoints
from xpnet.training.checkpoints import CheckpointWriteError, ResumeWarning, steps_in

pytestmark = pytest.mark.backends("numpy")
RUN: dict[str, Any] = {"steps": 10, "block_size": 1}


def run(folder: Path, **options: Any) -> Sweep:
    return sweep(make, {"seed": [0, 1]}, **data(), **{**RUN, **options}, directory=folder)


def kept(folder: Path) -> list[Path]:
    return sorted((folder / "blocks").iterdir())


def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    train, trained = blocks_module.run, []

    def count(task: Any, *arguments: Any, **options: Any) -> Any:
        trained.append(task.members)
        return train(task, *arguments, **options)

    monkeypatch.setattr(blocks_module, "run", count)
    return trained


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def changed_members(content: bytes) -> bytes:
    assert content.count(rb"\"members\": [0]") == 1
    return content.replace(rb"\"members\": [0]", rb"\"members\": [7]")


@pytest.mark.parametrize("harm", [
    lambda b: b[:-9], lambda b: b"", lambda b: b[:6], lambda b: b + b"x", lambda b: flipped(b, len(b) - 40),
    lambda b: flipped(b, 4), lambda b: b"\xff" * len(b), lambda b: b"{}" + b, changed_members,
    lambda b: (20).to_bytes(8, "little") + b'{"a": 1}            ',
], ids=["cut", "empty", "short", "longer", "bit in the numbers", "bit in the size", "ones", "text", "members", "JSON"])
def test_a_damaged_block_is_named_and_trained_again(tmp_path: Path, harm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(tmp_path)
    path = next(path for path in kept(tmp_path) if rb"\"members\": [0]" in path.read_bytes())
    good = path.read_bytes()
    path.write_bytes(harm(good))
    trained = counted(monkeypatch)
    with pytest.warns(DamagedBlockWarning, match=f"{path.name} is damaged .*trained again"):
        again = run(tmp_path)
    assert trained == [(0,)]
    assert path.read_bytes() == good
    assert again.table() == whole.table()


def test_a_link_or_a_pipe_is_no_block(tmp_path: Path) -> None:
    whole = run(tmp_path / "a")
    path = kept(tmp_path / "a")[0]
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    os.mkfifo(path.with_name("000000010-0.safetensors"))
    with pytest.warns(DamagedBlockWarning, match="not a plain file"):
        assert run(tmp_path / "a").table() == whole.table()
    assert not path.is_symlink()


def test_blocks_of_another_sweep_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = run(tmp_path / "other", order_seed=5)
    whole = run(tmp_path / "a")
    for path in kept(tmp_path / "other"):
        (tmp_path / "a" / "blocks" / path.name).write_bytes(path.read_bytes())
    trained = counted(monkeypatch)
    assert run(tmp_path / "a").table() == whole.table() != other.table()
    assert not trained


def test_blocks_that_overlap_are_taken_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "small")
    whole = run(tmp_path / "whole", block_size=2)
    for path in kept(tmp_path / "small"):
        (tmp_path / "whole" / "blocks" / path.name).write_bytes(path.read_bytes())
    trained = counted(monkeypatch)
    again = run(tmp_path / "whole")
    assert not trained
    assert all(len(h.batch_loss) == 10 for h in again.histories)
    assert [len(h) for h in again.histories] == [len(h) for h in whole.histories]


def test_a_damaged_description_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(tmp_path)
    told = (tmp_path / "sweep.json").read_text()
    sizes = ('"x"', "1e400", "-1", "0", "true", "2.5")
    for wrong in ("", "{", "[]", "{}", *[told.replace('"block_size": 1', f'"block_size": {size}') for size in sizes]):
        (tmp_path / "sweep.json").write_text(wrong)
        with pytest.raises(ValueError, match=r"sweep\.json is damaged .* remove it; finished blocks will be found"):
            run(tmp_path)
    (tmp_path / "sweep.json").unlink()
    trained = counted(monkeypatch)
    assert run(tmp_path).table() == whole.table()
    assert not trained


def test_a_directory_without_blocks_is_free_again_after_an_error(tmp_path: Path) -> None:
    wrong = data() | {"y": data()["y"] + 9}
    with pytest.raises(ValueError, match="labels: expected 0 to 2"):
        sweep(make, {"seed": [0, 1]}, **wrong, **RUN, directory=tmp_path)
    run(tmp_path)
    with pytest.raises(ValueError, match=r"data.train labels.sha256 was"):
        sweep(make, {"seed": [0, 1]}, **wrong, **RUN, directory=tmp_path)
    assert len(kept(tmp_path)) == 2


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError, match="expected a directory to write to"):
        run(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_full_disk_is_named_and_keeps_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    write, written = store.replace_file, []

    def full(path: Path, content: bytes) -> None:
        if len(written) == 2:
            raise OSError(number, os.strerror(number), str(path))
        written.append(path)
        write(path, content)

    monkeypatch.setattr(store, "replace_file", full)
    with pytest.raises(OSError, match=f"{os.strerror(number)}: blocks that were finished before are intact") as caught:
        run(tmp_path)
    assert caught.value.errno == number
    assert kept(tmp_path) == written[1:]
    monkeypatch.undo()
    trained = counted(monkeypatch)
    run(tmp_path)
    assert len(trained) == 1


def test_files_have_the_permissions_that_the_user_asks_for(tmp_path: Path) -> None:
    run(tmp_path)
    mask = os.umask(0)
    os.umask(mask)
    for path in (*kept(tmp_path), tmp_path / "sweep.json", tmp_path / "table.csv", tmp_path / "best.safetensors"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask, path
    assert json.loads((tmp_path / "sweep.json").read_text())["block_size"] == 1


def test_nothing_is_kept_without_a_directory() -> None:
    nowhere = Store(None, {}, 3)
    assert nowhere.block_size == 3
    assert list(nowhere.load(5)) == []


# In the middle of a block ---------------------------------------------------------------------------------------------

LONG: dict[str, Any] = {**RUN, "steps": 30, "block_size": 2, "evaluate_every": 5, "halve_at": [15]}
SPACE = {"seed": [0, 1], "l2": [0.0, 0.1]}


def long(folder: Path, **options: Any) -> Sweep:
    def adam(seed: int, l2: float) -> Trainer:
        return make(seed, l2, optimizer=Adam(), dropout=0.2, rate=0.003)

    return sweep(adam, SPACE, **data(), **{**LONG, **options}, directory=folder)


def interrupted(folder: Path, after: int, **options: Any) -> None:
    """Begin a sweep, and press Ctrl-C after so many updates of all of its blocks."""
    update, made = Trainer.update, [0]

    def ignore_overflow(self: Trainer, *arguments: Any) -> Any:
        if made[0] == after:
            raise KeyboardInterrupt
        made[0] += 1
        return update(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "update", ignore_overflow)
        with pytest.raises(KeyboardInterrupt, match="what was done is in"):
            long(folder, **options)


def updates(folder: Path, **options: Any) -> int:
    """Go on with a sweep, and count the updates that it makes."""
    update, made = Trainer.update, [0]

    def ignore_overflow(self: Trainer, *arguments: Any) -> Any:
        made[0] += 1
        return update(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "update", ignore_overflow)
        long(folder, **options)
    return made[0]


def same_files(one: Path, other: Path) -> None:
    for name in ("table.json", "members.csv", "curves.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    a, b = (Network.load(folder / "best.safetensors").arrays for folder in (one, other))
    assert all(a[name].tobytes() == b[name].tobytes() for name in a)


@pytest.mark.parametrize(("after", "missing"), [(3, 45), (12, 35), (28, 20), (43, 5)])
def test_a_block_goes_on_from_its_last_evaluation(after: int, missing: int, tmp_path: Path) -> None:
    long(tmp_path / "whole")
    interrupted(tmp_path / "part", after)
    assert list((tmp_path / "part" / "runs").iterdir())
    assert updates(tmp_path / "part") == missing
    same_files(tmp_path / "whole", tmp_path / "part")
    assert not (tmp_path / "part" / "runs").exists()  # and the same again has nothing to do
    assert updates(tmp_path / "part") == 0


def test_a_block_whose_checkpoints_are_damaged_begins_again(tmp_path: Path) -> None:
    long(tmp_path / "whole")
    interrupted(tmp_path / "part", 43)
    folder = next((tmp_path / "part" / "runs").iterdir())
    assert sorted(steps_in(folder)) == [20, 25]
    for path in folder.glob("checkpoints/*/state.json"):
        path.write_bytes(b"")
    with pytest.warns(ResumeWarning, match="no checkpoint in .* is intact.*these networks go on from update 15"):
        assert updates(tmp_path / "part") == 15
    same_files(tmp_path / "whole", tmp_path / "part")


def test_the_checkpoints_of_another_block_are_not_used(tmp_path: Path) -> None:
    interrupted(tmp_path / "part", 12)
    here, there = ((tmp_path / name / "runs") for name in ("part", "other"))
    interrupted(tmp_path / "other", 12, order_seed=7)
    (mine,), (another,) = here.iterdir(), there.iterdir()
    assert mine.name != another.name
    for step in steps_in(mine):
        (mine / "checkpoints" / f"step-{step:08d}").rename(tmp_path / f"{step}")
    for step in steps_in(another):
        (another / "checkpoints" / f"step-{step:08d}").rename(mine / "checkpoints" / f"step-{step:08d}")
    with pytest.warns(ResumeWarning, match="order_seed was 7, and is 0 here: these networks go on from update 0"):
        long(tmp_path / "part")
    long(tmp_path / "whole")
    same_files(tmp_path / "whole", tmp_path / "part")


def test_a_full_disk_in_the_middle_of_a_block_loses_no_more_than_an_evaluation(tmp_path: Path) -> None:
    long(tmp_path / "whole")
    write, written = checkpoints.write_directory, []

    def full(path: Path, files: Any) -> None:
        if len(written) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        written.append(path)
        write(path, files)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "write_directory", full)
        with pytest.raises(CheckpointWriteError, match=r"the disk is full: .* is step-00000010"):
            long(tmp_path / "part")
    assert (tmp_path / "part" / "sweep.json").exists()
    assert updates(tmp_path / "part") == 35
    same_files(tmp_path / "whole", tmp_path / "part")


# Who writes, and what is believed -------------------------------------------------------------------------------------


def test_there_is_one_writer(tmp_path: Path) -> None:
    with RunLock(tmp_path), pytest.raises(LockedError, match=f"process {os.getpid()} on"):
        run(tmp_path)
    assert not (tmp_path / "sweep.json").exists()
    run(tmp_path)
    assert (tmp_path / "lock").read_bytes() == b""


FOREIGN: dict[str, Any] = {
    "members twice": lambda b: b._replace(members=(0, 0)), "no members": lambda b: b._replace(members=()),
    "members that are text": lambda b: b._replace(members=("0", "1")),
    "members that are true": lambda b: b._replace(members=(False, True)),
    "an array less": lambda b: b._replace(state={k: v for k, v in b.state.items() if k != "W1"}),
    "an array more": lambda b: b._replace(state={**b.state, "W9": b.state["W1"]}),
    "another shape": lambda b: b._replace(state={**b.state, "W1": b.state["W1"][:1]}),
    "another dtype": lambda b: b._replace(state={**b.state, "W1": b.state["W1"].astype("float32")}),
    "no updates": lambda b: b._replace(columns={k: v for k, v in b.columns.items() if k != "step"}),
    "no rows": lambda b: b._replace(columns={k: v[:0] for k, v in b.columns.items()}),
    "later rows": lambda b: b._replace(columns={**b.columns, "step": b.columns["step"] + 1}),
    "updates that are not whole": lambda b: b._replace(columns={**b.columns, "step": b.columns["step"] + 0.0}),
    "no measure": lambda b: b._replace(columns={k: v for k, v in b.columns.items() if k != "train_loss"}),
    "a measure of all": lambda b: b._replace(columns={**b.columns, "train_loss": b.columns["step"] + 0.0}),
    "a column of another length": lambda b: b._replace(columns={**b.columns, "lr": np.zeros(1)}),
    "losses of others": lambda b: b._replace(batch_loss=b.batch_loss[:, :1]),
    "losses in a row": lambda b: b._replace(batch_loss=b.batch_loss[:, 0]),
    "losses that are text": lambda b: b._replace(batch_loss=b.batch_loss.astype("S")),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_block_that_is_not_the_sweeps_is_refused(kind: str) -> None:
    trainers = [make(seed) for seed in (0, 1)]
    stacked = Trainer.stack(trainers)
    history = stacked.fit(**data(), steps=10)
    block = Block((0, 1), dict(stacked.state()), history.columns, np.asarray(history.batch_loss), {})
    check(block, trainers, ["train_loss", "validation_loss"], 10)
    with pytest.raises((ValueError, KeyError)):
        check(FOREIGN[kind](block), trainers, ["train_loss", "validation_loss"], 10)
