"""How xpnet's update grows: time and memory against width, depth, batch size, and images on disk.

    python benchmarks/growth.py [--gigabytes 2 | --beyond-ram] [--room DIR]

Each point is a process of its own. Beside the measured slope (of the logarithms) stands the arithmetic's: that of the
operations in the matrix products, and of the bytes that the parameters, their gradients, a batch and the hidden layers
take. The images of the last series are a memory-mapped file. Writes growth.json and growth.md in ``--out``.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _cpu_run import clean
from _cpu_tables import facts, machine, middle, summary, table
from _gpu_section import write_json
from environments import ROOT

INPUTS, CLASSES, IMAGES = 3072, 10, 20_000
SERIES: dict[str, tuple[str, list[int]]] = {
    "width": ("two hidden layers of so many units, batches of 100", [50, 100, 200, 500, 1000, 2000]),
    "depth": ("so many hidden layers of 50 units, batches of 100", [1, 2, 5, 10, 20]),
    "batch": ("two hidden layers of 50 units", [10, 30, 100, 300, 1000, 3000, 10_000]),
}
TEXT = """# How xpnet's update grows

Made by `python benchmarks/growth.py{options}`. {facts}

Networks with batch norm on {images:,} random images of 3072 uint8; float32, SGD, l2 = 0.005. *µs per update*: median
and quartiles of {repeats} stretches of one call of `Trainer.fit`, the gather included. *Training*: the most memory held
while training, less what the process held with its data before. *Process*: the most that it ever held. Slopes are of
the logarithms: over all points, and between the last two. The arithmetic's are those of the operations in the matrix
products, and of the bytes of parameters, gradients, one batch and the hidden layers.
{tables}

## Images on disk

A memory-mapped file of {gigabytes:.1f} GB ({memory:.1f} GB of memory are in the machine), of which the first so many
images are trained on: two hidden layers of 50, batches of 100, in random order. *Own memory*: what the process holds
besides pages of the file, which the system takes back when it needs them. *Ready*: the seconds until the first update,
in which the images' moments are found.

{disk}

{verdict}
"""


def pages(what: str) -> int:
    """Return an entry of this process's memory, in bytes."""
    return 1024 * int(Path("/proc/self/status").read_text("ascii").partition(f"{what}:")[2].split()[0])


