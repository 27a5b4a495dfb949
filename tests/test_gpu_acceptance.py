"""The GPU acceptance run, on CuPy and with NumPy in the GPU's place; and canaries: what must fail it, does."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import _gpu_job  # noqa: E402
import gpu_acceptance  # noqa: E402
from _gpu_report import problems, times  # noqa: E402
from _gpu_section import EMULATION, AbsentError, Section, execute  # noqa: E402

from xpnet.backend import Device  # noqa: E402

CPU_SECTIONS = ["environment", "layers", "trajectories", "determinism"]


def command_of(out: Path, *arguments: str) -> list[str]:
    """Return the command line."""
    return [sys.executable, str(ROOT / "benchmarks" / "gpu_acceptance.py"), "--out", str(out), *arguments]


def run(out: Path, *arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command with NumPy; ``path`` may hold a ``sitecustomize.py`` that plants a mistake."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, filter(None, (path, ROOT))))}
    return subprocess.run(command_of(out, "--cpu", *arguments), capture_output=True, text=True, env=environment,
                          check=False, timeout=300)


# On CuPy ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole_run(device: Device, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str, dict[str, Any]]:
    """Run every section at small sizes on this machine's CuPy; return the exit code, the output and the report."""
    out = tmp_path_factory.mktemp("acceptance") / "report.json"
    done = subprocess.run(command_of(out, "--budget-scale", "0.1"), capture_output=True, text=True, check=False,
                          cwd=out.parent, timeout=1800)
    return done.returncode, done.stdout + done.stderr, json.loads(out.read_text("utf-8"))


@pytest.mark.backends("cupy")
def test_every_section_of_xpnet_passes_on_cupy(whole_run: tuple[int, str, dict[str, Any]]) -> None:
    code, output, report = whole_run
    assert (code, report["passed"], problems(report)) == (0, True, []), output
    assert list(report["sections"]) == [plan.name for plan in gpu_acceptance.SECTIONS]
    for plan in gpu_acceptance.SECTIONS:
        section = report["sections"][plan.name]
        if not plan.peer:
            assert section["status"] == "passed", plan.name
            assert len(section["checks"]) >= 2, plan.name


@pytest.mark.backends("cupy")
def test_the_emulation_is_named_and_never_timed(whole_run: tuple[int, str, dict[str, Any]]) -> None:
    _, output, report = whole_run
    if report["device"] != EMULATION:
        pytest.skip(f"on {report['device']}, not on the emulation")
    found = dict(times(report))
    assert found.keys() >= {"/seconds", "/sections/layers/seconds", "/sections/models.xpnet/results/4 models, fused/"
                            "model_steps_per_second",
                            "/sections/step_time.xpnet/results/9 layers, persistent/us_per_step_device"}
    assert {*found.values()} == {None}
    assert " us per step" not in output + json.dumps(report)
    for plan in gpu_acceptance.SECTIONS:
        section = report["sections"][plan.name]
        if plan.peer:
            assert section["status"] == "absent"
            assert section["reason"].endswith("needs a GPU: the CPU emulation is CuPy's alone")
        elif plan.name not in ("environment", "layers"):
            assert section["shortened"], plan.name


# With NumPy -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_sections_that_need_no_gpu_pass_with_numpy(tmp_path: Path) -> None:
    done = run(tmp_path / "report.json", "--budget-scale", "0.1")
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert (done.returncode, report["passed"]) == (0, True), done.stdout + done.stderr
    assert list(report["sections"]) == CPU_SECTIONS
    for name, section in report["sections"].items():
        assert section["status"] == "passed", name
        assert len(section["checks"]) >= 2, name
    assert "20 updates" in report["sections"]["trajectories"]["shortened"][0]
    assert len(report["sections"]["layers"]["results"]["comparisons"]) > 150
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_a_mistake_in_the_library_gives_a_non_zero_exit_code(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import numpy\nimport xpnet.random\n"
        "xpnet.random.permutation = lambda seed, epoch, n: numpy.random.default_rng().permutation(n)\n", "utf-8")
    done = run(tmp_path / "report.json", "--only", "determinism", "--budget-scale", "0.1", path=tmp_path)
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert (done.returncode, report["passed"]) == (1, False), done.stdout + done.stderr
    section = report["sections"]["determinism"]
    assert section["status"] == "failed"
    assert "bit for bit" in section["reason"]
    assert report["sections"]["environment"]["status"] == "passed"


