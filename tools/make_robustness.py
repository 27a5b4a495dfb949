"""Write docs/robustness.md: runs that are killed, broken and damaged, and readers that are fed with nonsense.

Run: python tools/make_robustness.py (about half an hour on two cores). It is made of parts of a few minutes, whose
results are kept in --work and not made again there: --parts lists them or makes some, and without it what is missing
is made and the page is written.
"""

from __future__ import annotations

import argparse
import collections
import functools
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
DOCS = Path(__file__).parents[1] / "docs"
TESTS = DOCS.parent / "tests"
sys.path[:0] = [str(TESTS / "support"), str(TESTS / "fuzz"), str(DOCS.parent)]

import controls  # noqa: E402
import faults  # noqa: E402
import fuzz_readers  # noqa: E402
import kills  # noqa: E402
import numpy as np  # noqa: E402
from helpers import assert_same  # noqa: E402
from runners import Break, fit, make, result  # noqa: E402

import xpnet  # noqa: E402
from xpnet import datasets  # noqa: E402
from xpnet.files import storage  # noqa: E402
from xpnet.training.checkpoints import Checkpoints, CheckpointWriteError  # noqa: E402

TEXT = """# Runs that cannot be lost

A run with checkpoints (`xpnet train --out RUN`, or a `Checkpoints` callback) goes on where it ended
(`xpnet train --resume RUN`, or `Trainer.resume`). What is promised: on the same machine, with the same versions of
Python, NumPy, its BLAS and xpnet, and the same number of threads, the run that was interrupted, however often and at
whatever moment, ends **bit for bit** as the one that was not: weights, running statistics, optimiser, history,
predictions. Where versions, BLAS, threads or the device differ, it says so, and goes on to the same numbers up to
rounding. Where the data, the configuration or the version of xpnet differ, it refuses, and names the difference.

Made by `python tools/make_robustness.py` on {machine}.

## Killed

{kills} kills with SIGKILL at random moments of real trainings (`xpnet train`, {steps} updates, an evaluation and a
checkpoint at every seventh; `xpnet sweep`, half as many), each gone on with by `--resume`, or the same sweep again,
until it ended. Then the SHA-256 of the weights, of the history, of the last checkpoint's arrays (with the optimiser's
moments) or the sweep's blocks and tables, and of the predictions for the test images were compared with those of the
same training undisturbed.

{kill_table}

One in five came at most two seconds after its process began, the others at most two seconds after the process had taken
the run's lock. What they hit, as the directories tell:

{moment_table}

Beside these, the tests kill a training in each of the {calls} system calls that write a checkpoint
(`tests/training/test_kill.py`).

## Left out

The comparison would be worth nothing if it did not see what is missing. Each item of the state was left out in turn
when a run was gone on with:

{control_table}

The data, the configuration and the version are no state: they are compared, and a run with others is refused
(`tests/training/test_checkpoints_refused.py`).

## Broken

A fault in each system call that writes a checkpoint; the training ended with an error that names the checkpoint and the
last good one, which was intact, and the run went on from it to the undisturbed end. EINTR is beside this sent by the
system itself: checkpoints are written under a storm of signals (`tests/training/test_checkpoints_faults.py`).

{fault_table}

And files damaged as a crash of the machine or a failing disk does; each time the damaged checkpoint was named, the one
before it used, and the end was the undisturbed one:

{damage_table}

## Fed with nonsense

Each reader of files was given {inputs:,} inputs, made of a few valid ones by flipping, cutting, doubling and replacing
bytes, under limits of {memory} GiB of memory and {seconds} s of processor time for each. A failure is any error but the
one that the reader promises, any file written elsewhere, any memory or time beyond the limits.

{fuzz_table}

The inputs to begin with are in `tests/fuzz/corpus`; `tests/fuzz/fuzz_atheris.py` reads them under atheris.

## What it costs

Training of the 3-layer network with batch norm ({images:,} images, batch 100, SGD) with and without a checkpoint at the
evaluation after every epoch, in turns, {rounds} rounds of {epochs} epochs each on one thread of BLAS: median
{plain:.3f} s without, {kept:.3f} s with checkpoints. The overhead, as the median of the rounds' ratios, is
**{overhead:.1%}** (quartiles {low:.1%} and {high:.1%}; goal: at most 2 %). It holds the fingerprint of the data
(SHA-256 over {megabytes:.0f} MB, once) and {writes} checkpoints of {kilobytes:.0f} kB, written by a thread while
training goes on.
"""


