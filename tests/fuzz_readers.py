"""Every reader of files, fed with inputs that were changed at random.

For tests (``test_fuzz.py``), for docs/robustness.md, and for atheris (``fuzz_atheris.py``). Alone:
``python tests/fuzz_readers.py READER COUNT SEED`` reads so many inputs under limits of memory and time, and prints
what came of it as JSON; an input that broke something is kept in the corpus.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gzip
import hashlib
import io
import json
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from runners import fit, make, stopped

from xpnet import datasets
from xpnet.checkpoint import CheckpointError, load_network
from xpnet.cli import _parser
from xpnet.cli_train import read_config
from xpnet.convert import load_npz
from xpnet.datasets import _cifar10, _pickled
from xpnet.locks import LockedError, RunLock
from xpnet.snapshot import ResumeError
from xpnet.store import DamagedBlockWarning, Store

CORPUS = Path(__file__).parent / "corpus"
ROWS = 2  # images in a batch, so that inputs are small
SECONDS = 20  # of processor time for one input, at most
GIBIBYTES = 2.0  # above what the process has when it begins

Edit = tuple[int, int, bytes]


@contextlib.contextmanager
def small_batches() -> Iterator[None]:
    """Have CIFAR-10 in batches of ``ROWS`` images."""
    before, _cifar10.ROWS = _cifar10.ROWS, ROWS
    try:
        yield
    finally:
        _cifar10.ROWS = before


BAD_DATA = (datasets.CorruptDataError, datasets.TruncatedDataError, datasets.HTMLDataError, datasets.DataNotFoundError)


def network(data: bytes, folder: Path) -> None:
    """Read a network."""
    (folder / "network").write_bytes(data)
    load_network(folder / "network")


def npz(data: bytes, folder: Path) -> None:
    """Read a network from an npz file."""
    (folder / "network.npz").write_bytes(data)
    load_npz(folder / "network.npz")


def joined(mode: int, arrays: bytes, state: bytes, manifest: bytes) -> bytes:
    """Put a checkpoint's files into one input; with ``mode`` 1 the manifest is made anew, so that it fits."""
    return bytes([mode]) + b"".join(len(p).to_bytes(4, "little") + p for p in (arrays, state)) + manifest


def checkpoint(data: bytes, folder: Path) -> None:
    """Go on with a run."""
    parts, left = [], data[1:]
    for _ in range(2):
        size = int.from_bytes(left[:4], "little")
        parts.append(left[4 : 4 + size])
        left = left[4 + size :]
    names = ("arrays.safetensors", "state.json")
    if data[:1] == b"\1":
        told = {name: {"bytes": len(part), "sha256": hashlib.sha256(part).hexdigest()}
                for name, part in zip(names, parts, strict=True)}
        left = json.dumps({"format": "xpnet manifest 1", "files": told}).encode()
    at = folder / "run" / "checkpoints" / "step-00000007"
    at.mkdir(parents=True, exist_ok=True)
    for name, part in zip((*names, "manifest.json"), (*parts, left), strict=True):
        (at / name).write_bytes(part)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = make(seed=[1, 2])
        trainer.resume(folder / "run")
        fit(trainer, 0)


@functools.cache
def _train_parser() -> argparse.ArgumentParser:
    found: argparse.ArgumentParser = _parser().parse_args(["train"]).parser
    return found


def config(data: bytes, folder: Path) -> None:
    """Read a run's configuration."""
    (folder / "config.json").write_bytes(data)
    read_config(folder / "config.json", _train_parser())


def lock(data: bytes, folder: Path) -> None:
    """Take a lock."""
    (folder / "lock").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with RunLock(folder):
            pass


def pickled(data: bytes, folder: Path) -> None:
    """Read a pickled batch."""
    _pickled.read_batch(io.BytesIO(data), len(data), Path("batch"), ROWS)


def binary(data: bytes, folder: Path) -> None:
    """Read CIFAR-10 in the binary layout, one batch of which is the input."""
    for name in _cifar10.LAYOUTS[0].batches:
        if not (folder / name).exists() or name == "data_batch_3.bin":
            (folder / name).write_bytes(data if name == "data_batch_3.bin" else bytes(ROWS * 3073))
    with small_batches():
        datasets.cifar10(folder, validation=0)


def archive(data: bytes, folder: Path) -> None:
    """Read CIFAR-10 from an archive; after a first byte of 1, from the tar in it."""
    path = folder / _cifar10.LAYOUTS[data[:1] in (b"\2", b"\3")].archive
    path.write_bytes(gzip.compress(data[1:], 1) if data[:1] in (b"\1", b"\3") else data[1:])
    with small_batches():
        datasets.cifar10(path, validation=0)


