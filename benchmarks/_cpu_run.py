"""Processes that hold one implementation each, are checked, and then measure in turn."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from _cpu_job import COMPARED, Data, Job, faults
from _cpu_numpy import reference
from environments import ROOT, described, interpreter

HERE = Path(__file__).resolve().parent
PAUSE = 0.3  # seconds between two measurements: OpenBLAS' threads spin for 0.1 s after their work, then sleep
#: Prefixes of variables that choose kernels or numbers of threads: no measured process has any.
TUNING = ("OPENBLAS", "GOTO", "OMP_", "GOMP_", "KMP_", "MKL_", "BLIS_", "NUMEXPR", "XLA_", "JAX_", "TORCH", "KERAS",
          "VECLIB", "MALLOC_", "LD_PRELOAD", "PYTHON")


@dataclass(frozen=True)
class Peer:
    """An implementation: its name in the tables, its environment, ``module:class`` of the adapter, and its options."""

    name: str
    group: str
    target: str
    options: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, str] = field(default_factory=dict)  # environment variables
    batch_norm: bool = True  # whether it has it
    library: str = ""  # what a user installs and imports, by its name in ``environments.GROUPS``
    limit: bool = False  # no peer, but what all of them are compared with


def clean(extra: dict[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a measured process: a user's, without what tunes libraries."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(TUNING)}
    return kept | (extra or {})


class WorkerError(RuntimeError):
    """A measured process failed, or did not answer in time."""


class Worker:
    """A process that holds one implementation (see ``_cpu_worker``)."""

    def __init__(self, peer: Peer, python: str | Path, log: Path) -> None:
        command = [str(python), str(HERE / "_cpu_worker.py"), peer.target, json.dumps(peer.options)]
        self.peer, self.log = peer, log
        own = {"TORCHINDUCTOR_CACHE_DIR": str(log.with_suffix(".inductor"))}  # nothing is compiled already
        with log.open("wb") as errors:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                                            text=True, env=clean(own | peer.extra))

    def ask(self, do: str, seconds: float = 1200.0, **arguments: Any) -> dict[str, Any]:
        """Send a request and wait for the answer.

        Raises
        ------
        WorkerError
            If the process answers with an error, ends, or takes longer than ``seconds``.
        """
        stdin, stdout = self.process.stdin, self.process.stdout
        if stdin is None or stdout is None:
            raise WorkerError("the process has no pipes")
        try:
            stdin.write(json.dumps({"do": do} | arguments) + "\n")
            stdin.flush()
            ready = select.select([stdout], [], [], seconds)[0]
        except OSError:
            ready = [stdout]
        line = stdout.readline() if ready else ""
        answer: dict[str, Any] = json.loads(line) if line else {"error": "no answer" if ready else "it took too long"}
        if "error" in answer:
            tail = self.log.read_text("utf-8", errors="replace")[-2000:]
            raise WorkerError(f"{self.peer.name}: {answer['error']}" + ("" if line else f"\n{tail}"))
        return answer

    def cpu(self) -> float:
        """Return the processor seconds that the process and its children have used, or 0 where nothing tells."""
        return _used(self.process.pid)

    def close(self) -> None:
        """End the process."""
        if self.process.stdin:
            with contextlib.suppress(OSError):  # it has ended
                self.process.stdin.close()
        try:
            self.process.wait(10.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


def _used(pid: int) -> float:
    place = Path(f"/proc/{pid}")
    try:
        numbers = (place / "stat").read_text("ascii").rpartition(")")[2].split()
        children = [child for task in (place / "task").glob("*/children") for child in task.read_text("ascii").split()]
    except OSError:
        return 0.0
    return (int(numbers[11]) + int(numbers[12])) / os.sysconf("SC_CLK_TCK") + sum(_used(int(c)) for c in children)


def busy() -> float:
    """Return the processor seconds that everybody on the machine has used, or 0 where nothing tells."""
    try:
        user, nice, system, _, _, *others = map(int, Path("/proc/stat").read_text("ascii").split("\n")[0].split()[1:9])
    except OSError:
        return 0.0
    return (user + nice + system + sum(others)) / os.sysconf("SC_CLK_TCK")


def check(job: Job, data: Data, answer: dict[str, Any], found: Path, cache: dict[Any, Any]) -> dict[str, Any]:
    """Compare an implementation's first updates with the reference's; of a sweep, those of four members."""
    if not answer["arrays"]:
        return {"passed": True, "wrong": [], "note": "nothing to check"}
    if answer.get("constant"):
        job = dataclasses.replace(job, lowest=job.rate(COMPARED // 2), highest=job.rate(COMPARED // 2))
    with np.load(found) as file:
        arrays = dict(file)
    losses, count = arrays.pop("losses", None), len(job.penalties)
    record: dict[str, Any] = {"passed": True, "wrong": [], "array": 0.0, "loss": 0.0}
    for m in sorted({0, count // 3, 2 * count // 3, count - 1}):
        one = dataclasses.replace(job, l2=job.penalties[m])
        if one not in cache:
            cache[one] = reference(one, data)
        golden, plain, costs = cache[one]
        got = {name: a[m] for name, a in arrays.items() if a.ndim and len(a) == count} if job.models else arrays
        own = losses[:, m] if losses is not None and job.models else losses
        wrong, worst = faults(got, own, golden, costs if answer["cost"] else plain, one.start())
        record["wrong"] += [f"model {m}: {w}" if job.models else w for w in wrong]
        record |= {name: max(record[name], value) for name, value in worst.items()}
    record["passed"] = not record["wrong"]
    return record


class Session:
    """The data on disk for the processes, and the references; a context that cleans up."""

    def __init__(self, data: Data, python: Any) -> None:
        self.python, self.cache = python, dict[Any, Any]()
        self.room = tempfile.TemporaryDirectory(prefix="xpnet-benchmark-")
        self.place = Path(self.room.name)
        data.save(self.place)
        self.data = data

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *error: object) -> None:
        self.room.cleanup()

    def open(self, peer: Peer, job: Job) -> tuple[Worker | None, dict[str, Any]]:
        """Start an implementation and check it; None in place of one that fails, with what it did wrong."""
        worker = Worker(peer, self.python(peer.group), self.place / f"{len(os.listdir(self.place))}.log")
        out = self.place / "arrays.npz"
        try:
            answer = worker.ask("start", job=dataclasses.asdict(job), place=str(self.place), steps=COMPARED,
                                out=str(out))
            record = {"first_seconds": answer["seconds"], "check": check(job, self.data, answer, out, self.cache)}
        except WorkerError as error:
            record = {"check": {"passed": False, "wrong": [str(error)]}}
        out.unlink(missing_ok=True)
        if record["check"]["passed"]:
            return worker, record
        print(f"  {peer.name} FAILS the check: {'; '.join(record['check']['wrong'])}"[:3000], flush=True)
        worker.close()
        return None, record

    def measure(self, peers: Sequence[Peer], job: Job, rounds: int, steps: int, seconds: float = float("inf"),
                further: Iterable[str] = ()) -> dict[str, dict[str, Any]]:
        """Check every implementation, and time those that pass in turn, round by round; one measures, others wait.

        Parameters
        ----------
        peers : sequence of Peer
            Who.
        job : Job
            What.
        rounds : int
            How often; one round more comes first and does not count.
        steps, seconds : int, float
            Updates per measurement, or as many as fill so many seconds, if they are fewer.
        further : iterable of str
            What else to ask in the end, of those that know it.

        Returns
        -------
        dict
            By name: ``check``, ``first_seconds``, ``rounds`` (microseconds per update), ``steps``, ``memory`` (bytes),
            ``waiting`` and ``strangers``: the processors that the waiting ones, and everybody else on the machine,
            used meanwhile, round by round.
        """
        found, workers = dict[str, dict[str, Any]](), dict[str, Worker]()
        try:
            for peer in peers:
                worker, found[peer.name] = self.open(peer, job)
                if worker:
                    workers[peer.name] = worker
            amount = dict.fromkeys(workers, steps)
            for turn in range(rounds + 1):
                names = list(workers)
                for name in names[turn % max(len(names), 1) :] + names[: turn % max(len(names), 1)]:
                    self._turn(workers, found, name, amount, turn, seconds)
            for name, worker in workers.items():
                for what in ("memory", *further):
                    found[name] |= worker.ask("tell", what=what)
        finally:
            for worker in workers.values():
                worker.close()
        return found

    def _turn(self, workers: dict[str, Worker], found: dict[str, dict[str, Any]], name: str, amount: dict[str, int],
              turn: int, seconds: float) -> None:
        """Take one measurement."""
        time.sleep(PAUSE)
        others = [worker for other, worker in workers.items() if other != name]
        waited, own, whole, began = sum(w.cpu() for w in others), workers[name].cpu(), busy(), time.perf_counter()
        try:
            if turn == 0 and seconds < float("inf"):
                quick = workers[name].ask("time", warm=2, steps=2)
                amount[name] = int(min(amount[name], max(4, 1e6 * seconds / quick["us"])))
            answer = workers[name].ask("time", warm=min(50, amount[name] // 4 + 1), steps=amount[name])
        except WorkerError as error:
            found[name]["check"] = {"passed": False, "wrong": [str(error)]}
            workers.pop(name).close()
            return
        seconds_passed = time.perf_counter() - began
        waited, own, whole = sum(w.cpu() for w in others) - waited, workers[name].cpu() - own, busy() - whole
        if turn:
            record = found[name]
            record["steps"] = answer["steps"]
            for what, value in (("rounds", answer["us"]), ("waiting", waited / seconds_passed),
                                ("strangers", max(0.0, whole - waited - own) / seconds_passed)):
                record.setdefault(what, []).append(value)


def environment_python(envs: Path) -> Any:
    """Return the function from a group's name to its Python, once it is there."""
    def find(group: str) -> Path:
        described(envs, group)
        return interpreter(envs / group)

    return find


def load_data(data: str | None) -> tuple[Data, np.ndarray, np.ndarray, str]:
    """Return 45,000 training images, the test split, and the name of the data: CIFAR-10 from ``data``, or synthetic."""
    sys.path.insert(0, str(ROOT))
    from xpnet import datasets

    found = datasets.load(data, train=45_000) if data else datasets.synthetic(train=45_000)
    return Data.of(*found.train), found.test.x, found.test.y, found.name