def table(header: list[str], rows: list[list[Any]]) -> str:
    """Return a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def killed(arguments: argparse.Namespace, part: int) -> dict[str, Any]:
    """Kill a training, or several, until there were so many kills."""
    stormed, left = [], arguments.kills // PARTS + (part < arguments.kills % PARTS)
    moments: collections.Counter[str] = collections.Counter()
    jobs = [*kills.JOBS, *kills.SWEEPS]
    job, seed = jobs[part % len(jobs)], 100 * part
    while left:
        steps = arguments.steps if job in kills.JOBS else arguments.steps // 2
        found = kills.storm(job, steps, left, arguments.work / f"storm{part}", seed)
        stormed.append([job, found.kills, found.problems])
        moments += found.moments
        left -= found.kills
        seed += 1
        print(f"{job}: {found.kills} kills, {found.problems or 'as undisturbed'}; {left} left", flush=True)
    return {"rows": stormed, "moments": dict(moments)}


def left_out(arguments: argparse.Namespace) -> list[list[str]]:
    """Leave each item of the state out."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for i, (item, (name, drop)) in enumerate(controls.CONTROLS.items()):
            here = Path(scratch) / f"{i}"
            expected = controls.undisturbed(name, here / "undisturbed")
            controls.interrupted(name, here / "run")
            shutil.copytree(here / "run", here / "again")
            whole = controls.compare(name, expected, here / "again")
            seen = controls.compare(name, expected, here / "run", drop)
            rows.append([item, name, whole or "the same", seen.replace("|", "/")[:100] or "NOT SEEN"])
    return rows


def broken(arguments: argparse.Namespace) -> dict[str, Any]:
    """Have each call fail, and damage each file."""
    found: dict[str, Any] = {"faults": [], "damages": []}
    undisturbed = result(fit(make()))
    calls = [call for call in faults.CALLS if call not in faults.REPLACING]
    for (call, count), (word, code) in [(c, e) for c in calls for e in faults.CODES.items()]:
        found["faults"].append([f"{call} {count}", word, *_one_fault(call, count, code, undisturbed)])
    for name in faults.FILES:
        for how in faults.DAMAGES:
            found["damages"].append([name, how, *_one_damage(name, how, undisturbed)])
    return found


def _one_fault(call: str, count: int, code: int, undisturbed: Any) -> list[str]:
    with tempfile.TemporaryDirectory() as scratch:
        run, said = Path(scratch) / "run", ""

        def start() -> None:
            storage.os = faults.faulty(call, count, code)  # type: ignore[attr-defined]

        try:
            fit(make(run, callbacks=[Break(20, start)]))
        except CheckpointWriteError as error:
            said = str(error)
        finally:
            storage.os = os  # type: ignore[attr-defined]
        named = "step-00000020" in said and "the last good checkpoint is step-00000010" in said
        again = make(run)
        again.resume(run)
        return ["yes" if named else "NO", "yes" if again.step == 10 else "NO", _same(again, undisturbed)]


def _one_damage(name: str, how: str, undisturbed: Any) -> list[str]:
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        run = Path(scratch) / "run"
        fit(make(run), 30)
        faults.damage(run / "checkpoints" / "step-00000030" / name, how)
        again = make(run)
        again.resume(run)
        named = any("step-00000030 is damaged" in str(w.message) and name in str(w.message) for w in told)
        return ["yes" if named else "NO", "yes" if again.step == 20 else "NO", _same(again, undisturbed)]


def _same(again: xpnet.Trainer, undisturbed: Any) -> str:
    try:
        assert_same(result(fit(again)), undisturbed)
    except AssertionError as error:
        return f"NO: {error}"
    return "yes"