def block(data: bytes, folder: Path) -> None:
    """Read a finished block of a sweep."""
    shutil.rmtree(folder / "sweep", ignore_errors=True)
    kept = Store(folder / "sweep", {"a": 1}, 2)
    (folder / "sweep" / "blocks").mkdir()
    (folder / "sweep" / "blocks" / "000000007-0.safetensors").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DamagedBlockWarning)
        list(kept.load(7))


class Reader(NamedTuple):
    """A reader, and how it may refuse an input."""

    read: Callable[[bytes, Path], None]
    refusals: tuple[type[Exception], ...]


READERS = {
    "network": Reader(network, (CheckpointError,)), "npz": Reader(npz, (CheckpointError,)),
    "checkpoint": Reader(checkpoint, (CheckpointError, ResumeError)), "config": Reader(config, (CheckpointError,)),
    "lock": Reader(lock, (LockedError,)), "pickled": Reader(pickled, BAD_DATA), "binary": Reader(binary, BAD_DATA),
    "archive": Reader(archive, BAD_DATA), "block": Reader(block, (DamagedBlockWarning,)),
}


def read(name: str, data: bytes, folder: Path) -> bool:
    """Read an input: True if it was taken, False if it was refused; anything else comes up."""
    try:
        READERS[name].read(data, folder)
    except READERS[name].refusals:
        return False
    return True


# Changed inputs -------------------------------------------------------------------------------------------------------

WORDS = (
    b"[", b"]", b"{", b"}", b'"', b",", b":", b"null", b"true", b"NaN", b"1e999", b"-1", b"0", b"[[[[[[[[", b"\xff\xfe",
    b"../", b"/etc/passwd", b'"shape":[', b'"dtype":"F64"', b"1099511627776", b"9" * 400, b"--help", b"--out",
    b"cos\nsystem\n", b"(S'id'\n", b"R.", b"\x80\x02", b"}r\xff\xff\xff\x7f", b"numpy", b"ustar", b"PK\x03\x04",
    b"\x1f\x8b", b"<html>", b"\0" * 64, b"0000000", b"77777777777",
)
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)


def changed(data: bytes, edits: list[Edit]) -> bytes:
    """Apply edits: a kind, a place, and bytes."""
    for kind, place, word in edits:
        at = place % (len(data) + 1)
        if kind == 0:  # one bit
            data = data[:at] + bytes(b ^ (1 << (len(word) % 8)) for b in data[at : at + 1]) + data[at + 1 :]
        elif kind == 1:  # over what is there
            data = data[:at] + word + data[at + len(word) :]
        elif kind == 2:  # between
            data = data[:at] + word + data[at:]
        elif kind == 3:  # out
            data = data[:at] + data[at + 1 + len(word) ** 2 :]
        elif kind == 4:  # twice
            data = data[: at + 8 * len(word)] + data[at:]
        else:  # the end
            data = data[:at]
    return data


def draw(chance: random.Random) -> list[Edit]:
    """Draw edits, most of them near the beginning, where headers are."""
    edits: list[Edit] = []
    for _ in range(1 + min(int(chance.expovariate(1.2)), 8)):
        which = chance.random()
        word = (
            chance.choice(WORDS) if which < 0.4
            else chance.choice(NUMBERS).to_bytes(8, "little")[: chance.choice((1, 2, 4, 8))] if which < 0.7
            else chance.choice(NUMBERS).to_bytes(8, "big")[-chance.choice((1, 2, 4, 8)) :] if which < 0.8
            else chance.randbytes(chance.randrange(1, 9)))
        place = chance.randrange(64 if chance.random() < 0.3 else 1024 if chance.random() < 0.6 else 2**16)
        edits.append((chance.choices(range(6), (4, 6, 4, 2, 2, 0.5))[0], place, word))
    return edits