def forget_peak() -> None:
    """Return freed memory back, and let the peak start anew."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", "ascii")


def point(hidden: Sequence[int], size: int, images: int, file: str, seconds: float, repeats: int) -> dict[str, Any]:
    """Measure one point, in this process.

    Parameters
    ----------
    hidden : sequence of int
        Widths.
    size, images : int
        Of the batches, and of the data.
    file : str
        Where the images are, mapped into memory; "" for images in memory.
    seconds : float
        For all repeats together.
    repeats : int
        Stretches of updates that are timed.
    """
    sys.path.insert(0, str(ROOT))
    import xpnet

    draw = np.random.default_rng(0)
    if file:
        x = np.memmap(file, np.uint8, "r", shape=(images, INPUTS))
    else:
        x = np.empty((images, INPUTS), np.uint8)
        for start in range(0, images, 1000):
            x[start : start + 1000] = draw.integers(256, size=x[start : start + 1000].shape, dtype=np.uint8)
    y = draw.integers(CLASSES, size=images)
    stamps: list[float] = []
    own: list[int] = []

    class Watch(xpnet.Callback):
        def on_begin(self, trainer: Any, steps: int) -> None:
            stamps[:] = [time.perf_counter()]

        def on_evaluation(self, trainer: Any, row: dict[str, Any]) -> None:
            stamps.append(time.perf_counter())
            own.append(pages("RssAnon"))

    before = pages("VmRSS") - pages("RssFile") * bool(file)
    network = xpnet.mlp(INPUTS, list(hidden), CLASSES, batch_norm=True, standardize=True)
    trainer = xpnet.Trainer(network, l2=0.005, batch_size=size, callbacks=[Watch()],
                            schedule=xpnet.CyclicLR(1e-5, 1e-3, 100))
    began = time.perf_counter()
    trainer.fit(x, y, steps=1, train_sample=1)
    ready = time.perf_counter() - began
    trainer.fit(x, y, steps=8, evaluate_every=4, train_sample=1)
    stretch = (stamps[-1] - stamps[-2]) / 4.0  # an update's time, roughly: a stretch without a new order
    whole = pages("VmHWM")
    forget_peak()
    own.clear()
    each = max(2, min(2000, int(seconds / repeats / stretch)))
    # Evaluations come at multiples of their interval: the first stretch, which draws the order, and the last are short.
    trainer.fit(x, y, steps=trainer.step + (repeats + 2) * each, evaluate_every=each, train_sample=1)
    times = [1e6 * (b - a) / each for a, b in itertools.pairwise(stamps)][-repeats - 1 : -1]
    return {
        "us": times, "steps": each, "process": max(whole, pages("VmHWM")), "own": max(own), "ready": ready,
        "training": (max(own) if file else pages("VmHWM")) - before,
    }


def measured(**what: Any) -> dict[str, Any]:
    """Measure one point in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--point", json.dumps(what)], env=clean(), check=False,
                          capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{what}: {done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found | what


def arithmetic(
    hidden: Sequence[int], size: int, inputs: int = INPUTS, classes: int = CLASSES
) -> tuple[float, float]:
    """Return the operations in an update's matrix products, and the bytes that it must hold at the least."""
    widths = [inputs, *hidden, classes]
    products = [a * b for a, b in itertools.pairwise(widths)]
    weights = sum(products) + sum(widths[1:]) + 2 * sum(hidden)
    return 2.0 * size * (3 * sum(products) - products[0]), 4.0 * (2 * weights + size * (inputs + sum(hidden)))


def slopes(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Return the slope of log y against log x: fitted to all points, and between the last two."""
    logs = np.log(np.asarray(x, float)), np.log(np.maximum(np.asarray(y, float), 1.0))
    return float(np.polyfit(*logs, 1)[0]), float((logs[1][-1] - logs[1][-2]) / (logs[0][-1] - logs[0][-2]))


def series(points: dict[str, dict[str, Any]], name: str) -> str:
    """Return the table of a series."""
    values = [float(value) for value in points]
    rows = [[value, middle(summary(p["us"])), f"{p['training'] / 1e6:.1f}", f"{p['process'] / 1e6:.0f}"]
            for value, p in points.items()]
    must = [arithmetic(p["hidden"], p["size"]) for p in points.values()]
    columns = ([summary(p["us"])["median"] for p in points.values()], [m[0] for m in must],
               [p["training"] for p in points.values()], [m[1] for m in must])
    if len(values) > 1:
        time_is, time_must, held, held_must = (slopes(values, column) for column in columns)
        for k, what in enumerate(("slope, all points", "slope, last two")):
            rows.append([what, f"{time_is[k]:.2f} (arithmetic {time_must[k]:.2f})",
                         f"{held[k]:.2f} (arithmetic {held_must[k]:.2f})", ""])
    return f"\n**{name}**: {SERIES[name][0]}\n\n" + table([name, "µs per update", "training, MB", "process, MB"], rows)


def make_file(path: Path, images: int) -> None:
    """Write random images; the same block again and again, each time rolled, so that the disk holds it all."""
    if shutil.disk_usage(path.parent).free < images * INPUTS + 2**30:
        raise SystemExit(f"{path.parent} has too little room for {images * INPUTS / 1e9:.1f} GB: name another --room")
    block = np.random.default_rng(0).integers(256, size=(20_000, INPUTS), dtype=np.uint8)
    with path.open("wb") as out:
        for k, start in enumerate(range(0, images, len(block))):
            np.roll(block, k)[: images - start].tofile(out)


def on_disk(gigabytes: float, room: Path | None, options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Measure training on an eighth, a quarter, a half and all of a memory-mapped file."""
    found = {}
    with tempfile.TemporaryDirectory(dir=room) as place:
        path, images = Path(place) / "images", int(gigabytes * 1e9 / INPUTS)
        print(f"writing {gigabytes:.1f} GB to {path}", flush=True)
        make_file(path, images)
        for share in (8, 4, 2, 1):
            n = images // share
            found[str(n)] = measured(hidden=[50, 50], size=100, images=n, file=str(path), **options)
            print(f"images on disk {n:,}: {middle(summary(found[str(n)]['us']))} µs", flush=True)
    return found


def write(found: dict[str, Any], out: Path) -> None:
    """Write growth.json and growth.md."""
    write_json(out / "growth.json", found)
    disk = found["disk"]
    rows = [[f"{int(n):,}", f"{int(n) * INPUTS / 1e9:.2f}", middle(summary(p["us"])), f"{p['own'] / 1e6:.0f}",
             f"{p['ready']:.1f}"] for n, p in disk.items()]
    verdict = ""
    if len(disk) > 1:
        first, *_, last = disk.values()
        rate = summary(last["us"])["median"] / summary(first["us"])["median"]
        verdict = (f"From the smallest to the largest share an update's time changes by a factor of {rate:.2f}, the "
                   f"process's own memory by {(last['own'] - first['own']) / 1e6:+.0f} MB, of which the labels and the "
                   f"order of the images are {16 * (last['images'] - first['images']) / 1e6:.0f} MB.")
    text = TEXT.format(
        options=found["options"], facts=facts(found["machine"]), images=IMAGES, repeats=found["repeats"],
        tables="\n".join(series(points, name) for name, points in found["series"].items()),
        gigabytes=found["gigabytes"], memory=found["memory"], verdict=verdict,
        disk=table(["images", "GB", "µs per update", "own memory, MB", "ready, s"], rows),
    )
    (out / "growth.md").write_text(text, encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--gigabytes", type=float, default=2.0, help="of the memory-mapped file; 0 leaves it out")
    size.add_argument("--beyond-ram", action="store_true", help="a file of 1.25 times the machine's memory")
    parser.add_argument("--room", type=Path, help="where the file is written, and deleted afterwards")
    parser.add_argument("--seconds", type=float, default=5.0, help="of measuring per point, about")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--most", type=int, default=10**9, help="leaves out larger widths, depths and batches")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--point", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.point:
        print(json.dumps(point(**json.loads(chosen.point))))
        return
    if not Path("/proc/self/clear_refs").exists():
        raise SystemExit("growth.py reads memory from /proc: it needs Linux")
    total = 1024 * int(Path("/proc/meminfo").read_text("ascii").split()[1])
    gigabytes = 1.25e-9 * total if chosen.beyond_ram else chosen.gigabytes
    options = {"seconds": chosen.seconds, "repeats": chosen.repeats}
    found: dict[str, Any] = {
        "options": " --beyond-ram" * chosen.beyond_ram, "machine": machine(None, ()), "gigabytes": gigabytes,
        "memory": total / 1e9, "repeats": chosen.repeats, "series": {}, "disk": {},
    }
    for name, (_, values) in SERIES.items():
        found["series"][name] = {}
        for value in (v for v in values if v <= chosen.most):
            hidden = {"width": [value, value], "depth": [50] * value}.get(name, [50, 50])
            result = measured(hidden=hidden, size=value if name == "batch" else 100, images=IMAGES, file="", **options)
            found["series"][name][str(value)] = result
            print(f"{name} {value}: {middle(summary(result['us']))} µs, {result['training'] / 1e6:.1f} MB", flush=True)
    if gigabytes:
        found["disk"] = on_disk(gigabytes, chosen.room, options)
    write(found, chosen.out)
    print(f"wrote {chosen.out / 'growth.json'} and {chosen.out / 'growth.md'}")


if __name__ == "__main__":
    main()
