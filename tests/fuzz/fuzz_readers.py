"""Every reader of files, fed with inputs that were changed at random.

For tests (``test_fuzz.py``), for docs/robustness.md, and for atheris (``fuzz_atheris.py``). Alone:
``python tests/fuzz/fuzz_readers.py READER COUNT SEED`` reads so many inputs under limits of memory and time, and prints
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
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))  # where this is run by itself

from runners import fit, make

from xpnet import Network, Sweep, Trainer, datasets, mlp
from xpnet.backend import Device
from xpnet.cli import config as cli_config
from xpnet.cli.commands import _parser
from xpnet.cli.train import read_config
from xpnet.datasets import _cifar10, _layouts, _pickled, inputs
from xpnet.datasets.tables import read as read_features
from xpnet.files.locks import LockedError, RunLock
from xpnet.nn.formats.safetensors import CheckpointError, unpack
from xpnet.sweeps.blocks import check
from xpnet.sweeps.store import DamagedBlockWarning, Store, _digest
from xpnet.training import run_directory
from xpnet.training.snapshot import ResumeError

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


def framed(header: bytes, arrays: bytes) -> bytes:
    """Return a safetensors file with the size of its header, so that an edit of the header breaks nothing else."""
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + arrays


def unframed(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Undo ``framed``, and read the header."""
    size = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:size]), content[size:]


def network(data: bytes, folder: Path) -> None:
    """Read a network; after a first byte of 1, from a header in a line, and the arrays."""
    header, _, arrays = data[1:].partition(b"\n")
    (folder / "network").write_bytes(framed(header, arrays) if data[:1] == b"\1" else data[1:])
    Network.load(folder / "network")


def npz(data: bytes, folder: Path) -> None:
    """Read a network from an npz file."""
    (folder / "network.npz").write_bytes(data)
    Network.from_npz(folder / "network.npz")


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
    for name in _layouts.LAYOUTS[0].batches:
        if not (folder / name).exists() or name == "data_batch_3.bin":
            (folder / name).write_bytes(data if name == "data_batch_3.bin" else bytes(ROWS * 3073))
    with small_batches():
        datasets.cifar10(folder, validation=0)


def archive(data: bytes, folder: Path) -> None:
    """Read CIFAR-10 from an archive; after a first byte of 1, from the tar in it."""
    path = folder / _layouts.LAYOUTS[data[:1] in (b"\2", b"\3")].archive
    path.write_bytes(gzip.compress(data[1:], 1) if data[:1] in (b"\1", b"\3") else data[1:])
    with small_batches():
        datasets.cifar10(path, validation=0)


TRAINERS = [Trainer(mlp(3, [2], 2, batch_norm=True), l2=l2, schedule=0.1) for l2 in (0.0, 0.1)]
POINTS = [{"l2": 0.0}, {"l2": 0.1}]
TOLD = {"points": POINTS, "rungs": [7], "trainers": [trainer.config() for trainer in TRAINERS]}


def sweeps(folder: Path) -> Store:
    """Return a new directory of a sweep."""
    shutil.rmtree(folder / "sweep", ignore_errors=True)
    (folder / "sweep" / "blocks").mkdir(parents=True)
    return Store(folder / "sweep", TOLD, 2)


def block(data: bytes, folder: Path) -> None:
    """Read a finished block of a sweep; after a first byte of 1, from two lines of JSON, with a digest that fits."""
    store, content = sweeps(folder), data[1:]
    if data[:1] == b"\1":
        of, _, rest = content.partition(b"\n")
        header, _, arrays = rest.partition(b"\n")
        with contextlib.suppress(Exception):
            own = json.loads(of)
            own |= {"identity": store.identity}
            of = json.dumps({**own, "sha256": _digest(own, unpack(framed(header, arrays)))}).encode()
        with contextlib.suppress(Exception):
            header = json.dumps({"__metadata__": {"block": of.decode()}, **json.loads(header)}).encode()
        content = framed(header, arrays)
    (folder / "sweep" / "blocks" / "000000007-0.safetensors").write_bytes(content)
    found = Sweep(POINTS, TRAINERS, ["train_loss"], "train_loss", Device(), 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DamagedBlockWarning)
        for one in store.load(7, lambda block: check(block, TRAINERS, ["train_loss"], 7)):
            if set(one.members) == {0, 1}:
                found.add(one)
                found.table()