def corpus(name: str) -> list[bytes]:
    """Give the committed inputs of a reader."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


def fuzz(name: str, count: int, seed: int) -> dict[str, Any]:
    """Read ``count`` changed inputs under limits, and tell what came of it."""
    import resource

    page = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (page + int(GIBIBYTES * 2**30), resource.RLIM_INFINITY))
    chance, seeds, failures, taken = random.Random(seed), corpus(name), [], 0  # noqa: S311
    begin, slowest = time.perf_counter(), 0.0
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as scratch:  # noqa: S108
        folder = Path(scratch) / "here"
        for i in range(count):
            data = changed(chance.choice(seeds), draw(chance))
            folder.mkdir(exist_ok=True)
            started = time.process_time()
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            try:
                taken += read(name, data, folder)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                failures.append(f"{type(error).__name__}: {str(error)[:200]}")
                (CORPUS / name / f"found-{hashlib.sha256(data).hexdigest()[:12]}").write_bytes(data)
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
            slowest = max(slowest, time.process_time() - started)
            if i % 1000 == 999:
                shutil.rmtree(folder)
            others = [path.name for path in Path(scratch).iterdir() if path.name != "here"]
            if others:
                failures.append(f"it wrote {others}")
    return {"reader": name, "inputs": count, "read": taken, "refused": count - taken - len(failures),
            "failures": failures, "slowest": slowest, "seconds": time.perf_counter() - begin,
            "peak": int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text("ascii"))[0]) // 1024}


class TooSlow(BaseException):
    """An input took more than ``SECONDS``."""


def main() -> None:
    """Read the command line."""
    def late(number: int, frame: Any) -> None:
        raise TooSlow(f"more than {SECONDS} s")

    signal.signal(signal.SIGPROF, late)
    name, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    print(json.dumps(fuzz(name, count, seed)))


# The committed inputs -------------------------------------------------------------------------------------------------


def write_corpus(folder: Path = CORPUS) -> None:
    """Write the inputs from which the others are made: what the writers write, small."""
    import pickle
    import tarfile

    from xpnet import Network, mlp
    from xpnet.backend import Device
    from xpnet.blocks import Block

    def put(name: str, **contents: bytes) -> None:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for own, content in contents.items():
            (folder / name / own).write_bytes(content)

    with tempfile.TemporaryDirectory() as scratch:
        here = Path(scratch)
        plain = mlp(3, [2], 2, batch_norm=True, standardize=True)
        arrays = {name: a for part in plain.allocate((), Device(), "float32") for name, a in part.views.items()}
        Network(plain, arrays).save(here / "network")
        Network(plain, arrays).to_npz(here / "npz")
        put("network", network=(here / "network").read_bytes())
        put("npz", network=(here / "npz").read_bytes())
        stopped(make(here / "run", seed=[1, 2]), 7)
        parts = [(here / "run" / "checkpoints" / "step-00000007" / name).read_bytes()
                 for name in ("arrays.safetensors", "state.json", "manifest.json")]
        put("checkpoint", as_written=joined(0, *parts), with_a_manifest_that_fits=joined(1, *parts))
    put("config", config=json.dumps({"steps": 24, "arguments": [
        "--data", "synthetic", "--hidden", "8,5", "--batch-norm", "--initializer", "normal:1e-2", "--l2", "0.1",
        "--optimizer", "sgd", "--momentum", "0.9", "--schedule", "cyclic", "--epochs", "4", "--out", "run"]}).encode())
    put("lock", lock=json.dumps({"host": "here", "pid": 1, "started": "7"}).encode(), empty=b"")
    import numpy as np

    with tempfile.TemporaryDirectory() as scratch:
        kept = Store(Path(scratch), {"a": 1}, 2)
        state, columns = {"W1": np.zeros((2, 3, 1), "float32")}, {"step": np.asarray([0, 7])}
        kept.save(Block((0, 1), state, columns, np.zeros((7, 2), "float32"), {1: (3, "why")}), 7)
        put("block", block=next((Path(scratch) / "blocks").iterdir()).read_bytes())
    x, y = [[k % 256 for k in range(3072)]] * ROWS, [3, 9]
    rows = b"".join(bytes([label, *image]) for label, image in zip(y, x, strict=True))
    put("binary", batch=rows)
    told = {b"batch_label": b"training batch 1 of 5", b"labels": y, b"data": np.asarray(x, np.uint8),
            b"filenames": [b"a.png", b"b.png"]}
    put("pickled", **{f"protocol_{p}": pickle.dumps(told, p) for p in range(5)})
    for mode, layout, content in ((1, _cifar10.LAYOUTS[0], rows), (3, _cifar10.LAYOUTS[1], pickle.dumps(told, 2))):
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w", format=tarfile.USTAR_FORMAT) as file:
            for name in layout.batches:
                member = tarfile.TarInfo(f"{layout.folder}/{name}")
                member.size = len(content)
                file.addfile(member, io.BytesIO(content))
        put("archive", **{f"{layout.name}_tar": bytes([mode]) + tar.getvalue(),
                          f"{layout.name}_gz": bytes([mode - 1]) + gzip.compress(tar.getvalue(), 9, mtime=0)})


if __name__ == "__main__":
    main()
