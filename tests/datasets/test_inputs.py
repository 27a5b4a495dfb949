"""Features from files: each kind as it is written, and everything that is no features refused."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imsave

from xpnet.datasets import inputs, tables
from xpnet.datasets.inputs import InputError

pytestmark = pytest.mark.backends("numpy")


def npy(array: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), **options)
    return stream.getvalue()


def npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def png(image: Any) -> bytes:
    stream = io.BytesIO()
    imsave(stream, image, format="png")
    return stream.getvalue()


GRID = np.arange(6).reshape(2, 3)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", ">i4", "float16", "float32", "<f8", ">f8"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_npy_file_is_what_was_saved(dtype: str, version: tuple[int, int], order: Any) -> None:
    array = GRID.astype(dtype, order=order)
    found = inputs.npy(npy(array, version=version))
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype.newbyteorder("=")
    assert found.dtype.isnative


def test_one_example_is_a_row() -> None:
    assert inputs.npy(npy([1.0, 2.0])).shape == (1, 2)


def test_an_npz_file_gives_its_array_or_the_named_one() -> None:
    np.testing.assert_array_equal(inputs.npz(npz(x=GRID)), GRID)
    np.testing.assert_array_equal(inputs.npz(npz(x=GRID, y=[1, 2]), "x"), GRID)
    with pytest.raises(InputError, match="expected one array among x, y: choose with --key NAME"):
        inputs.npz(npz(x=GRID, y=[1, 2]))
    with pytest.raises(InputError, match="no array 'z' among x, y"):
        inputs.npz(npz(x=GRID, y=[1, 2]), "z")


@pytest.mark.parametrize("text", [
    "1,2.5\n3,-4e-1\n", "a,b\n1,2.5\n3,-4e-1", "\ufeffa,b\r\n1,2.5\r\n\r\n3,-4e-1\r\n", " 1 , 2.5 \n 3 , -4e-1 \n",
], ids=["plain", "names", "of a spreadsheet", "spaces"])
def test_lines_of_numbers(text: str) -> None:
    np.testing.assert_array_equal(inputs.csv(text.encode())[0], [[1.0, 2.5], [3.0, -0.4]])


@given(st.lists(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=3, max_size=3), min_size=1))
def test_any_numbers_come_back_exactly(rows: list[list[float]]) -> None:
    text = "\n".join(",".join(map(repr, row)) for row in rows)
    np.testing.assert_array_equal(inputs.csv(text.encode())[0], rows)


def test_an_image_is_its_planes() -> None:
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    found = inputs.png(png(image))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, image.transpose(2, 0, 1).reshape(1, -1))
    np.testing.assert_array_equal(inputs.png(png(np.dstack([image, np.full((4, 5), 255, np.uint8)]))), found)


def test_a_grey_image_is_one_plane() -> None:
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 2, 2, 8, 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\x01\x02\0\x03\xff"))
    np.testing.assert_array_equal(inputs.png(content + chunk(b"IEND", b"")), [[1, 2, 3, 255]])


class Trap:
    """Leaves a trace where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("it was unpickled",)


def zipped(content: bytes, name: str = "x.npy") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return stream.getvalue()


