"""Writes the inputs from which fuzzing makes others, ``tests/fuzz/corpus``.

Run: python tests/fuzz/fuzz_corpus.py [READER ...].

They are what the writers write, small. A checkpoint's depends on the versions that wrote it.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from fuzz_readers import CORPUS, ROWS, TRAINERS, joined, paired, sweeps, unframed
from matplotlib.image import imsave
from runners import make, stopped

from xpnet import Network, Trainer, mlp
from xpnet.backend import Device
from xpnet.datasets import _layouts
from xpnet.sweeps.blocks import Block


def write_corpus(folder: Path = CORPUS, readers: Sequence[str] = ()) -> None:
    """Write the inputs of some readers, or of all."""
    def put(name: str, **contents: bytes) -> None:
        if readers and name not in readers:
            return
        (folder / name).mkdir(parents=True, exist_ok=True)
        for own, content in contents.items():
            (folder / name / own).write_bytes(content)

    with tempfile.TemporaryDirectory() as scratch:
        here = Path(scratch)
        plain = mlp(3, [2], 2, batch_norm=True, standardize=True)
        arrays = {name: a for part in plain.allocate((), Device(), "float32") for name, a in part.views.items()}
        Network(plain, arrays).save(here / "network")
        Network(plain, arrays).to_npz(here / "npz")
        content = (here / "network").read_bytes()
        header, rest = unframed(content)
        put("network", as_written=b"\0" + content, in_a_line=b"\1" + json.dumps(header).encode() + b"\n" + rest)
        put("npz", network=(here / "npz").read_bytes())
        stopped(make(here / "run", seed=[1, 2]), 7)
        parts = [(here / "run" / "checkpoints" / "step-00000007" / name).read_bytes()
                 for name in ("arrays.safetensors", "state.json", "manifest.json")]
        put("checkpoint", as_written=joined(0, *parts), with_a_manifest_that_fits=joined(1, *parts))
    put("config", config=json.dumps({"steps": 24, "arguments": [
        "--data", "synthetic", "--hidden", "8,5", "--batch-norm", "--initializer", "normal:1e-2", "--l2", "0.1",
        "--optimizer", "sgd", "--momentum", "0.9", "--schedule", "cyclic", "--epochs", "4", "--out", "run"]}).encode())
    put("toml", toml=b'data = "synthetic"\nhidden = [8, 5]\nbatch-norm = true\ninitializer = "normal:1e-2"\nl2 = 0.1\n'
        b'optimizer = "sgd"\nmomentum = 0.9\nschedule = "cyclic"\nepochs = 4\nstandardize = false\nout = "run"\n')
    rows = [{"step": i, "epoch": 0.5 * i, "lr": 0.1, "train_loss": 1.5, "train_accuracy": None} for i in range(3)]
    put("tables", history=b"\0" + b"\n".join(json.dumps(row).encode() for row in rows),
        table=b"\1" + json.dumps(rows).encode(), config=b"\2" + json.dumps(rows[0] | {"classes": ["a", "b"]}).encode())
    x = np.arange(18, dtype="float32").reshape(2, 9)
    for ending, write in (("npy", lambda to: np.save(to, x)), ("npz", lambda to: np.savez_compressed(to, x=x)),
                          ("png", lambda to: imsave(to, x.reshape(2, 3, 3).astype("uint8"), format="png"))):
        stream = io.BytesIO()
        write(stream)
        put(f"features-{ending}", features=stream.getvalue())
    files: list[bytes] = []
    for array in (np.arange(12, dtype="float32").reshape(6, 2), np.arange(6) % 2, np.array(["a", "b", "ü"] * 2)):
        stream = io.BytesIO()
        np.save(stream, array)
        files.append(stream.getvalue())
    stream = io.BytesIO()
    np.savez(stream, x=np.eye(6, dtype="uint8"), y=np.arange(6), x_test=np.eye(6, dtype="uint8"), y_test=np.arange(6))
    put("arrays", numbers=paired(*files[:2]), strings=paired(files[0], files[2]), with_a_test=b"\0" + stream.getvalue())
    put("features-csv", features=b"a,b,c\n1,2.5,-3e4\n4,5,6\n")
    put("lock", lock=json.dumps({"host": "here", "pid": 1, "started": "7"}).encode(), empty=b"")
    with tempfile.TemporaryDirectory() as scratch:
        kept, stacked = sweeps(Path(scratch)), Trainer.stack(TRAINERS)
        columns = {"step": np.asarray([0, 7]), "train_loss": np.zeros((2, 2))}
        stacked.start(Device())
        kept.save(Block((0, 1), stacked.state(), columns, np.zeros((7, 2), "float32"), {1: (3, "why")}), 7)
        content = next((Path(scratch) / "sweep" / "blocks").iterdir()).read_bytes()
        header, rest = unframed(content)
        of = header.pop("__metadata__")["block"].encode()
        put("block", as_written=b"\0" + content,
            in_lines=b"\1" + of + b"\n" + json.dumps(header).encode() + b"\n" + rest)
        put("sweep", sweep=(Path(scratch) / "sweep" / "sweep.json").read_bytes())
    x, y = [[k % 256 for k in range(3072)]] * ROWS, [3, 9]
    rows = b"".join(bytes([label, *image]) for label, image in zip(y, x, strict=True))
    put("binary", batch=rows)
    batch = {b"batch_label": b"training batch 1 of 5", b"labels": y, b"data": np.asarray(x, np.uint8),
             b"filenames": [b"a.png", b"b.png"]}
    put("pickled", **{f"protocol_{p}": pickle.dumps(batch, p) for p in range(5)})
    for mode, layout, content in ((1, _layouts.LAYOUTS[0], rows), (3, _layouts.LAYOUTS[1], pickle.dumps(batch, 2))):
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w", format=tarfile.USTAR_FORMAT) as file:
            for name in layout.batches:
                member = tarfile.TarInfo(f"{layout.folder}/{name}")
                member.size = len(content)
                file.addfile(member, io.BytesIO(content))
        put("archive", **{f"{layout.name}_tar": bytes([mode]) + tar.getvalue(),
                          f"{layout.name}_gz": bytes([mode - 1]) + gzip.compress(tar.getvalue(), 9, mtime=0)})


if __name__ == "__main__":
    write_corpus(readers=sys.argv[1:])