def fuzzed(arguments: argparse.Namespace, name: str) -> dict[str, Any]:
    """Fuzz a reader in a process of its own."""
    done = subprocess.run(
        [sys.executable, fuzz_readers.__file__, name, str(arguments.inputs), "1"], capture_output=True, text=True,
        check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def timed(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train with and without checkpoints, in turns."""
    data = datasets.synthetic(train=arguments.images)

    def once(run: Path | None, epochs: int = arguments.epochs) -> float:
        network = xpnet.mlp(3072, [50, 50], 10, batch_norm=True, standardize=True)
        trainer = xpnet.Trainer(network, schedule=xpnet.CyclicLR(1e-5, 1e-1, 2250), l2=0.005,
                                callbacks=[Checkpoints(run)] if run else [])
        begin = time.perf_counter()
        trainer.fit(*data.train, epochs=epochs, validation=data.validation)
        return time.perf_counter() - begin

    times: dict[str, list[float]] = {"plain": [], "kept": []}
    with tempfile.TemporaryDirectory(dir=arguments.work) as scratch:
        once(None, 1)
        for i in range(arguments.rounds):
            for name in ("plain", "kept") if i % 2 else ("kept", "plain"):
                times[name].append(once(Path(scratch) / f"{i}" if name == "kept" else None))
            print({name: values[-1] for name, values in times.items()}, flush=True)
        size = sum(path.stat().st_size for path in max((Path(scratch) / "0" / "checkpoints").iterdir()).iterdir())
    return {"times": times, "kilobytes": size / 1000, "writes": arguments.epochs + 1,
            "megabytes": sum(a.nbytes for split in (data.train, data.validation) for a in split) / 1e6}


def summed(costs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the medians over all timed rounds."""
    plain, kept = (np.asarray([t for cost in costs for t in cost["times"][name]]) for name in ("plain", "kept"))
    low, middle, high = (float(v) for v in np.quantile(kept / plain - 1, (0.25, 0.5, 0.75)))
    return {"plain": float(np.median(plain)), "kept": float(np.median(kept)), "overhead": middle, "low": low,
            "high": high, "rounds": len(plain), **{k: v for k, v in costs[0].items() if k != "times"}}


PARTS = 10  # of the kills; of the timing there are four
MADE: dict[str, Callable[[argparse.Namespace], Any]] = {
    **{f"kills-{k}": functools.partial(killed, part=k) for k in range(PARTS)}, "controls": left_out, "faults": broken,
    **{f"fuzz-{name}": functools.partial(fuzzed, name=name) for name in fuzz_readers.READERS},
    **{f"cost-{k}": timed for k in range(4)},
}


def made(part: str, arguments: argparse.Namespace) -> Any:
    """Make a part, or read what it came to."""
    path = arguments.work / f"{part}.json"
    if not path.exists():
        path.write_text(json.dumps(MADE[part](arguments)), "utf-8")
    return json.loads(path.read_text("utf-8"))


def main() -> None:
    """Make parts, or all of them and the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default, text in (("kills", 200, "of trainings"), ("steps", 3500, "updates of a training that is killed"),
                                ("inputs", 100_000, "for each reader"), ("images", 45_000, "of the timed training"),
                                ("epochs", 20, "of the timed training"), ("rounds", 2, "of each timed part")):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text}; {default} by default")
    parser.add_argument("--work", type=Path, help="directory for what the parts came to; a temporary one by default")
    parser.add_argument("--parts", nargs="*", metavar="PART", help="make these, or list all, and write no page")
    parser.add_argument("--out", type=Path, default=DOCS / "robustness.md")
    arguments = parser.parse_args()
    if arguments.parts == []:
        print("\n".join(MADE))
        return
    with tempfile.TemporaryDirectory() as scratch:
        arguments.work = arguments.work or Path(scratch)
        arguments.work.mkdir(parents=True, exist_ok=True)
        found = {part: made(part, arguments) for part in arguments.parts or MADE}
    if arguments.parts:
        print(json.dumps(found, indent=1))
    else:
        arguments.out.write_text(page(found, arguments), encoding="utf-8")


def _does(name: str) -> str:
    """Tell what a reader does, in its own words."""
    read = fuzz_readers.READERS[name].read
    return (getattr(read, "func", read).__doc__ or "").split(";")[0].rstrip(".").replace("|", "/")


def page(found: dict[str, Any], arguments: argparse.Namespace) -> str:
    """Return the page of all parts."""
    of = {kind: [value for part, value in found.items() if part.split("-")[0] == kind]
          for kind in ("kills", "fuzz", "cost")}
    merged: dict[str, list[Any]] = {}
    moments: collections.Counter[str] = collections.Counter()
    for kill in of["kills"]:
        moments.update(kill["moments"])
        for job, count, problems in kill["rows"]:
            row = merged.setdefault(job, [0, 0, []])
            merged[job] = [row[0] + 1, row[1] + count, row[2] + problems]
    return TEXT.format(
        machine=f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, NumPy "
                f"{np.__version__}",
        kills=sum(count for _, count, _ in merged.values()), steps=f"{arguments.steps:,}", calls=len(faults.CALLS),
        kill_table=table(["training", "trainings", "kills", "lost, unreadable or different"],
                         [[job, n, count, "; ".join(p) or "none"] for job, (n, count, p) in merged.items()]),
        moment_table=table(["it was", "kills"], [list(found) for found in moments.most_common()]),
        control_table=table(["left out", "of a run", "with it", "without it"], found["controls"]),
        fault_table=table(["call", "fault", "named", "last good one intact", "went on to the same end"],
                          found["faults"]["faults"]),
        damage_table=table(["file", "damage", "named", "the one before used", "went on to the same end"],
                           found["faults"]["damages"]),
        inputs=arguments.inputs, memory=fuzz_readers.GIBIBYTES, seconds=fuzz_readers.SECONDS,
        fuzz_table=table(["reader", "what it does", "inputs", "read", "refused", "failures", "slowest, ms",
                          "peak memory, MiB"], [
            [r["reader"], _does(r["reader"]), f"{r['inputs']:,}", f"{r['read']:,}", f"{r['refused']:,}",
             "; ".join(r["failures"]) or "none", f"{1000 * r['slowest']:.0f}", r["peak"]] for r in of["fuzz"]]),
        images=arguments.images, epochs=arguments.epochs, **summed(of["cost"]),
    )


if __name__ == "__main__":
    main()