OBJECTS = npy(np.asarray([Trap(), Trap()], object), allow_pickle=True)
WHOLE = npy(GRID)
BAD: list[tuple[str, bytes, str]] = [
    ("npy", b"", "not an npy file"), ("npy", b"x" * 100, "not an npy file"),
    ("npy", pickle.dumps(Trap()), "not an npy file"), ("npy", WHOLE[:20], "not an npy file"),
    ("npy", WHOLE[:-1], "cut or damaged"), ("npy", WHOLE + b"x", "cut or damaged"),
    ("npy", OBJECTS, "got dtype object; nothing is unpickled"), ("npy", npy([1j]), "expected real numbers, got dtype"),
    ("npy", npy(["a"]), "expected real numbers"), ("npy", npy(np.zeros(2, "i4,f8")), "expected real numbers"),
    ("npy", npy(np.zeros((2, 3, 4, 4))), r"expected shape \(n, features\), got \(2, 3, 4, 4\): for images"),
    ("npy", npy(np.zeros((0, 3))), r"expected at least one example, got shape \(0, 3\)"),
    ("npy", npy(1.0), r"expected shape \(n, features\), got \(\)"),
    ("npy", npy([[1.0, np.nan]]), r"row 0, column 1 \(from 0\) is nan: expected finite"),
    ("npy", WHOLE.replace(b"(2, 3)", b"(9, 9)"), "cut or damaged"),
    ("npy", WHOLE.replace(b"(2, 3)", b"(-2,-3)"), "cut or damaged"),
    ("npy", WHOLE.replace(b"(2, 3), }    ", b"(2, 10**9), }"), "not an npy file"),
    ("npy", WHOLE.replace(b"(2, 3), }" + b" " * 12, b"(9999999999999999),}"), "."),
    ("npz", b"", "not an npz file"), ("npz", b"PK\x03\x04", "not an npz file"),
    ("npz", npz(x=GRID)[:-30], "not an npz file"), ("npz", npz(), "expected one array among none"),
    ("npz", zipped(OBJECTS), "nothing is unpickled"), ("npz", zipped(b"x" * 100), "not an npy file"),
    ("npz", zipped(WHOLE, "../x.txt"), "expected one array among none"),
    ("csv", b"", "not lines of numbers"), ("csv", b"a,b\n", "not lines of numbers"),
    ("csv", b"1,2\n3\n", "not lines of numbers"), ("csv", b"1,2\n3,x\n", "not lines of numbers"),
    ("csv", b"1,,2\n1,3,2\n1,,2", "not lines of numbers"), ("csv", b"\xff\xfe", "not lines of numbers"),
    ("csv", b"1,nan\n", "row 0, column 1"), ("csv", b"1e999\n", "is inf: expected finite numbers"),
    ("csv", b"\x00\x01", "not lines of numbers"), ("csv", b"1;2\n3;4\n1;2\n", "not lines of numbers"),
    ("png", b"", "not a PNG image"), ("png", b"GIF89a" + bytes(40), "not a PNG image"),
    ("png", png(np.zeros((4, 4, 3)))[:60], "a damaged PNG image"),
    ("png", png(np.zeros((4, 4, 4))), "has transparent pixels"),
    ("png", png(np.zeros((4, 4, 3))).replace(b"\0\0\0\4\0\0\0\4", b"\x7f\xff\xff\xff" * 2), "16,777,216 pixels"),
]


@pytest.mark.parametrize(("kind", "content", "words"), BAD, ids=[f"{kind} {i}" for i, (kind, _, _) in enumerate(BAD)])
def test_what_is_no_features_is_refused(kind: str, content: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        getattr(inputs, kind)(content)
    (tmp_path / f"x.{kind}").write_bytes(content)
    with pytest.raises(InputError, match=rf"x\.{kind}: "):
        tables.read(tmp_path / f"x.{kind}")


def test_files_by_their_first_bytes(tmp_path: Path) -> None:
    lines = b"0.0,1,2\n3,4,5"
    for name, content in (("a.npy", WHOLE), ("a.npz", npz(x=GRID)), ("a.csv", lines), ("A.TXT", lines),
                          ("b.csv", WHOLE), ("b.npy", npz(x=GRID)), ("b.png", lines), ("b", WHOLE)):
        (tmp_path / name).write_bytes(content)
        np.testing.assert_array_equal(tables.read(tmp_path / name), GRID)
    with pytest.raises(InputError, match="not an npz file"):
        inputs.npz(WHOLE)
    with pytest.raises(FileNotFoundError, match=r"no file .*: expected features as"):
        tables.read(tmp_path / "none.npy")


def test_more_than_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = npz(x=np.zeros((100, 100)))
    monkeypatch.setattr(inputs.Device, "free_memory", lambda self: 4 * 1000)
    with pytest.raises(InputError, match=r"x has 80,128 bytes, more than a quarter of the free memory"):
        inputs.npz(content)
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(InputError, match="more than the 1,000 that are read"):
        tables.read(tmp_path / "x.npz")
    (tmp_path / "x.csv").write_bytes(b"1\n" * 32)
    with pytest.raises(InputError, match="has 64 bytes, more than the 62 that are read"):
        tables.read(tmp_path / "x.csv")


def test_what_is_packed_is_read_back() -> None:
    np.testing.assert_array_equal(inputs.npy(inputs.as_npy([GRID, GRID[:1]])), [*GRID, GRID[0]])
