"""A sweep's directory: blocks that are damaged, foreign or cut, disks that are full, and what is named then."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from test_sweep import data, make

from xpnet import Sweep, store, sweep
from xpnet import blocks as blocks_module
from xpnet.store import DamagedBlockWarning, Store

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
    for wrong in ("", "{", "[]", "{}", told.replace('"block_size": 1', '"block_size": "x"')):
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