# Sections ---------------------------------------------------------------------------------------------------------


def section_of(function: Any, tmp_path: Path, **options: Any) -> dict[str, Any]:
    """Run a section here, and give what is on disk afterwards."""
    path = tmp_path / "section.json"
    execute(function, Section("test", 10.0, path), **options)
    return json.loads(path.read_text("utf-8"))


@pytest.mark.parametrize(("value", "status"), [
    (1.0, "passed"), (1.1, "failed"), (float("nan"), "failed"), (float("inf"), "failed"),
])
def test_a_check_passes_up_to_its_limit(value: float, status: str, tmp_path: Path) -> None:
    record = section_of(lambda section: section.check("value", value, 1.0), tmp_path)
    assert record["status"] == status


def test_what_raises_fails_and_keeps_what_it_found_before(tmp_path: Path) -> None:
    def function(section: Section) -> None:
        section.expect("first", True)
        section.result("number", np.float32(2.5))
        raise RuntimeError("planted")

    record = section_of(function, tmp_path)
    assert record["status"] == "failed"
    assert "planted" in record["reason"]
    assert "in function" in record["traceback"]
    assert record["checks"] == [{"name": "first", "passed": True}]
    assert record["results"] == {"number": 2.5}
    assert section_of(function, tmp_path, peer=True)["status"] == "broken"


def test_a_section_without_checks_fails(tmp_path: Path) -> None:
    assert section_of(lambda section: None, tmp_path)["reason"] == "it checked nothing"


def test_a_peer_may_be_absent_but_not_do_another_job(tmp_path: Path) -> None:
    def absent(section: Section) -> None:
        raise AbsentError("not installed")

    def another_job(section: Section) -> None:
        _gpu_job.same_job(section, "peer", np.full(20, 2.31), np.full(20, 2.30))
        raise RuntimeError("and it broke")

    assert section_of(absent, tmp_path, peer=True)["status"] == "absent"
    assert section_of(another_job, tmp_path, peer=True)["status"] == "failed"


