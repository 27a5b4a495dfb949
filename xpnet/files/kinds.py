"""What a file is, by its first bytes: names and endings are often wrong, and a loader's own error says little."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import NamedTuple

__all__ = ["EMPTY", "GZIP", "HTML", "NPY", "NPZ", "PICKLE", "PNG", "SAFETENSORS", "START", "TEXT", "UNKNOWN", "Kind",
           "describe", "kind_of", "start_of"]

START = 4096  # bytes that tell what a file is
UNKNOWN = "unknown data"


class Kind(NamedTuple):
    """What a file is.

    Parameters
    ----------
    name : str
        Such as ``"an npz archive"``.
    advice : str
        Which call reads it, or how it becomes a file that xpnet reads.
    """

    name: str
    advice: str


_SAVE = "save its arrays with numpy.savez in the program that wrote it"
NPY = Kind("an npy file", "numpy.load and xpnet predict read it")
NPZ = Kind("an npz archive of NumPy arrays",
           "Network.from_npz reads a network from it, datasets.load and xpnet predict features")
SAFETENSORS = Kind("a safetensors file", "Network.load reads one that Network.save wrote; "
                   "safetensors.numpy.load_file and Network.from_torch read another")
PNG = Kind("a PNG image", "xpnet predict reads it")
TEXT = Kind("text", "xpnet predict reads lines of numbers separated by commas")
GZIP = Kind("gzip-compressed data", "decompress it with gunzip, or tar -xzf for a .tar.gz archive")
HTML = Kind("a web page (HTML)", "fetch the file again: a server sent this in its place")
EMPTY = Kind("an empty file", "copy or write it again")
PICKLE = Kind("a pickle", f"nothing is unpickled, since that can run any code: {_SAVE}")
_TORCH = Kind("a checkpoint of torch", "torch.load(path, weights_only=True) and Network.from_torch read it")
_ZIP = Kind("a zip archive", "unpack it with unzip")
_HDF5 = Kind("an HDF5 file", "read its arrays with h5py.File, and pass them on as NumPy arrays")
_MATLAB = Kind("a MATLAB file", "scipy.io.loadmat reads it; pass its arrays on as NumPy arrays")
_PARQUET = Kind("a Parquet table", "pandas.read_parquet reads it; write its numbers with to_csv(index=False)")
_ARROW = Kind("an Arrow (Feather) table", "pandas.read_feather reads it; write its numbers with to_csv(index=False)")
_IMAGE = "save the image as PNG"
_UNPACK = "decompress it first"

_STARTS = (
    (b"\x93NUMPY", NPY), (b"\x89PNG\r\n\x1a\n", PNG), (b"\x1f\x8b", GZIP), (b"\x89HDF\r\n\x1a\n", _HDF5),
    (b"MATLAB 7.3", _HDF5), (b"MATLAB", _MATLAB), (b"PAR1", _PARQUET), (b"ARROW1", _ARROW), (b"FEA1", _ARROW),
    (b"CDF\x01", Kind("a NetCDF file", "scipy.io.netcdf_file reads it; pass its arrays on as NumPy arrays")),
    (b"CDF\x02", Kind("a NetCDF file", "scipy.io.netcdf_file reads it; pass its arrays on as NumPy arrays")),
    (b"\xff\xd8\xff", Kind("a JPEG image", _IMAGE)), (b"GIF8", Kind("a GIF image", _IMAGE)),
    (b"II*\0", Kind("a TIFF image", _IMAGE)), (b"MM\0*", Kind("a TIFF image", _IMAGE)),
    (b"BZh", Kind("bzip2-compressed data", _UNPACK)), (b"\xfd7zXZ\0", Kind("xz-compressed data", _UNPACK)),
    (b"\x28\xb5\x2f\xfd", Kind("zstd-compressed data", _UNPACK)),
    (b"7z\xbc\xaf\x27\x1c", Kind("a 7z archive", _UNPACK)),
    (b"Rar!", Kind("a RAR archive", _UNPACK)), (b"%PDF", Kind("a PDF document", _SAVE)),
    (b"SQLite format 3\0", Kind("an SQLite database", "pandas.read_sql reads it; write its numbers with to_csv")),
    (b"GGUF", Kind("a GGUF model", _SAVE)), (b"\x7fELF", Kind("a program (ELF)", "name the data instead")),
    (b"version https://git-lfs", Kind("a Git LFS pointer, not the file itself", "fetch the file with git lfs pull")),
    (b"\xff\xfe", Kind("text in UTF-16", "save it in UTF-8")),
    (b"\xfe\xff", Kind("text in UTF-16", "save it in UTF-8")),
)
#: Of the first entry of a zip archive.
_ENTRIES = (
    (r".*\.npy", NPZ), (r"(.*/)?data\.pkl|.*/\.(format_version|data/.*|storage_alignment)|.*/byteorder", _TORCH),
    (r"metadata\.json|config\.json|model\.weights\.h5", Kind(
        "a Keras model", "its get_weights() are NumPy arrays: pass them on with Network(architecture, arrays)")),
    (r"\[Content_Types\]\.xml|_rels/.*|xl/.*|docProps/.*", Kind(
        "an Office document", "save a table as CSV in UTF-8")),
)


def start_of(path: str | os.PathLike[str]) -> bytes:
    """Return the first bytes of a plain file."""
    with open(path, "rb") as file:
        return file.read(START)


def kind_of(start: bytes) -> Kind:
    """Return what a file is, by its first bytes.

    Parameters
    ----------
    start : bytes
        At least the first 512 bytes of the file, if it has as many.

    Returns
    -------
    Kind
        If it is nothing known, its name is ``"unknown data"`` with the first bytes.
    """
    if not start:
        return EMPTY
    for magic, kind in _STARTS:
        if start.startswith(magic):
            return kind
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        entry = start[30 : 30 + int.from_bytes(start[26:28], "little")].decode("utf-8", "replace")
        return next((kind for pattern, kind in _ENTRIES if re.fullmatch(pattern, entry)), _ZIP)
    if start[257:262] == b"ustar":
        return Kind("a tar archive", "unpack it with tar -xf")
    if start[:4] == b"RIFF":
        return Kind("a WebP image" if start[8:12] == b"WEBP" else "a RIFF file", _IMAGE)
    if start[8:9] == b"{" and 2 <= int.from_bytes(start[:8], "little") < 2**27:
        return SAFETENSORS
    if re.match(rb"\x80[\x02-\x05]|[(]?[dl]p[0-9]+\n|\(dp|\(lp|c[A-Za-z_.]+\n[A-Za-z_.]+\n", start):
        return PICKLE
    if re.match(rb"\x08[\x01-\x20][\x12\x1a\x22\x3a\x42]", start):
        return Kind("an ONNX model", "onnx.load and onnxruntime read it; xpnet does not")
    return _text(start)


def _text(start: bytes) -> Kind:
    # Before it is decoded: a page may be in any encoding.
    if re.match(rb"(\xef\xbb\xbf)?\s*<(!doctype|html|head|body|\?xml|!--)", start, re.IGNORECASE):
        return HTML
    try:
        text = start.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The last character may be cut.
        text = start[: error.start].decode("utf-8-sig") if len(start) - error.start < 4 <= error.start else ""
    if not text or re.search(r"[\x00-\x08\x0e-\x1f]", text):
        return Kind(f"{UNKNOWN} that begins with {start[:8].hex(' ')}", _SAVE)
    if re.match(r'\s*[{\[]\s*["{\[\]}]', text):
        return Kind("JSON text", "read it with json.load, and pass its numbers on as NumPy arrays")
    return TEXT


def describe(source: bytes | str | Path) -> str:
    """Return what a file is and what reads it, for an error message.

    Parameters
    ----------
    source : bytes or path
        The first bytes of the file, or its path.

    Returns
    -------
    str
        Such as ``"a gzip archive: decompress it first"``.
    """
    start = source if isinstance(source, bytes) else start_of(source)
    kind = kind_of(start)
    quoted = f" that begins with {json.dumps(start[:20].decode('utf-8', 'replace'))}" if kind is TEXT else ""
    return f"{kind.name}{quoted} ({kind.advice})"
