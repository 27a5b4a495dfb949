"""Whether xpnet computes on this GPU what it computes on a CPU, and how fast: one command, offline.

    python benchmarks/gpu_acceptance.py            # on a machine with an NVIDIA GPU, under 9 minutes
    python benchmarks/gpu_acceptance.py --cpu      # the first sections, NumPy in the GPU's place

Every section is a process of its own with a time budget: one that crashes, hangs or runs out of memory takes no
other with it. The report is written anew after each. On the CPU emulation of tests/cpucuda, which it tells by the
device's name, sections are small and no time is recorded. The exit code is 0 if all checks passed, 1 if one failed,
2 if there is no such device. README.md, next to this file, says how to read the report.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # run from a checkout, without installing

from _gpu_report import FORMAT, problems, summary, verdict  # noqa: E402
from _gpu_section import EMULATION, Section, execute, write_json  # noqa: E402

LIMIT = 530.0  # seconds for everything
GRACE = 45.0  # seconds that a section may go over its budget before it is stopped
SMALL = 0.3  # a smaller share of the budgets gives small sections


@dataclass(frozen=True)
class Plan:
    """A section: where its function is, its budget in seconds, whether a CPU will do, whether it is a peer's."""

    name: str
    function: str
    budget: float
    cpu: bool = False
    peer: bool = False


#: xpnet's own first: what is slow here leaves less time to peers. A first run compiles every kernel, most in `layers`.
SECTIONS = (
    Plan("environment", "_gpu_parity.environment", 10, cpu=True),
    Plan("layers", "_gpu_parity.layers", 80, cpu=True),
    Plan("trajectories", "_gpu_runs.trajectories", 60, cpu=True),
    Plan("determinism", "_gpu_runs.determinism", 20, cpu=True),
    Plan("host", "_gpu_device.host", 15),
    Plan("memory", "_gpu_memory.memory", 20),
    Plan("out_of_memory", "_gpu_memory.out_of_memory", 10),
    Plan("step_time.xpnet", "_gpu_job.step_time", 35),
    Plan("models.xpnet", "_gpu_job.many_models", 35),
    Plan("full_runs", "_gpu_runs.full_runs", 90),
    Plan("step_time.torch_eager", "_gpu_torch.torch_eager", 15, peer=True),
    Plan("step_time.torch_graph", "_gpu_torch.torch_graph", 15, peer=True),
    Plan("step_time.jax_scan", "_gpu_jax.jax_scan", 30, peer=True),
    Plan("models.jax_vmap", "_gpu_jax.jax_vmap", 45, peer=True),
    Plan("step_time.torch_compile", "_gpu_torch.torch_compile", 50, peer=True),
)


@dataclass
class Running:
    """The section's process now, and why nothing else is to run, if a signal came."""

    child: subprocess.Popen[bytes] | None = None
    stopped: str = ""


@contextlib.contextmanager
def stoppable() -> Iterator[Running]:
    """Have SIGINT and SIGTERM end the section that runs, so that the report is still written."""
    running = Running()

    def handle(number: int, _: Any) -> None:
        running.stopped = f"the run was stopped by {signal.Signals(number).name}"
        if running.child is not None:
            kill(running.child)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield running
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def kill(child: subprocess.Popen[bytes]) -> None:
    """End a process and what it started, if it still runs."""
    if child.returncode is None:
        if os.name == "posix":
            os.killpg(child.pid, signal.SIGKILL)
        else:
            child.kill()


def run_child(
    plan: Plan, device: str, budget: float, seconds: float, running: Running, *, small: bool = False,
    emulated: bool = False,
) -> dict[str, Any]:
    """Run a section in a process of its own, for at most ``seconds``, and return its record."""
    environment = {"OPENBLAS_NUM_THREADS": "1"} | os.environ | {
        "NVIDIA_TF32_OVERRIDE": "0", "CUPY_TF32": "0",  # float32 means float32, for xpnet and its peers
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false", "PYTHONUNBUFFERED": "1",
    }
    with tempfile.TemporaryDirectory() as folder:
        path, log = Path(folder, "section.json"), Path(folder, "log.txt")
        command = [sys.executable, str(HERE / "gpu_acceptance.py"), "--section", plan.name, "--device", device,
                   "--budget", str(budget), "--started", str(time.time()), "--out", str(path),
                   *["--small"] * small, *["--emulated"] * emulated]
        with log.open("wb") as output:
            child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                     env=environment, start_new_session=os.name == "posix")
            running.child = child
            if running.stopped:  # the signal came while it started
                kill(child)
            try:
                ended = f"the process ended with exit code {child.wait(timeout=seconds)}"
            except subprocess.TimeoutExpired:
                ended = f"stopped after {seconds:.0f} s (its budget is {budget:.0f} s)"
            finally:
                running.child = None
                kill(child)
                child.wait()
        record: dict[str, Any] = {"status": "running", "checks": [], "results": {}}
        if path.exists():
            record = json.loads(path.read_text(encoding="utf-8"))
        if record["status"] == "running":  # it could not say so itself
            record |= {"status": "broken" if plan.peer else "failed", "reason": running.stopped or ended}
            if any(not check["passed"] for check in record["checks"]):
                record["status"] = "failed"
        if record["status"] in ("failed", "broken"):
            record["output"] = log.read_text(encoding="utf-8", errors="replace")[-4000:]
    return record


