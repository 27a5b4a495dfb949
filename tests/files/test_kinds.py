"""Files are recognised by their first bytes, and every loader names what it got and what reads it."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save as save_safetensors

from xpnet import Network, datasets, mlp
from xpnet.cli import main
from xpnet.datasets import tables
from xpnet.files.kinds import UNKNOWN, describe, kind_of, start_of
from xpnet.nn.formats.safetensors import CheckpointError

pytestmark = pytest.mark.backends("numpy")


def zipped(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, b"content")
    return stream.getvalue()


def saved(save: Callable[..., Any], *arguments: Any, **arrays: Any) -> bytes:
    stream = io.BytesIO()
    save(stream, *arguments, **arrays)
    return stream.getvalue()


def tarred(name: str, compression: str = "") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=f"w:{compression}") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    return stream.getvalue()


NPY = saved(np.save, np.eye(3))
#: Files as programs write them, and the words that name each.
FILES: dict[str, tuple[bytes, str]] = {
    "npy": (NPY, "an npy file"), "npz": (saved(np.savez, x=np.eye(3)), "an npz archive"),
    "compressed npz": (saved(np.savez_compressed, W1=np.eye(3)), "an npz archive"),
    "safetensors": (save_safetensors({"weight": np.eye(3)}), "a safetensors file"),
    "pickle 0": (pickle.dumps({"a": [1]}, 0), "a pickle"), "pickle 2": (pickle.dumps(np.eye(3), 2), "a pickle"),
    "pickle 5": (pickle.dumps(np.eye(3), 5), "a pickle"), "pickled object": (pickle.dumps(Path("a"), 0), "a pickle"),
    "torch": (zipped("archive/data.pkl", "archive/data/0"), "a checkpoint of torch"),
    "Keras": (zipped("metadata.json", "config.json"), "a Keras model"),
    "Excel": (zipped("[Content_Types].xml", "xl/workbook.xml"), "an Office document"),
    "zip": (zipped("readme.txt"), "a zip archive"), "empty zip": (zipped(), "a zip archive"),
    "gzip": (gzip.compress(NPY), "gzip-compressed"), "bzip2": (bz2.compress(NPY), "bzip2-compressed"),
    "xz": (lzma.compress(NPY), "xz-compressed"), "tar": (tarred("a"), "a tar archive"),
    "tar.gz": (tarred("a", "gz"), "gzip-compressed"), "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(88), "an HDF5 file"),
    "MATLAB": (b"MATLAB 5.0 MAT-file, Platform: GLNXA64".ljust(128), "a MATLAB file"),
    "PNG": (b"\x89PNG\r\n\x1a\n" + bytes(40), "a PNG image"), "JPEG": (b"\xff\xd8\xff\xe0" + bytes(40), "a JPEG image"),
    "Parquet": (b"PAR1" + bytes(40), "a Parquet table"), "Feather": (b"ARROW1\0\0" + bytes(40), "an Arrow"),
    "SQLite": (b"SQLite format 3\0" + bytes(40), "an SQLite database"), "PDF": (b"%PDF-1.7\n", "a PDF document"),
    "ONNX": (b"\x08\x08\x12\x05xpnet:\x10", "an ONNX model"),
    "HTML": (b"\n<!DOCTYPE html><html></html>", "a web page"),
    "HTML, Latin-1": (b"<html><title>Gel\xf6scht</title></html>", "a web page"), "JSON": (b'{"a": 1}', "JSON text"),
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a Git LFS pointer"),
    "UTF-16": ("a,b\n1,2\n".encode("utf-16"), "text in UTF-16"), "empty": (b"", "an empty file"),
    "unknown": (bytes([7, 0, 255]) * 200, UNKNOWN),
}
TEXTS = {"CSV": (b"a,b\n1,2\n", '"a,b\\n1,2\\n"'), "word": (b"hello", '"hello"'),
         "cut in a character": (("é" * 3000).encode()[:4095], '"' + "\\u00e9" * 10 + '"')}


@pytest.mark.parametrize("name", FILES)
def test_files_of_programs_are_recognised(name: str, tmp_path: Path) -> None:
    content, words = FILES[name]
    (tmp_path / "x").write_bytes(content)
    assert kind_of(start_of(tmp_path / "x")).name.startswith(words)
    assert describe(tmp_path / "x").startswith(words)


@pytest.mark.parametrize("name", TEXTS)
def test_text_is_quoted(name: str) -> None:
    content, quoted = TEXTS[name]
    assert describe(content).startswith(f"text that begins with {quoted}")


#: Each loader, with the files that it reads, and those that it looks further into before it refuses them.
LOADERS: dict[str, tuple[Callable[[Path], Any], set[str], set[str]]] = {
    "Network.load": (Network.load, set(), {"safetensors"}),
    "Network.from_npz": (lambda path: Network.from_npz(path, mlp(3, [], 3)), set(), {"npz", "compressed npz"}),
    "tables.read": (tables.read, {"npy", "npz", "compressed npz"}, {"PNG"}),
    "datasets.load": (datasets.load, set(), {"npz", "compressed npz", "gzip", "tar.gz", "HTML", "HTML, Latin-1"}),
    "cifar10": (datasets.cifar10, set(), {"gzip", "tar.gz", "HTML", "HTML, Latin-1"}),
}


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("name", FILES)
def test_loaders_name_what_they_got(loader: str, name: str, tmp_path: Path) -> None:
    content, words = FILES[name]
    load, reads, opened = LOADERS[loader]
    path = tmp_path / "file"
    path.write_bytes(content)
    if name in reads:
        load(path)
        return
    with pytest.raises(ValueError, match=re.escape(str(path))) as raised:
        load(path)
    message = str(raised.value)
    assert name in opened or words in message
    assert "allow_pickle" not in message
    assert len(message) < 700


@pytest.mark.parametrize("name", FILES)
def test_commands_refuse_in_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "file"
    path.write_bytes(FILES[name][0])
    Network(mlp(3, [], 3), {"W1": np.eye(3), "b1": np.zeros(3)}).save(tmp_path / "network")
    for command in (["predict", path, path], ["predict", tmp_path / "network", path], ["train", "--data", path],
                    ["train", "--config", path], ["data", "--data", path]):
        code = main([str(word) for word in command])
        printed = capsys.readouterr()
        if code == 0:
            assert name in LOADERS["tables.read"][1] if "predict" in command else (command[1], name) == (
                "--config", "empty"), printed.out
        else:
            assert code == 2
            assert (printed.err + printed.out).count("\n") == 1


@pytest.mark.parametrize("name", ["found", "HTML", "MATLAB", "other"])
def test_data_says_found_of_cifar10_only(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes({"found": tarred("cifar-10-batches-bin", "gz"), "HTML": FILES["HTML"][0],
                      "MATLAB": tarred("cifar-10-batches-mat/data_batch_1.mat", "gz"),
                      "other": tarred("mnist/a", "gz")}[name])
    code = main(["data", "--data", str(path)])
    line = capsys.readouterr().out
    assert (code == 0) == line.startswith("found") == (name == "found")
    words = {"HTML": "got a web page (HTML)", "MATLAB": "the MATLAB version of CIFAR-10: fetch the binary version",
             "other": "one that begins with mnist/a"}
    assert words.get(name, "archive") in line


def test_the_matlab_version_is_named(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-matlab.tar.gz").write_bytes(tarred("cifar-10-batches-mat/data_batch_1.mat", "gz"))
    with pytest.raises(datasets.CorruptDataError, match="the MATLAB version of CIFAR-10: fetch the binary version"):
        datasets.cifar10(tmp_path / "cifar-10-matlab.tar.gz")
    (tmp_path / "cifar-10-batches-mat").mkdir()
    (tmp_path / "cifar-10-batches-mat" / "test_batch.mat").write_bytes(FILES["MATLAB"][0])
    for place in (tmp_path, tmp_path / "cifar-10-batches-mat"):
        with pytest.raises(datasets.DataNotFoundError, match="but its MATLAB version: fetch the binary version"):
            datasets.cifar10(place)


@pytest.mark.parametrize("name", ["PNG", "npy", "npz", "gzip", "safetensors"])
@pytest.mark.parametrize("layout", ["binary", "pickled"])
def test_batches_that_are_something_else(layout: str, name: str, tmp_path: Path) -> None:
    for k in range(1, 7):
        batch = f"data_batch_{k}" if k < 6 else "test_batch"
        (tmp_path / (f"{batch}.bin" if layout == "binary" else batch)).write_bytes(FILES[name][0])
    with pytest.raises(datasets.CorruptDataError, match=rf"data_batch_1.*{FILES[name][1]}"):
        datasets.cifar10(tmp_path)
    [row] = datasets.search_places(tmp_path)
    assert not row["found"]
    assert FILES[name][1] in row["detail"]


def test_other_safetensors_and_objects_get_advice(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(FILES["safetensors"][0])
    with pytest.raises(CheckpointError, match=r"Network.from_torch\(layers, safetensors.numpy.load_file\(path\)\) "):
        Network.load(tmp_path / "a")
    np.savez(tmp_path / "a.npz", W1=np.array([{}]), b1=np.zeros(3))
    with pytest.raises(CheckpointError, match="holds Python objects, and nothing is unpickled"):
        Network.from_npz(tmp_path / "a.npz", mlp(3, [], 3))
