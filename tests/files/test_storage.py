"""Directories that are whole or absent: what is written, what is left by a fault, and what is refused."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path

import pytest
from faults import CALLS, Faulty, faulty

from xpnet.files import storage
from xpnet.files.storage import DamagedError, read_directory, read_file, read_json, remove_directory, write_directory

FILES = {"a": b"alpha" * 1000, "b": b"beta"}
LIMITS = {"a": 10_000, "b": 10}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_directory(tmp_path / "one", FILES)
    assert read_directory(tmp_path / "one", LIMITS) == FILES
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["a", "b", "manifest.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    if sys.platform != "win32":
        mask = os.umask(0)
        os.umask(mask)
        assert (tmp_path / "one" / "a").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_directory_is_replaced(tmp_path: Path) -> None:
    write_directory(tmp_path / "one", FILES)
    write_directory(tmp_path / "one", {"c": b"gamma"})
    assert read_directory(tmp_path / "one", {"c": 5}) == {"c": b"gamma"}
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_everything_is_flushed_before_the_rename_and_the_parent_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(storage, "os", Faulty(lambda name, count: calls.append(name)))
    write_directory(tmp_path / "one", FILES)
    rename = calls.index("rename")
    assert calls[:rename].count("fsync") == len(FILES) + 2  # the manifest and the directory
    assert "write" not in calls[rename:]
    assert calls[rename + 1 :].count("fsync") == 1


@pytest.mark.parametrize("name", ["a", "b", "manifest.json"])
@pytest.mark.parametrize("damage", ["missing", "cut", "zeros", "longer", "flipped", "link", "directory"])
def test_damage_is_named(name: str, damage: str, tmp_path: Path) -> None:
    write_directory(tmp_path / "one", FILES)
    path = tmp_path / "one" / name
    content = path.read_bytes()
    path.unlink()
    if damage == "link":
        (tmp_path / "elsewhere").write_bytes(content)
        path.symlink_to(tmp_path / "elsewhere")
    elif damage == "directory":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes({"cut": content[:-1], "zeros": bytes(len(content)), "longer": content + b"\0",
                          "flipped": bytes([content[0] ^ 1]) + content[1:]}[damage])
    with pytest.raises(DamagedError, match=name.replace(".", r"\.")):
        read_directory(tmp_path / "one", LIMITS)


def test_a_manifest_must_name_exactly_the_files(tmp_path: Path) -> None:
    for files in ({"a": b""}, {**FILES, "c": b""}, {}):
        write_directory(tmp_path / "one", files)
        with pytest.raises(DamagedError, match=r"not a list of a, b"):
            read_directory(tmp_path / "one", LIMITS)
    for text in ("[]", "{", "null", '{"format": 1, "files": {}}', "[" * 100_000, '{"files": 3}', "\xff", ""):
        (tmp_path / "one" / "manifest.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(DamagedError, match=r"manifest\.json"):
            read_directory(tmp_path / "one", LIMITS)


def test_sizes_are_bounded_before_anything_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(2**40)  # a sparse file: it takes no room, and would fill the memory
    with pytest.raises(DamagedError, match=r"1,099,511,627,776 bytes, more than the 1,000"):
        read_file(path, 1000)
    write_directory(tmp_path / "one", FILES)
    with pytest.raises(DamagedError, match="a has 5,000 bytes, more than the 4,999"):
        read_directory(tmp_path / "one", {"a": 4999, "b": 9})


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_is_refused_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DamagedError, match="pipe is not a plain file"):
        read_file(tmp_path / "pipe", 1000)


@pytest.mark.parametrize("text", ["[1]", "3", '"a"', "{'a': 1}", "", "nan"])
def test_json_must_be_an_object(text: str) -> None:
    with pytest.raises(DamagedError, match="the thing"):
        read_json(text.encode(), "the thing")
    assert read_json(b'{"a": [1, 2.5, null]}', "the thing") == {"a": [1, 2.5, None]}


def test_removing_goes_no_deeper_and_follows_no_link(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_bytes(b"1")
    (tmp_path / "link").symlink_to(kept)
    remove_directory(tmp_path / "link")
    assert not (tmp_path / "link").is_symlink()
    made = tmp_path / "made"
    made.mkdir()
    (made / "inner").symlink_to(kept / "file")
    remove_directory(made)
    assert not made.exists()
    assert (kept / "file").read_bytes() == b"1"
    (made / "deep").mkdir(parents=True)
    with pytest.raises(OSError, match=r"(?i)not empty"):
        remove_directory(made)
    remove_directory(tmp_path / "nowhere")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EINTR], ids=lambda code: errno.errorcode[code])
@pytest.mark.parametrize("call", CALLS)
def test_a_fault_in_any_call_leaves_what_was_there(
    call: tuple[str, int], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_directory(tmp_path / "one", FILES)
    monkeypatch.setattr(storage, "os", faulty(*call, code))
    with pytest.raises(OSError) as caught:  # noqa: PT011
        write_directory(tmp_path / "one", {"a": b"new", "b": b"new"})
    assert caught.value.errno == code
    monkeypatch.undo()
    found = read_directory(tmp_path / "one", LIMITS)
    after_the_rename = call in (("rename", 2), ("fsync", 5))
    assert found == FILES or (after_the_rename and found == {"a": b"new", "b": b"new"})
    write_directory(tmp_path / "one", {"a": b"newer", "b": b"newer"})
    assert read_directory(tmp_path / "one", LIMITS)["a"] == b"newer"


def test_the_faults_are_where_they_are_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, int]] = []
    write_directory(tmp_path / "one", FILES)
    monkeypatch.setattr(storage, "os", Faulty(lambda name, count: made.append((name, count))))
    write_directory(tmp_path / "one", FILES)
    assert set(CALLS) <= set(made)


def test_a_short_write_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Short(Faulty):
        def write(self, handle: int, content: memoryview) -> int:
            return os.write(handle, content[:7])

    monkeypatch.setattr(storage, "os", Short(lambda name, count: None))
    write_directory(tmp_path / "one", FILES)
    monkeypatch.undo()
    assert read_directory(tmp_path / "one", LIMITS) == FILES


def test_a_manifest_is_plain_json(tmp_path: Path) -> None:
    write_directory(tmp_path / "one", FILES)
    told = json.loads((tmp_path / "one" / "manifest.json").read_text("utf-8"))
    assert told["format"] == "xpnet manifest 1"
    assert told["files"]["a"]["bytes"] == 5000
    assert len(told["files"]["b"]["sha256"]) == 64


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    storage.replace_file(path, b"first")
    for call in (("open", 1), ("write", 1), ("fsync", 1), ("replace", 1)):
        monkeypatch.setattr(storage, "os", faulty(*call, errno.ENOSPC))
        with pytest.raises(OSError, match=r"[Nn]o space"):
            storage.replace_file(path, b"second")
        monkeypatch.undo()
        assert path.read_bytes() == b"first"
        assert [p.name for p in tmp_path.iterdir()] == ["file"]
    storage.replace_file(path, b"second")
    assert path.read_bytes() == b"second"