def chosen(only: str | None, cpu: bool) -> list[Plan]:
    """Return the sections to run; the environment always is one.

    Raises
    ------
    ValueError
        If ``only`` names a section that there is not, or one that needs a GPU with ``cpu``.
    """
    possible = [plan for plan in SECTIONS if plan.cpu or not cpu]
    if only is None:
        return possible
    names = [name.strip() for name in only.split(",") if name.strip()]
    for name in names:
        if not any(plan.name == name or plan.name.startswith(f"{name}.") for plan in possible):
            raise ValueError(f"--only: no section {name!r}{' without a GPU' if cpu else ''}; there are "
                             f"{', '.join(plan.name for plan in possible)}")
    return [plan for plan in possible if plan.name == "environment"
            or any(plan.name == name or plan.name.startswith(f"{name}.") for name in names)]


def default_path(device: str) -> Path:
    """Return the report's place: date and device."""
    slug = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-") or "unknown"
    return HERE / "results" / f"{datetime.date.today().isoformat()}-{slug}.json"


def accept(plans: Sequence[Plan], device: str, out: Path | None, scale: float, running: Running) -> int:
    """Run the sections, write the report after each, and return the exit code."""
    began = time.time()
    sections: dict[str, dict[str, Any]] = {
        plan.name: {"status": "not run", "reason": "the run ended before it"} for plan in plans}
    report: dict[str, Any] = {
        "benchmark": "gpu_acceptance", "format": FORMAT, "device": None, "asked": device, "passed": None,
        "budget_scale": scale, "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": None, "sections": sections,
    }
    for number, plan in enumerate(plans):
        emulated = report["device"] == EMULATION
        budget = plan.budget * scale
        # The emulation compiles its kernels and shares its processor: there, time is limited as a whole only.
        left = LIMIT * max(1.0, scale) * (4.0 if emulated else 1.0) - (time.time() - began)
        if running.stopped:
            sections[plan.name]["reason"] = running.stopped
        elif number and report["device"] is None:
            sections[plan.name]["reason"] = "there is no such device"
        elif left < 15.0:
            sections[plan.name] = {"status": "absent" if plan.peer else "not run",
                                   "reason": "the time for everything was used up"}
        else:
            record = sections[plan.name] = run_child(
                plan, device, min(budget, left), left if emulated else min(budget + GRACE, left), running,
                small=emulated or scale < SMALL, emulated=emulated)
            if plan.name == "environment":
                report["device"] = record["results"].get("device_name")
                out = out or default_path(report["device"] or "no device")
            report["seconds"] = None if report["device"] == EMULATION else round(time.time() - began, 1)
            seconds = record.get("seconds")
            print(f"{plan.name:24} {record['status']:8} {'' if seconds is None else f'{seconds:.1f} s':>8}  "
                  f"{summary(record)}", flush=True)
        write_json(out or default_path("no device"), report)
    report["passed"] = verdict(report)
    wrong = problems(report)
    report["passed"] = report["passed"] and not wrong
    write_json(out or default_path("no device"), report)
    for problem in wrong:
        print(f"the report is not valid: {problem}")
    if report["device"] is None:
        print(f"nothing else was run; the report is {out}")
        return 2
    failed = [name for name, record in sections.items() if record["status"] in ("failed", "not run")]
    print(f"\n{'FAILED: ' + ', '.join(failed) if failed else 'all checks passed'}; the report is {out}")
    return 0 if report["passed"] else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cpu", action="store_true", help="only the first sections, with NumPy in the GPU's place")
    parser.add_argument("--device", default="cuda", help="cuda (the default) or cuda:N")
    parser.add_argument("--only", metavar="NAME,...", help="only these sections (step_time is all of step_time.*)")
    parser.add_argument("--budget-scale", type=float, default=1.0, metavar="X", help="multiply every time budget")
    parser.add_argument("--out", type=Path, help="the report; by default benchmarks/results/<date>-<device>.json")
    for hidden in ("--small", "--emulated"):
        parser.add_argument(hidden, help=argparse.SUPPRESS, action="store_true")
    for hidden in ("--section", "--budget", "--started"):  # how a section's own process is told what to do
        parser.add_argument(hidden, help=argparse.SUPPRESS, type=str if hidden == "--section" else float)
    options = parser.parse_args(arguments)
    if options.section:
        plan = next(plan for plan in SECTIONS if plan.name == options.section)
        module, _, name = plan.function.rpartition(".")
        section = Section(plan.name, options.budget, options.out, options.started, small=options.small,
                          emulated=options.emulated)

        def function(section: Section) -> None:
            getattr(importlib.import_module(module), name)(section, options.device)

        return execute(function, section, peer=plan.peer)["status"] == "failed"
    if options.budget_scale <= 0:
        parser.error("--budget-scale: expected a number above 0")
    try:
        plans = chosen(options.only, options.cpu)
    except ValueError as error:
        parser.error(str(error))
    with stoppable() as running:
        return accept(plans, "cpu" if options.cpu else options.device, options.out, options.budget_scale, running)


if __name__ == "__main__":
    raise SystemExit(main())