def test_a_section_that_hangs_is_stopped() -> None:
    plan = next(plan for plan in gpu_acceptance.SECTIONS if plan.name == "determinism")
    record = gpu_acceptance.run_child(plan, "cpu", 20.0, 0.05, gpu_acceptance.Running())
    assert (record["status"], "stopped after" in record["reason"]) == ("failed", True)
    record = gpu_acceptance.run_child(dataclasses.replace(plan, peer=True), "cpu", 20.0, 0.05, gpu_acceptance.Running())
    assert record["status"] == "broken"


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_a_run_that_is_stopped_keeps_what_it_found(tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command_of(out, "--cpu"), stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("environment")
        while '"passed",' not in out.read_text("utf-8") if out.exists() else True:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 1
    report = json.loads(out.read_text("utf-8"))
    assert problems(report) == []
    statuses = [section["status"] for section in report["sections"].values()]
    assert statuses in (["passed", one, "not run", "not run"] for one in ("failed", "not run"))  # begun, or not yet
    reasons = {section["reason"] for name, section in report["sections"].items() if name != "environment"}
    assert reasons == {"the run was stopped by SIGTERM"}


@pytest.mark.parametrize(("statuses", "code"), [
    ({}, 0), ({"step_time.jax_scan": "absent", "step_time.torch_graph": "broken"}, 0), ({"memory": "failed"}, 1),
    ({"step_time.jax_scan": "failed"}, 1),
])
def test_the_exit_code(
    statuses: dict[str, str], code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def child(plan: gpu_acceptance.Plan, *_: Any, **__: Any) -> dict[str, Any]:
        status = statuses.get(plan.name, "passed")
        return {"status": status, "checks": [{"name": "a check", "passed": status != "failed"}], "reason": "planted",
                "results": {"device_name": "A GPU, 1"}}

    monkeypatch.setattr(gpu_acceptance, "run_child", child)
    monkeypatch.setattr(gpu_acceptance, "HERE", tmp_path)
    assert gpu_acceptance.main([]) == code
    (path,) = (tmp_path / "results").iterdir()
    assert path.name.endswith("-a-gpu-1.json")
    report = json.loads(path.read_text("utf-8"))
    assert (report["passed"], report["device"], report["asked"]) == (code == 0, "A GPU, 1", "cuda")
    assert len(report["sections"]) == len(gpu_acceptance.SECTIONS)
    assert problems(report) == []


def test_without_the_device_nothing_else_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def child(plan: gpu_acceptance.Plan, *_: Any, **__: Any) -> dict[str, Any]:
        asked.append(plan.name)
        return {"status": "failed", "reason": "no driver", "checks": [], "results": {}}

    monkeypatch.setattr(gpu_acceptance, "run_child", child)
    assert gpu_acceptance.main(["--out", str(tmp_path / "report.json")]) == 2
    assert asked == ["environment"]
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert report["passed"] is False
    assert {section["status"] for section in report["sections"].values()} == {"failed", "not run"}


def test_sections_are_chosen_by_name() -> None:
    assert [plan.name for plan in gpu_acceptance.chosen("models,host", False)] == [
        "environment", "host", "models.xpnet", "models.jax_vmap"]
    assert [plan.name for plan in gpu_acceptance.chosen(None, True)] == CPU_SECTIONS
    with pytest.raises(ValueError, match="no section 'host' without a GPU"):
        gpu_acceptance.chosen("host", True)


def test_the_budgets_leave_nobody_out() -> None:
    assert sum(plan.budget for plan in gpu_acceptance.SECTIONS) <= gpu_acceptance.LIMIT < 540.0
    peers = [plan.peer for plan in gpu_acceptance.SECTIONS]
    assert peers == sorted(peers)  # xpnet's own come first


def a_report(device: str = "A GPU") -> dict[str, Any]:
    """Return a valid report of two sections."""
    return {
        "benchmark": "gpu_acceptance", "format": 2, "device": device, "asked": "cuda", "passed": True,
        "budget_scale": 1.0, "started": "2024-01-01T00:00:00+00:00", "seconds": None, "sections": {
            "one": {"status": "passed", "seconds": None, "checks": [
                {"name": "a", "passed": True, "value": 1.0, "limit": 1.0}, {"name": "b", "passed": True}]},
            "two": {"status": "absent", "reason": "not installed"}}}


@pytest.mark.parametrize(("change", "words"), [
    (lambda r: r.pop("device"), "device is missing"),
    (lambda r: r.update(format=1), "format is not 2"),
    (lambda r: r.update(passed=False), "the sections say True"),
    (lambda r: r["sections"]["one"].update(status="fine"), "unknown status 'fine'"),
    (lambda r: r["sections"]["one"].update(checks=[]), "passed without checks"),
    (lambda r: r["sections"]["one"]["checks"][0].update(value=1.1), "'a' says passed, its value is above"),
    (lambda r: r["sections"]["one"]["checks"][0].update(value="nan"), "its value is above the limit"),
    (lambda r: r["sections"]["two"].update(checks=[{"name": "c", "passed": False}]), "absent with a failed check"),
    (lambda r: r["sections"]["two"].pop("reason"), "absent without a reason"),
    (lambda r: r.update(seconds=2.0), "/seconds: 2.0 was measured on the CPU emulation"),
    (lambda r: r["sections"]["one"].update(results={"x": [{"us_per_step_wall_range": [1.0, 2.0]}]}),
     "/sections/one/results/x/0/us_per_step_wall_range"),
])
def test_a_report_that_contradicts_itself_is_not_valid(change: Callable[[Any], Any], words: str) -> None:
    report = a_report(EMULATION)
    assert problems(report) == []
    change(report)
    assert words in "; ".join(problems(report))


def test_a_gpu_may_be_timed() -> None:
    report = a_report()
    report["seconds"] = report["sections"]["one"]["seconds"] = 2.0
    assert problems(report) == []