class RefusedError(Exception):
    """A refusal in the words that are promised."""


def sweep(data: bytes, folder: Path) -> None:
    """Read what a sweep's directory is."""
    sweeps(folder)
    (folder / "sweep" / "sweep.json").write_bytes(data)
    try:
        assert Store(folder / "sweep", TOLD, 2).block_size >= 1
    except ValueError as error:
        if "sweep.json is damaged (" in str(error) or "holds another sweep: " in str(error):
            raise RefusedError from error
        raise


def toml(data: bytes, folder: Path) -> None:
    """Read options from a TOML file."""
    (folder / "run.toml").write_bytes(data)
    arguments = argparse.Namespace(config=folder / "run.toml", given=[], command="train")
    with contextlib.redirect_stderr(io.StringIO()):
        cli_config.resolve(arguments, _train_parser())


def features(ending: str, data: bytes, folder: Path) -> None:
    """Read features from a file."""
    (folder / f"features.{ending}").write_bytes(data)
    assert read_features(folder / f"features.{ending}").ndim == 2


def paired(x: bytes, y: bytes) -> bytes:
    """Put two npy files into one input, from which an npz file is made whose checksums fit."""
    return b"\1" + len(x).to_bytes(4, "little") + x + y


def arrays(data: bytes, folder: Path) -> None:
    """Read arrays to train on; after a first byte of 1, from the two npy files in an npz file."""
    content, size = data[1:], 5 + int.from_bytes(data[1:5], "little")
    if data[:1] == b"\1":
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("x.npy", data[5:size])
            archive.writestr("y.npy", data[size:])
        content = stream.getvalue()
    (folder / "mine.npz").write_bytes(content)
    found = datasets.load(folder / "mine.npz")
    assert all(len(split.x) == len(split.y) > 0 for split in (found.train, found.validation, found.test))
    assert max(split.y.max() for split in (found.train, found.validation, found.test)) < len(found.classes)


def tables(data: bytes, folder: Path) -> None:
    """Read a run's history, a sweep's table, or a run's configuration, as the first byte says."""
    path = folder / "config.json"
    path.write_bytes(data[1:])
    readers = {b"\0": run_directory.history, b"\1": run_directory.objects}
    readers.get(data[:1], lambda path: run_directory.config(path.parent))(path)


class Reader(NamedTuple):
    """A reader, and how it may refuse an input."""

    read: Callable[[bytes, Path], None]
    refusals: tuple[type[Exception], ...]


READERS = {
    "network": Reader(network, (CheckpointError,)), "npz": Reader(npz, (CheckpointError,)),
    "checkpoint": Reader(checkpoint, (CheckpointError, ResumeError)), "config": Reader(config, (CheckpointError,)),
    "lock": Reader(lock, (LockedError,)), "pickled": Reader(pickled, BAD_DATA), "binary": Reader(binary, BAD_DATA),
    "archive": Reader(archive, BAD_DATA), "block": Reader(block, (DamagedBlockWarning,)),
    "sweep": Reader(sweep, (RefusedError,)), "toml": Reader(toml, (cli_config.ConfigError, SystemExit)),
    "tables": Reader(tables, (CheckpointError,)), "arrays": Reader(arrays, (inputs.InputError,)),
    **{f"features-{ending}": Reader(functools.partial(features, ending), (inputs.InputError,))
       for ending in ("npy", "npz", "csv", "png")},
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
    """Return the committed inputs of a reader."""
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


if __name__ == "__main__":
    main()
