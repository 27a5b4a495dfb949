"""CIFAR-10 from disk and over the network: every layout, every way a file can be wrong, and none runs code.

The files are small: a batch holds ROWS images instead of 10,000.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import importlib.util
import io
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xpnet import datasets
from xpnet.datasets import _cifar10, _download, _errors, _layouts, _pickled

ROWS = 12
RECORD = 3073
BINARY, PICKLED = _layouts.LAYOUTS
needs_pooch = pytest.mark.skipif(importlib.util.find_spec("pooch") is None, reason="pooch is not installed")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Make batches small, and let no test see this machine's own data."""
    monkeypatch.setattr(_cifar10, "ROWS", ROWS)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XPNET_DATA", raising=False)


def batch(k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the images and labels of batch k."""
    rng = np.random.default_rng(k)
    return rng.integers(0, 256, (ROWS, 3072), np.uint8), rng.integers(0, 10, ROWS)


def binary(k: int) -> bytes:
    """Return batch k in the binary layout."""
    x, y = batch(k)
    return np.column_stack([y.astype(np.uint8), x]).tobytes()


def short(text: bytes) -> bytes:
    """Return the opcode by which Python 2 wrote a short byte string."""
    return b"U" + struct.pack("B", len(text)) + text


def pickled(k: int, module: bytes = b"numpy.core.multiarray", shape: tuple[int, int] | None = None) -> bytes:
    """Return batch k as Python 2 pickled the official batches."""
    x, y = batch(k)
    shape = shape or x.shape
    return b"".join([
        b"\x80\x02}q\x01(", short(b"batch_label"), b"q\x02", short(b"training batch"), b"q\x03",
        short(b"labels"), b"q\x04]q\x05(", b"".join(b"K" + bytes([v]) for v in y), b"e",
        short(b"data"), b"q\x06c", module, b"\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85", short(b"b"),
        b"\x87Rq\x09(K\x01", b"J" + struct.pack("<i", shape[0]), b"J" + struct.pack("<i", shape[1]), b"\x86",
        b"cnumpy\ndtype\nq\x0a", short(b"u1"), b"K\x00K\x01\x87Rq\x0b(K\x03", short(b"|"),
        b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T", struct.pack("<i", x.size), x.tobytes(), b"tbu.",
    ])


def resaved(k: int, protocol: int) -> bytes:
    """Return batch k as Python 3 pickles it."""
    x, y = batch(k)
    return pickle.dumps({"labels": [int(v) for v in y], "data": x}, protocol=protocol)


def write(folder: Path, layout: Any, content: Callable[[int], bytes] | None = None) -> Path:
    """Write the six batches of a layout into ``folder``."""
    content = content or (binary if layout is BINARY else pickled)
    folder.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(layout.batches):
        (folder / name).write_bytes(content(k))
    return folder


def member(name: str, data: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """Return a member for :func:`archive`."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def batches(layout: Any) -> list[tuple[tarfile.TarInfo, bytes]]:
    """Return the six members of a layout."""
    content = binary if layout is BINARY else pickled
    return [member(f"{layout.folder}/{name}", content(k)) for k, name in enumerate(layout.batches)]


def archive(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    """Write a .tar.gz archive."""
    with tarfile.open(path, "w:gz") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return path


def check(data: datasets.Dataset, validation: int) -> None:
    """Compare a data set with what the batches hold."""
    x, y = (np.concatenate(parts) for parts in zip(*(batch(k) for k in range(5)), strict=True))
    kept = len(y) - validation
    for split, images, labels in [(data.train, x[:kept], y[:kept]), (data.validation, x[kept:], y[kept:]),
                                  (data.test, *batch(5))]:
        np.testing.assert_array_equal(split.x, images)
        np.testing.assert_array_equal(split.y, labels)
        assert (split.x.dtype, split.y.dtype) == (np.uint8, np.int64)


def test_check_sees_one_wrong_pixel_and_one_wrong_label(tmp_path: Path) -> None:
    data = datasets.cifar10(write(tmp_path, BINARY), validation=7)
    data.test.x[3, 5] ^= 1
    with pytest.raises(AssertionError):
        check(data, 7)
    data.test.x[3, 5] ^= 1
    check(data, 7)
    data.validation.y[0] += 1
    with pytest.raises(AssertionError):
        check(data, 7)


# Layouts, places, splits.


@pytest.mark.parametrize("layout", [BINARY, PICKLED], ids=["binary", "pickled"])
@pytest.mark.parametrize("nested", [True, False])
def test_a_directory_is_or_holds_a_layout(tmp_path: Path, layout: Any, nested: bool) -> None:
    folder = write(tmp_path / layout.folder if nested else tmp_path, layout)
    data = datasets.cifar10(tmp_path, validation=7)
    check(data, 7)
    assert (data.name, data.source) == ("CIFAR-10", str(folder))
    assert data.classes[0] == "airplane"
    assert data.train.x.base is data.validation.x.base is not None


@pytest.mark.parametrize("layout", [BINARY, PICKLED], ids=["binary", "pickled"])
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("reverse", [True, False])
def test_an_archive_is_read_in_any_order(tmp_path: Path, layout: Any, named: bool, reverse: bool) -> None:
    members = [member(f"{layout.folder}", type=tarfile.DIRTYPE), *batches(layout),
               member(f"{layout.folder}/readme.html", b"<p>hello")]
    path = archive(tmp_path / layout.archive, members[::-1] if reverse else members)
    check(datasets.cifar10(path if named else tmp_path, validation=0), 0)
    assert [p.name for p in tmp_path.iterdir()] == [layout.archive]  # nothing was extracted


def test_binary_is_preferred(tmp_path: Path) -> None:
    write(tmp_path / PICKLED.folder, PICKLED)
    assert datasets.cifar10(tmp_path, validation=1).source.endswith(PICKLED.folder)
    archive(tmp_path / BINARY.archive, batches(BINARY))
    assert datasets.cifar10(tmp_path, validation=1).source.endswith(BINARY.archive)
    write(tmp_path / BINARY.folder, BINARY)
    assert datasets.cifar10(tmp_path, validation=1).source.endswith(BINARY.folder)


@pytest.mark.parametrize("content", [
    *(functools.partial(resaved, protocol=p) for p in range(4)),
    functools.partial(pickled, module=b"numpy._core.multiarray"),
], ids=["0", "1", "2", "3", "numpy._core"])
def test_pickles_of_other_protocols_are_read(tmp_path: Path, content: Callable[[int], bytes]) -> None:
    check(datasets.cifar10(write(tmp_path, PICKLED, content), validation=7), 7)


def test_the_places_are_searched_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, named = _layouts.user_cache(), tmp_path / "named"
    assert not cache.exists()
    write(cache, BINARY)
    assert datasets.cifar10(validation=1).source == str(cache)
    monkeypatch.setenv("XPNET_DATA", str(named))
    assert datasets.cifar10(validation=1).source == str(cache)
    write(named, PICKLED)
    assert datasets.cifar10(validation=1).source == str(named)
    rows = datasets.search_places()
    assert [(row["place"], row["found"], row["layout"]) for row in rows] == [
        ("XPNET_DATA", True, "pickled directory"), ("user cache", True, "binary directory")]
    assert [row["path"] for row in rows] == [str(named), str(cache)]
    with pytest.raises(datasets.DataNotFoundError):
        datasets.cifar10(tmp_path / "nowhere", validation=7)  # only what was named is searched


def test_search_places_describes_what_it_sees(tmp_path: Path) -> None:
    (nothing, cache) = datasets.search_places()
    assert (nothing["path"], nothing["found"], nothing["detail"]) == ("", False, "not set")
    assert (cache["found"], cache["layout"], cache["detail"]) == (False, "", "no such file or directory")
    [row] = datasets.search_places(tmp_path)
    assert (row["place"], row["path"], row["found"]) == ("data_dir", str(tmp_path), False)
    assert row["detail"] == "no CIFAR-10 in this directory"
    (write(tmp_path, BINARY) / "test_batch.bin").unlink()
    [row] = datasets.search_places(tmp_path)
    assert (row["found"], row["detail"]) == (False, "directory, 5 of 6 batches: test_batch.bin is missing")
    [row] = datasets.search_places(archive(tmp_path / "copy.tgz", batches(PICKLED)))
    assert (row["found"], row["layout"]) == (True, "pickled archive")
    [row] = datasets.search_places(archive(tmp_path / "copy-python.tgz", []))
    assert (row["found"], row["layout"]) == (False, "")


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="the XDG specification is for other systems")
def test_the_user_cache_follows_the_xdg_specification(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert _layouts.user_cache() == tmp_path / "cache" / "xpnet"
    for ignored in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert _layouts.user_cache() == tmp_path / "home" / ".cache" / "xpnet"


def test_the_user_cache_of_other_systems(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert _layouts.user_cache() == Path.home() / "Library" / "Caches" / "xpnet"
    monkeypatch.setattr(sys, "platform", "win32")
    assert _layouts.user_cache() == tmp_path / "cache" / "xpnet" / "Cache"


@pytest.mark.parametrize("validation", [-1, 5 * ROWS + 1])
def test_validation_must_fit(tmp_path: Path, validation: int) -> None:
    with pytest.raises(ValueError, match="validation must be"):
        datasets.cifar10(write(tmp_path, BINARY), validation=validation)


@pytest.mark.parametrize("validation", [0, 5 * ROWS])
def test_validation_may_be_nothing_or_everything(tmp_path: Path, validation: int) -> None:
    check(datasets.cifar10(write(tmp_path, BINARY), validation=validation), validation)


def peak(function: Callable[[], Any]) -> int:
    """Return the most bytes that were reserved at once while ``function`` ran."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_peak_sees_what_numpy_reserves() -> None:
    assert 5_000_000 <= peak(lambda: np.empty(5_000_000, np.uint8)) < 5_100_000


@pytest.mark.parametrize("kind", ["binary", "pickled", "archive"])
def test_loading_takes_the_memory_of_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Besides them: a block of a binary batch, or one pickled batch."""
    rows = 2_000
    monkeypatch.setattr(sys.modules[__name__], "ROWS", rows)
    monkeypatch.setattr(_cifar10, "ROWS", rows)
    path = archive(tmp_path / BINARY.archive, batches(BINARY)) if kind == "archive" else write(
        tmp_path, PICKLED if kind == "pickled" else BINARY)
    images = 6 * rows * (3072 + 8)
    besides = rows * RECORD if kind == "pickled" else 4 * _cifar10.BLOCK * RECORD
    assert images < peak(lambda: datasets.cifar10(path)) < images + besides + 1_000_000


# What can be wrong with a file.


def test_missing_data_say_where_they_were_looked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="Searched: XPNET_DATA") as caught:
        datasets.cifar10(validation=7)
    assert isinstance(caught.value, datasets.DataNotFoundError)
    assert str(_layouts.user_cache()) in str(caught.value)
    assert _errors.URL in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(datasets.DataNotFoundError, match="no CIFAR-10 in this directory"):
        datasets.cifar10(tmp_path, validation=7)


@pytest.mark.parametrize("layout", [BINARY, PICKLED], ids=["binary", "pickled"])
def test_a_missing_batch_is_named(tmp_path: Path, layout: Any) -> None:
    (write(tmp_path, layout) / layout.batches[2]).unlink()
    with pytest.raises(datasets.DataNotFoundError, match=layout.batches[2]):
        datasets.cifar10(tmp_path, validation=7)


@settings(max_examples=15)
@given(size=st.integers(0, ROWS * RECORD - 1))
def test_a_truncated_binary_batch(tmp_path_factory: pytest.TempPathFactory, size: int) -> None:
    folder = write(tmp_path_factory.mktemp("truncated"), BINARY)
    (folder / "data_batch_2.bin").write_bytes(binary(1)[:size])
    with pytest.raises(ValueError, match="truncated") as caught:
        datasets.cifar10(folder, validation=0)
    assert isinstance(caught.value, datasets.TruncatedDataError)
    assert (caught.value.have, caught.value.expected) == (size, ROWS * RECORD)
    assert caught.value.path == folder / "data_batch_2.bin"
    assert f"{size:,} bytes" in str(caught.value)


@settings(max_examples=25)
@given(size=st.integers(0, len(pickled(1)) - 1))
def test_a_truncated_pickled_batch(size: int) -> None:
    data = pickled(1)[:size]
    with pytest.raises(datasets.TruncatedDataError) as caught:
        _pickled.read_batch(io.BytesIO(data), size, Path("batch"), ROWS)
    assert caught.value.have == size < caught.value.expected


def test_a_batch_that_is_too_long(tmp_path: Path) -> None:
    write(tmp_path, BINARY)
    (tmp_path / "test_batch.bin").write_bytes(binary(5) + b"\0")
    with pytest.raises(datasets.CorruptDataError, match=f"{ROWS * RECORD + 1:,} bytes, expected"):
        datasets.cifar10(tmp_path, validation=0)


@given(row=st.integers(0, ROWS - 1), label=st.integers(10, 255))
@settings(max_examples=15)
def test_a_label_above_nine_is_corrupt(tmp_path_factory: pytest.TempPathFactory, row: int, label: int) -> None:
    folder = write(tmp_path_factory.mktemp("labels"), BINARY)
    damaged = bytearray(binary(3))
    damaged[row * RECORD] = label
    (folder / "data_batch_4.bin").write_bytes(damaged)
    with pytest.raises(datasets.CorruptDataError, match=rf"image {row} has the label {label}, expected 0 to 9"):
        datasets.cifar10(folder, validation=0)


HTML = b"\xef\xbb\xbf \n<!DOCTYPE html><html><body>404 Not Found</body></html>"


@pytest.mark.parametrize("layout", [BINARY, PICKLED], ids=["binary", "pickled"])
def test_a_web_page_instead_of_data(tmp_path: Path, layout: Any) -> None:
    (write(tmp_path, layout) / layout.batches[0]).write_bytes(HTML)
    with pytest.raises(datasets.HTMLDataError, match="web page"):
        datasets.cifar10(tmp_path, validation=7)
    page = tmp_path / layout.archive
    page.write_bytes(HTML)
    with pytest.raises(ValueError, match="web page") as caught:
        datasets.cifar10(page, validation=7)
    assert isinstance(caught.value, datasets.HTMLDataError)
    assert caught.value.path == page


# Archives.


def test_a_truncated_archive(tmp_path: Path) -> None:
    path = archive(tmp_path / BINARY.archive, batches(BINARY))
    whole = path.read_bytes()
    for size in (len(whole) - 1, len(whole) // 2, 5):
        path.write_bytes(whole[:size])
        with pytest.raises(datasets.TruncatedDataError) as caught:
            datasets.cifar10(path, validation=7)
        assert (caught.value.have, caught.value.expected) == (size, 170_052_171)


@pytest.mark.parametrize("damage", ["checksum", "gzip", "not gzip", "empty"])
def test_a_damaged_archive(tmp_path: Path, damage: str) -> None:
    path = archive(tmp_path / BINARY.archive, batches(BINARY))
    data = bytearray(path.read_bytes())
    if damage == "checksum":
        data[-8] ^= 1
    elif damage == "gzip":
        data[len(data) // 2 : len(data) // 2 + 100] = bytes(100)
    path.write_bytes({"not gzip": b"\x50\x4b\x03\x04" * 100, "empty": gzip.compress(b"")}.get(damage, bytes(data)))
    with pytest.raises(datasets.CorruptDataError):
        datasets.cifar10(path, validation=7)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_a_member_that_is_no_file_is_refused(tmp_path: Path, kind: bytes) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(binary(0))
    members = batches(BINARY)
    members[0] = member(members[0][0].name, type=kind, linkname=str(secret))
    with pytest.raises(datasets.CorruptDataError, match="not a regular file"):
        datasets.cifar10(archive(tmp_path / "a.tar.gz", members), validation=7)


@pytest.mark.parametrize("prefix", ["../", "/tmp/", "other/../"])  # noqa: S108 - nothing is written there
def test_names_that_lead_elsewhere_are_other_names(tmp_path: Path, prefix: str) -> None:
    members = [member(prefix + info.name, data) for info, data in batches(BINARY)]
    with pytest.raises(datasets.CorruptDataError, match="it has no member"):
        datasets.cifar10(archive(tmp_path / "a.tar.gz", members), validation=7)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar.gz"]


def test_a_missing_or_short_member(tmp_path: Path) -> None:
    members = batches(BINARY)
    with pytest.raises(datasets.CorruptDataError, match=r"no member cifar-10-batches-bin/test_batch\.bin"):
        datasets.cifar10(archive(tmp_path / "a.tar.gz", members[:-1]), validation=7)
    members[1] = member(members[1][0].name, b"\0" * 100)
    with pytest.raises(datasets.TruncatedDataError, match=r"data_batch_2\.bin has 100 bytes, expected 36,876"):
        datasets.cifar10(archive(tmp_path / "a.tar.gz", members), validation=7)


@pytest.mark.parametrize("bomb", ["before", "after", "inside", "header", "many"])
def test_an_archive_that_expands_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bomb: str
) -> None:
    monkeypatch.setattr(_cifar10, "SPARE", 100_000)
    zeros, members = bytes(5_000_000), batches(BINARY)
    if bomb == "before":
        members.insert(0, member("zeros", zeros))
    elif bomb == "after":
        members.append(member("zeros", zeros))
    elif bomb == "inside":
        members[0] = member(members[0][0].name, zeros)
    elif bomb == "header":
        members.insert(0, member("long", pax_headers={"comment": "0" * len(zeros)}))
    else:
        members[:0] = [member(f"empty{k}") for k in range(200)]
    path = archive(tmp_path / "a.tar.gz", members)
    assert path.stat().st_size < 1_000_000
    with pytest.raises(datasets.CorruptDataError, match=r"much more|too many|more than 100 members"):
        datasets.cifar10(path, validation=7)


@settings(max_examples=60)
@given(data=st.data())
def test_damaged_archives_raise_data_errors_only(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """The tar inside the gzip is damaged, so that the damage reaches the headers."""
    plain = bytearray(plain_tar())
    for _ in range(data.draw(st.integers(1, 4))):
        header = data.draw(st.sampled_from(range(0, len(plain) - 512, 512)))
        plain[header + data.draw(st.integers(0, 511))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / BINARY.archive
    path.write_bytes(gzip.compress(bytes(plain[: data.draw(st.integers(1, len(plain)))]), 1))
    try:
        loaded = datasets.cifar10(path, validation=0)
    except (datasets.CorruptDataError, datasets.TruncatedDataError, datasets.HTMLDataError):
        return
    assert loaded.train.y.max() <= 9  # the damage was to pixels or labels that remain possible


@functools.cache
def plain_tar() -> bytes:
    """Return an archive of the binary layout, not compressed."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for info, content in batches(BINARY):
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


# Pickles.


def read(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Read one pickled batch of ROWS images."""
    return _pickled.read_batch(io.BytesIO(data), len(data), Path("data_batch_1"), ROWS)


class Call:
    """An object whose pickle calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def hostile(name: str, path: str) -> bytes:
    """Return a pickle that would create the file ``path``, or take much memory or time."""
    command = f"echo > {path}"
    calls: dict[str, Callable[[], bytes]] = {
        "system": lambda: pickle.dumps({"labels": Call(os.system, command)}, 2),
        "system, protocol 0": lambda: pickle.dumps({"labels": Call(os.system, command)}, 0),
        "system, protocol 4": lambda: pickle.dumps({"labels": Call(os.system, command)}, 4),
        "eval": lambda: pickle.dumps({"labels": Call(eval, f"open({path!r}, 'w')")}, 2),
        "open": lambda: pickle.dumps({"labels": Call(open, path, "w")}, 2),
        "attribute": lambda: b"\x80\x02cbuiltins\ngetattr\ncnumpy\nndarray\n" + short(b"tofile") + b"\x86R.",
        "inst": lambda: f"(S'{command}'\nios\nsystem\n.".encode(),
        "obj": lambda: f"(cos\nsystem\nS'{command}'\no.".encode(),
        "newobj": lambda: b"\x80\x02cnumpy\nndarray\n(J\xff\xff\xff\x7ft\x81.",
        "large array": lambda: b"\x80\x02cnumpy\nndarray\n(J\xff\xff\xff\x7fJ\xff\xff\xff\x7ftR.",
        "large reconstruction": lambda: (
            b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
            b"(J\xff\xff\xff\x7ft" + short(b"b") + b"\x87R."),
        "large dtype": lambda: b"\x80\x02cnumpy\ndtype\n" + short(b"V2147483647") + b"\x85R.",
        "state of a dict": lambda: b"\x80\x02}}b.",
        "state of a function": lambda: b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n}b.",
        "memo index": lambda: b"\x80\x02}r\xff\xff\xff\x7f.",
        "bytearray": lambda: b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",
        "long bytes": lambda: b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b".",
        "frame": lambda: b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b".",
        "long string": lambda: b"\x80\x02T\xff\xff\xff\x7f.",
        "negative string": lambda: b"\x80\x02T\xff\xff\xff\xff.",
        "nested key": lambda: b"\x80\x02})" + b"2\x86" * 60 + b"Ns.",
        "nested function": lambda: b"\x80\x02)" + b"2\x86" * 60 + b")R.",
        "many objects": lambda: b"\x80\x02" + b"]" * 150_000 + b".",
        "persistent": lambda: b"Pfile\n.",
        "extension": lambda: b"\x80\x02\x82\x01.",
        "encode": lambda: b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00zip\x86R.",
    }
    return calls[name]()


HOSTILE = [
    "system", "system, protocol 0", "system, protocol 4", "eval", "open", "attribute", "inst", "obj", "newobj",
    "large array", "large reconstruction", "large dtype", "state of a dict", "state of a function", "memo index",
    "bytearray", "long bytes", "frame", "long string", "negative string", "nested key", "nested function",
    "many objects", "persistent", "extension", "encode",
]


def test_the_hostile_pickle_works_on_an_unrestricted_unpickler(tmp_path: Path) -> None:
    target = tmp_path / "touched"
    pickle.loads(hostile("open", str(target)))["labels"].close()  # noqa: S301 - it is our own
    assert target.exists()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_does_nothing(tmp_path: Path, name: str) -> None:
    write(tmp_path, PICKLED)
    target = tmp_path / "touched"
    (tmp_path / "data_batch_1").write_bytes(hostile(name, str(target)))
    with pytest.raises((datasets.CorruptDataError, datasets.TruncatedDataError)):
        datasets.cifar10(tmp_path, validation=7)
    assert not target.exists()


def test_a_function_that_is_refused_is_named() -> None:
    with pytest.raises(datasets.CorruptDataError, match=r"asks for \w+\.system"):
        read(pickle.dumps(Call(os.system, "true"), 2))


@pytest.mark.parametrize(("batch_dict", "message"), [
    ([], "not a dict"),
    ({}, "no 'data'"),
    ({"data": 0}, "no 'labels'"),
    ({"data": 0, "labels": [1] * (ROWS - 1)}, "not a list of 12 integers"),
    ({"data": 0, "labels": [True] * ROWS}, "not a list of 12 integers"),
    ({"data": 0, "labels": [10] * ROWS}, "labels run from 10 to 10, expected 0 to 9"),
    ({"data": 0, "labels": [-1] * ROWS}, "labels run from -1"),
    ({"data": 0, "labels": [0] * ROWS}, "'data' is not an array"),
    ({"data": np.zeros((ROWS, 3072), np.int8), "labels": [0] * ROWS}, "not an array of uint8"),
    ({"data": np.zeros((ROWS, 3071), np.uint8), "labels": [0] * ROWS}, "not an array of shape"),
    ({"data": np.zeros((3072, ROWS), np.uint8).T, "labels": [0] * ROWS}, "not an array of shape"),
    ({"data": np.zeros((ROWS, 3072), "u1").astype(object), "labels": [0] * ROWS}, "CIFAR-10"),
    ({1: 2}, "a key that is no string"),
])
def test_a_pickle_of_something_else(batch_dict: Any, message: str) -> None:
    with pytest.raises(datasets.CorruptDataError, match=message):
        read(pickle.dumps(batch_dict, 2))


def test_a_pickle_whose_array_claims_another_shape() -> None:
    read(pickled(1))
    with pytest.raises(datasets.CorruptDataError, match="not an array of shape"):
        read(pickled(1, shape=(ROWS * 2, 1536)))


def test_a_pickled_batch_that_is_too_long() -> None:
    with pytest.raises(datasets.CorruptDataError, match="too many for a batch"):
        _pickled.read_batch(io.BytesIO(), 10**9, Path("batch"), ROWS)


@settings(max_examples=150)
@given(data=st.data())
def test_damaged_pickles_raise_data_errors_only(data: st.DataObject) -> None:
    damaged = bytearray(pickled(1))
    start = len(damaged) - ROWS * 3072
    places = st.one_of(st.integers(0, start - 1), st.integers(len(damaged) - 4, len(damaged) - 1))
    for _ in range(data.draw(st.integers(1, 5))):
        damaged[data.draw(places)] = data.draw(st.integers(0, 255))
    try:
        x, y = read(bytes(damaged))
    except (datasets.CorruptDataError, datasets.TruncatedDataError):
        return
    assert (x.shape, y.shape) == ((ROWS, 3072), (ROWS,))
    assert 0 <= y.min() <= y.max() <= 9


@settings(max_examples=150)
@given(program=st.lists(st.one_of(
    st.sampled_from([bytes([c]) for c in range(256)]),
    st.sampled_from([b"cnumpy\ndtype\n", b"cnumpy\nndarray\n", b"c_codecs\nencode\n", short(b"data"), b"K\x05"]),
), max_size=60).map(b"".join))
def test_random_pickles_raise_data_errors_only(program: bytes) -> None:
    with pytest.raises((datasets.CorruptDataError, datasets.TruncatedDataError)):
        read(b"\x80\x02" + program + b".")


# The download.


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """Serve a directory on this machine: its URL, the directory, and the paths that were asked for."""
    folder, asked = tmp_path / "served", []
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if self.path == "/broken":
                self.send_response(200)
                self.send_header("Content-Length", "100000")
                self.end_headers()
                self.wfile.write(b"x" * 40_000)
                return
            super().do_GET()

        def log_message(self, *arguments: Any) -> None:
            """Be quiet."""

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}", folder, asked
        running.shutdown()
        thread.join()


def remote(url: str, data: bytes) -> _download._Remote:
    """Describe a file that holds ``data``."""
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return _download._Remote(url, len(data), md5, hashlib.sha256(data).hexdigest())


@needs_pooch
def test_a_download_is_checked_kept_and_not_repeated(
    server: tuple[str, Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder, asked = server
    data = archive(folder / "a.tar.gz", batches(BINARY)).read_bytes()
    monkeypatch.setattr(_download, "_REMOTE", remote(f"{url}/a.tar.gz", data))
    target = tmp_path / "new" / "place"
    path = datasets.download_cifar10(target, progress=False)
    assert path == target / "cifar-10-binary.tar.gz"
    assert path.read_bytes() == data
    assert datasets.download_cifar10(target, progress=False) == path
    assert asked == ["/a.tar.gz"]
    path.write_bytes(data[:100])  # a bad copy is replaced
    assert datasets.download_cifar10(target, progress=False).read_bytes() == data
    assert len(asked) == 2
    assert list(target.iterdir()) == [path]

    check(datasets.cifar10(target, validation=7, download=True), 7)
    assert len(asked) == 2  # there already
    check(datasets.load(download=True, validation=7), 7)  # into the user cache
    assert len(asked) == 3
    assert datasets.load(validation=7).source == str(_layouts.user_cache() / BINARY.archive)


@needs_pooch
@pytest.mark.parametrize(("sent", "error"), [
    (HTML, datasets.HTMLDataError),
    (b"x" * 999, datasets.TruncatedDataError),
    (b"x" * 1001, datasets.CorruptDataError),
    (b"x" * 999 + b"y", datasets.CorruptDataError),
])
def test_a_wrong_download_is_removed(
    server: tuple[str, Path, list[str]], tmp_path: Path, sent: bytes, error: type[ValueError],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, folder, _ = server
    (folder / "a").write_bytes(sent)
    monkeypatch.setattr(_download, "_REMOTE", remote(f"{url}/a", b"x" * 1000))
    with pytest.raises(error) as caught:
        datasets.download_cifar10(tmp_path / "d", progress=False)
    assert list((tmp_path / "d").iterdir()) == []
    assert _errors.URL in str(caught.value)


@needs_pooch
@pytest.mark.parametrize("digest", ["md5", "sha256"])
def test_both_digests_count(
    server: tuple[str, Path, list[str]], tmp_path: Path, digest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder, _ = server
    (folder / "a").write_bytes(b"data")
    right = remote(f"{url}/a", b"data")
    wrong = _download._Remote(**{**vars(right), digest: "0" * 32})
    monkeypatch.setattr(_download, "_REMOTE", wrong)
    with pytest.raises(datasets.CorruptDataError, match=f"its {digest} is"):
        datasets.download_cifar10(tmp_path / "d", progress=False)


@needs_pooch
def test_an_interrupted_download(
    server: tuple[str, Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = remote(f"{server[0]}/broken", b"x" * 100_000)
    monkeypatch.setattr(_download, "_REMOTE", described)
    with pytest.raises(datasets.TruncatedDataError) as caught:
        datasets.download_cifar10(tmp_path / "d", progress=False)
    assert 0 < caught.value.have <= 40_000 < caught.value.expected == 100_000
    assert list((tmp_path / "d").iterdir()) == []


@needs_pooch
@pytest.mark.parametrize("url", ["{}/nothing", "http://127.0.0.1:1/closed"])
def test_a_server_that_refuses_or_is_not_there(
    server: tuple[str, Path, list[str]], tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_download, "_REMOTE", remote(url.format(server[0]), b"x"))
    with pytest.raises(ConnectionError, match="Without a network here"):
        datasets.download_cifar10(tmp_path / "d", progress=False)
    assert list((tmp_path / "d").iterdir()) == []


def test_a_download_without_pooch_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r"pip install 'xpnet\[data\]'"):
        datasets.download_cifar10(tmp_path)


def test_the_official_archive_is_described() -> None:
    assert _download._REMOTE.size == BINARY.archive_size == 170_052_171
    assert (len(_download._REMOTE.md5), len(_download._REMOTE.sha256)) == (32, 64)
    assert _cifar10.__dict__["PIXELS"] + 1 == RECORD


# What a user names.


def test_load_without_data_is_synthetic_and_says_so() -> None:
    data = datasets.load(train=30, validation=10, test=20)
    assert data.name == "synthetic"
    assert [len(split.y) for split in (data.train, data.validation, data.test)] == [30, 10, 20]
    assert datasets.load("synthetic", train=3, validation=0, test=0, seed=4).source == "generated, seed 4"


def test_load_takes_cifar10_where_it_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(datasets.DataNotFoundError):
        datasets.load("cifar10", validation=7)
    monkeypatch.setenv("XPNET_DATA", str(write(tmp_path / "d", BINARY)))
    for named in (None, "cifar10", tmp_path / "d", str(tmp_path / "d")):
        check(datasets.load(named, validation=7), 7)
    assert datasets.load("synthetic", train=3, validation=0, test=0).name == "synthetic"


def test_load_takes_the_first_images_of_cifar10(tmp_path: Path) -> None:
    folder = write(tmp_path, BINARY)
    data = datasets.load(folder, train=20, validation=7, test=3)
    np.testing.assert_array_equal(data.train.y, np.concatenate([batch(0)[1], batch(1)[1]])[:20])
    np.testing.assert_array_equal(data.validation.y, batch(4)[1][-7:])
    np.testing.assert_array_equal(data.test.x, batch(5)[0][:3])
    for wrong in ({"train": 5 * ROWS - 6}, {"test": ROWS + 1}, {"train": -1}):
        with pytest.raises(ValueError, match="images of CIFAR-10"):
            datasets.load(folder, validation=7, **wrong)  # type: ignore[arg-type]


def test_load_does_not_pass_over_damaged_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (write(tmp_path, BINARY) / "data_batch_3.bin").write_bytes(b"")
    monkeypatch.setenv("XPNET_DATA", str(tmp_path))
    with pytest.raises(datasets.TruncatedDataError):
        datasets.load(validation=7)


def test_importing_data_sets_imports_no_pooch() -> None:
    script = "import sys, xpnet.datasets; sys.exit('pooch' in sys.modules or 'requests' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    assert subprocess.run([sys.executable, "-c", script], env=environment, check=False).returncode == 0


def test_a_named_place_without_data_is_an_error_not_the_synthetic_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XPNET_DATA", str(tmp_path / "nothing"))
    with pytest.raises(datasets.DataNotFoundError, match="nothing"):
        datasets.load(train=10, validation=2, test=2)
    monkeypatch.delenv("XPNET_DATA")
    assert datasets.load(train=10, validation=2, test=2).name == "synthetic"
