"""Sweeps in processes and by executors: what cannot be sent, who is killed, and what is left then."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import _sweep_job
import pytest
from sweeping import data, make, same

from xpnet import Network, sweep
from xpnet.sweeps import workers as executors
from xpnet.sweeps.workers import Shared, places

JOB = Path(_sweep_job.__file__)
FILES = ("table.json", "table.csv", "members.csv", "curves.json")
pytestmark = pytest.mark.backends("numpy")




# What they are told -----------------------------------------------------------------------------------------------


class Inline(Executor):
    """Trains where it is, and tells nothing of itself."""

    def submit(self, function: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments, **options))
        except Exception as error:
            future.set_exception(error)
        return future


class Client:
    """What a Dask client tells of its cluster."""

    def get_executor(self) -> Executor:
        return Inline()

    def nthreads(self) -> dict[str, int]:
        return {"a": 2, "b": 3}


def test_blocks_are_as_many_as_an_executor_trains_at_a_time() -> None:
    with ThreadPoolExecutor(3) as pool:
        assert places(pool, 1) == 3
        assert places(pool, 2) == 2
    assert [places(None, 2), places(Inline(), 1), places(Inline(), 4), places(Client(), 1)] == [2, 1, 4, 5]


def test_any_executor_will_do_and_nothing_is_left_of_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    whole = sweep(make, {"seed": range(4)}, **data(), steps=10)
    for _ in range(2):
        found = sweep(make, {"seed": range(4)}, **data(), steps=10, halve_at=[5], executor=Inline(), block_size=2)
        for m, history in enumerate(found.histories):
            same(history.batch_loss, whole.histories[m].batch_loss[: len(history.batch_loss)], 1e-10)
        assert len(Shared._opened) == 1
        assert not list(tmp_path.iterdir())


def test_where_nothing_is_missing_nothing_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sweep(make, {"seed": range(2)}, **data(), steps=5, directory=tmp_path)
    monkeypatch.setattr(executors, "Shared", None)
    monkeypatch.setattr(executors, "ProcessPoolExecutor", None)
    assert sweep(make, {"seed": range(2)}, **data(), steps=5, directory=tmp_path, workers=2).table() == whole.table()


def test_data_that_find_no_room_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError("1000000 requested and 4096 written")  # as NumPy says it

    monkeypatch.setattr(executors.np, "save", full)
    with pytest.raises(OSError, match=r"1000000 requested .*: it takes [0-9,]+ bytes; set TMPDIR to a directory"):
        sweep(make, {"seed": range(2)}, **data(), steps=5, executor=Inline())


def test_a_worker_that_does_not_see_the_files_says_what_to_do(tmp_path: Path) -> None:
    shared = Shared.__new__(Shared)
    shared.folder, shared.validated = str(tmp_path / "elsewhere"), False
    with pytest.raises(FileNotFoundError, match="give the Dask client itself"):
        shared.open()


def test_an_executor_that_breaks_is_named() -> None:
    class Broken(Inline):
        def submit(self, function: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_exception(BrokenProcessPool("gone"))
            return future

    with pytest.raises(BrokenProcessPool, match="workers ended before their blocks were done, 1 time") as caught:
        sweep(make, {"seed": range(2)}, **data(), steps=5, executor=Broken())
    assert isinstance(caught.value, ChildProcessError)


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from sweeping import data, make
from xpnet import Trainer, mlp, sweep
def rate(step): return 0.1
def one(seed): return Trainer(mlp(6, [4], 3), schedule={schedule}, seed=seed)
{guard}sweep(one, {{"seed": [0, 1]}}, **data(), steps=5, workers=2)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("schedule", "guard", "from_file", "words"), [
    ("0.1", "", True, "a worker could not start; .*under if __name__ == '__main__':, from a file"),
    ("rate", "", False, "a worker could not start; .*What a notebook defines, a worker does not find"),
    ("lambda step: 0.1", "if __name__ == '__main__': ", True, "cannot be sent to workers .*at the top of a module"),
], ids=["no guard", "defined at a prompt", "a lambda"])
def test_what_workers_cannot_do_is_said_once(
    tmp_path: Path, schedule: str, guard: str, from_file: bool, words: str
) -> None:
    text = SCRIPT.format(tests=str(JOB.parent), schedule=schedule, guard=guard)
    (tmp_path / "script.py").write_text(text, encoding="utf-8")
    command = [str(tmp_path / "script.py")] if from_file else ["-c", text]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert re.search(words, done.stderr.strip().splitlines()[-1])
    assert done.stderr.count("Process SpawnProcess") <= 1


@pytest.mark.slow
def test_workers_leave_ctrl_c_to_their_parent(tmp_path: Path) -> None:
    with ProcessPoolExecutor(1, get_context("spawn"), executors._begin_worker, (str(tmp_path),)) as pool:
        assert pool.submit(signal.getsignal, signal.SIGINT).result() == signal.SIG_IGN


# Killed -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    _sweep_job.run(str(folder))
    return folder


def same_files(a: Path, b: Path) -> None:
    for name in FILES:
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    left, right = (Network.load(folder / "best.safetensors").arrays for folder in (a, b))
    assert all(left[name].tolist() == right[name].tolist() for name in left)


def blocks(folder: Path) -> int:
    return len(list((folder / "blocks").glob("*.safetensors")))


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def start(folder: Path) -> subprocess.Popen[str]:
    """Start the job in a group of its own, as a shell does, with a place for temporary files."""
    folder.with_name("tmp").mkdir(exist_ok=True)
    # A shell's background jobs ignore Ctrl-C, and so do those that they start.
    return subprocess.Popen([sys.executable, str(JOB), str(folder), "2"], stderr=subprocess.PIPE, text=True,
                            start_new_session=True, env={**os.environ, "TMPDIR": str(folder.with_name("tmp"))},
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)  # noqa: S607
    return [int(line) for line in found.stdout.split()]


@pytest.mark.slow
def test_the_comparison_of_files_can_fail(undisturbed: Path, tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / name).write_bytes((undisturbed / name).read_bytes() + b" " * (name == FILES[-1]))
    with pytest.raises(AssertionError, match=r"curves\.json"):
        same_files(undisturbed, tmp_path)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced(undisturbed: Path, tmp_path: Path) -> None:
    killed = []

    def kill() -> None:
        wait_for(lambda: blocks(tmp_path) >= 1)
        victim = multiprocessing.active_children()[0]
        killed.append(victim.pid)
        os.kill(victim.pid or 0, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    _sweep_job.run(str(tmp_path), workers=2)
    thread.join()
    assert len(killed) == 1
    same_files(undisturbed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_a_coordinator_that_is_stopped_costs_what_is_in_flight(undisturbed: Path, tmp_path: Path, sign: int) -> None:
    tmp_path = tmp_path / "out"
    coordinator = start(tmp_path)
    wait_for(lambda: blocks(tmp_path) >= 2)
    os.killpg(coordinator.pid, signal.SIGSTOP)  # a busy machine may take longer to list them than they for the rest
    workers = children(coordinator.pid)
    assert len(workers) >= 2
    if sign == signal.SIGINT:
        os.killpg(coordinator.pid, sign)  # a terminal sends it to the workers too
    else:
        coordinator.send_signal(sign)
    os.killpg(coordinator.pid, signal.SIGCONT)
    _, said = coordinator.communicate(timeout=60)
    assert coordinator.returncode
    if sign == signal.SIGINT:
        assert "the same command goes on from there" in said.splitlines()[-1]
        assert "SpawnProcess" not in said
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))  # nobody is left behind
    assert not list(tmp_path.with_name("tmp").iterdir())  # and no data
    done = blocks(tmp_path)
    assert 2 <= done < 6
    assert not (tmp_path / "table.json").exists()
    kept = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "blocks").glob("*.safetensors")}
    again = start(tmp_path)
    _, said = again.communicate(timeout=120)
    assert not again.returncode, said
    assert all((tmp_path / "blocks" / name).stat().st_mtime_ns == changed for name, changed in kept.items())
    assert blocks(tmp_path) == 6
    same_files(undisturbed, tmp_path)


@pytest.mark.slow
def test_workers_that_keep_dying_end_the_sweep(tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(
        "import os, sys\n"
        f"sys.path.insert(0, {str(JOB.parent)!r})\n"
        "import _sweep_job, xpnet.training.trainer\n"
        "def die(*a, **k): os._exit(1)\n"
        "if __name__ != '__main__': xpnet.training.trainer.Trainer.fit = die\n"
        "else: _sweep_job.run(sys.argv[1], workers=2)\n",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, str(script), str(tmp_path / "out")], capture_output=True, text=True,
                          timeout=120, check=False)
    assert done.returncode == 1
    assert "WorkersError: workers ended before their blocks were done, 3 time(s) in a row" in done.stderr, done.stderr
