"""Real trainings that are killed at random moments and gone on with: for a test and for docs/robustness.md."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from xpnet import Network, datasets
from xpnet.training.checkpoints import steps_in

#: Trainings that differ in what their state is.
JOBS = {
    "momentum, batch norm": ["--hidden", "20,10", "--batch-norm", "--momentum", "0.9", "--lr", "0.01"],
    "Adam, dropout": ["--hidden", "20", "--dropout", "0.2", "--optimizer", "adam", "--lr", "1e-3"],
    "plain descent": ["--hidden", "30,20", "--l2", "0.005", "--lr", "0.05"],
    "AdamW, batch norm, dropout, float64": [
        "--hidden", "20,10", "--batch-norm", "--dropout", "0.1", "--optimizer", "adamw", "--lr", "1e-3",
        "--schedule", "cosine", "--dtype", "float64"],
}
#: Sweeps of two blocks: the same command goes on with them.
SWEEPS = {"a sweep of 4 networks": ["--hidden", "20,10", "--batch-norm", "--momentum", "0.9", "--lr", "0.01", "--l2",
                                    "1e-4,1e-2", "--seed", "0:2", "--block-size", "2"]}
IMAGES = 600


class Storm(NamedTuple):
    """What came of killing a training.

    Attributes
    ----------
    job : str
        Which training.
    kills : int
        How often it was killed.
    moments : Counter
        What it was at, as far as its directory tells.
    problems : list of str
        What went wrong: an exit code, a damaged checkpoint, a difference.
    """

    job: str
    kills: int
    moments: Counter[str]
    problems: list[str]


def command(job: str, steps: int, run: Path, *, resume: bool) -> list[str]:
    """Return the command that begins a training, or goes on with it."""
    xpnet = [sys.executable, "-m", "xpnet"]
    if resume and job in JOBS:
        return [*xpnet, "train", "--resume", str(run), "--json"]
    return [
        *xpnet, "train" if job in JOBS else "sweep", "--data", "synthetic", "--images", str(IMAGES), "--batch-size",
        "50", "--steps", str(steps), "--evaluate-every", "7", *{**JOBS, **SWEEPS}[job], "--out", str(run), "--json",
    ]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    """Start a training, with one thread of BLAS."""
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "MPLBACKEND": "agg"})


def outcome(run: Path) -> dict[str, str]:
    """Return hashes of everything that a training leaves: weights, history, optimiser, predictions."""
    if (run / "sweep.json").exists():
        files = {"weights": run / "best.safetensors", "history": run / "curves.json", "members": run / "members.csv",
                 **{f"block {path.name}": path for path in (run / "blocks").iterdir()}}
    else:
        final = run / "checkpoints" / f"step-{max(steps_in(run)):08d}"
        files = {"weights": run / "network.safetensors", "history": run / "history.jsonl",
                 "state": final / "arrays.safetensors"}
    found = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    images = datasets.load("synthetic", train=IMAGES).test.x
    predictions: Any = Network.load(files["weights"]).predict_proba(images)
    return found | {"predictions": hashlib.sha256(predictions.tobytes()).hexdigest()}


def storm(job: str, steps: int, kills: int, folder: Path, seed: int, longest: float = 2.0) -> Storm:
    """Train undisturbed, and train again killed at random moments up to ``kills`` times, and compare."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    calm, run, chance = folder / "calm", folder / "run", np.random.default_rng(seed)
    _, said = (process := start(command(job, steps, calm, resume=False))).communicate()
    if process.returncode:
        return Storm(job, 0, Counter(), [f"the undisturbed training failed: {said}"])
    result = Storm(job, 0, Counter(), [])
    while True:
        begun = (run / "config.json").exists()
        process = start(command(job, steps, run, resume=begun))
        if result.kills < kills:
            anywhere = chance.random() < 0.2  # else after it has begun: starting takes long on a busy machine
            while not anywhere and process.poll() is None and not _holds(run, process.pid):
                time.sleep(0.01)
            time.sleep(chance.uniform(0.0, longest))
            process.kill()
        _, said = process.communicate()
        if process.returncode == 0:
            break
        if process.returncode != -9:
            return result._replace(problems=[*result.problems, f"exit code {process.returncode}: {said}"])
        result = result._replace(kills=result.kills + 1)
        result.moments[_moment(run, process.pid)] += 1
        if "damaged" in said:
            result.problems.append(said)
    expected, found = outcome(calm), outcome(run)
    result.problems.extend(f"{name} differ" for name in {**expected, **found} if found.get(name) != expected.get(name))
    return result


def _moment(run: Path, pid: int) -> str:
    """Tell from what a killed training left what it was at."""
    names = [path.name for path in run.rglob("*")]
    if "checkpoints" not in names:
        return "before the first checkpoint"
    temporary = [name for name in names if name.startswith(".") and name.endswith(str(pid))]
    if temporary:
        return "writing a checkpoint" if temporary[0].startswith(".step") else "writing another file"
    return "training, evaluating or ending" if _holds(run, pid) else "starting or reading"


def _holds(run: Path, pid: int) -> bool:
    """Tell whether a process has begun to write to a run."""
    return (run / "lock").exists() and f'"pid": {pid},' in (run / "lock").read_text("utf-8")
