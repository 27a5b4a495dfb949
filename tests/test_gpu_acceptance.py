"""The GPU acceptance run, with NumPy in the GPU's place; and canaries: what must fail it, does."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import _gpu_device  # noqa: E402
import _gpu_job  # noqa: E402
import _gpu_parity  # noqa: E402
import _gpu_runs  # noqa: E402
import gpu_acceptance  # noqa: E402
from _gpu_section import AbsentError, Section, execute  # noqa: E402

CPU_SECTIONS = ["environment", "layers", "trajectories", "determinism"]


def run(out: Path, *arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command with NumPy; ``path`` may hold a ``sitecustomize.py`` that plants a mistake."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, filter(None, (path, ROOT))))}
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_acceptance.py"), "--cpu", "--out", str(out), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)


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
    record = gpu_acceptance.run_child(plan, "cpu", 20.0, 0.05)
    assert (record["status"], "stopped after" in record["reason"]) == ("failed", True)
    record = gpu_acceptance.run_child(dataclasses.replace(plan, peer=True), "cpu", 20.0, 0.05)
    assert record["status"] == "broken"


@pytest.mark.parametrize(("statuses", "code"), [
    ({}, 0), ({"step_time.jax_scan": "absent", "step_time.torch_graph": "broken"}, 0), ({"memory": "failed"}, 1),
    ({"step_time.jax_scan": "failed"}, 1),
])
def test_the_exit_code(
    statuses: dict[str, str], code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def child(plan: gpu_acceptance.Plan, *_: Any) -> dict[str, Any]:
        return {"status": statuses.get(plan.name, "passed"), "checks": [], "results": {"device_name": "A GPU, 1"}}

    monkeypatch.setattr(gpu_acceptance, "run_child", child)
    monkeypatch.setattr(gpu_acceptance, "HERE", tmp_path)
    assert gpu_acceptance.main([]) == code
    (path,) = (tmp_path / "results").iterdir()
    assert path.name.endswith("-a-gpu-1.json")
    report = json.loads(path.read_text("utf-8"))
    assert report["passed"] is (code == 0)
    assert len(report["sections"]) == len(gpu_acceptance.SECTIONS)


def test_without_the_device_nothing_else_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def child(plan: gpu_acceptance.Plan, *_: Any) -> dict[str, Any]:
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
    assert sum(plan.budget for plan in gpu_acceptance.SECTIONS) <= gpu_acceptance.LIMIT < 600.0


# Checks -----------------------------------------------------------------------------------------------------------


def test_the_layer_comparison_sees_an_error_that_numpy_does_not_make() -> None:
    golden = {"y": np.linspace(1.0, 2.0, 7)}
    own = {"y": golden["y"].astype(np.float32)}
    assert _gpu_parity.worst(golden, own, own)[0] <= 1.0
    assert _gpu_parity.worst(golden, own, {"y": own["y"] * np.float32(1 + 1e-5)})[0] > 1.0
    for wrong in (own["y"][:-1], golden["y"], own["y"] * np.float32(np.nan)):
        assert _gpu_parity.worst(golden, own, {"y": wrong})[0] == float("inf")


def test_the_layer_comparison_sees_half_precision() -> None:
    from xpnet import Device

    golden, own = (_gpu_parity.of_case("Linear", Device(), dtype)[1] for dtype in ("float64", "float32"))
    half = {name: a.astype(np.float16).astype(np.float32) for name, a in own.items()}
    assert _gpu_parity.worst(golden, own, own)[0] < 1.0 < _gpu_parity.worst(golden, own, half)[0]


def test_the_comparison_of_runs_sees_another_run() -> None:
    from xpnet import Device

    x, y = _gpu_runs.clouds(60, 8)
    network = _gpu_runs.architecture("3 layers", 8)
    one, two = (_gpu_runs._train(network, x, y, Device(), 5, seed=0, dtype="float64") for _ in range(2))
    assert max(_gpu_runs.compare_states(two, one, 2).values()) < 1e-15  # the biases that batch norm cancels
    assert _gpu_runs.digest(one) == _gpu_runs.digest(two)
    two.arrays["gamma1"][0] += 1e-8
    assert _gpu_runs.compare_states(two, one, 2)["parameters"] > 1e-9
    assert _gpu_runs.digest(one) != _gpu_runs.digest(two)


@pytest.mark.parametrize(("shift", "passed"), [(0.0, True), (0.05, False)])
def test_the_spread_of_five_seeds_judges(shift: float, passed: bool) -> None:
    section, cpu = Section("test", 10.0), np.array([0.50, 0.51, 0.49, 0.505, 0.495])
    _gpu_runs.judge_spread(section, "accuracy", cpu, cpu[::-1] + shift, cpu[:1] + shift)
    assert section.record["checks"][0]["passed"] is passed


def test_calls_are_counted_and_what_was_patched_is_put_back() -> None:
    class Base:
        def __float__(self) -> float:
            return 1.0

    class Array(Base):
        def get(self) -> int:
            return 2

    places = [(Array, "get"), (Array, "__float__"), (int, "bit_length"), (Array, "nothing")]
    with _gpu_device.counted(places) as (calls, refused):
        assert (float(Array()), Array().get(), Array().get()) == (1.0, 2, 2)
    assert calls == {"Array.get": 2, "Array.__float__": 1}
    assert refused == ["int.bit_length"]
    assert (float(Array()), Array().get(), "__float__" in vars(Array)) == (1.0, 2, False)
    assert calls["Array.get"] == 2


def test_sizes_are_read_from_a_message() -> None:
    assert _gpu_device.sizes_in("asked 1,024 bytes of 2.5 GiB; 3 models") == [1024.0, 2.5 * 2**30]
    assert _gpu_device.sizes_in("out of memory") == []


# Peers ------------------------------------------------------------------------------------------------------------

SMALL = _gpu_job.Job((7, 5), n=100, inputs=12, size=20)


def test_many_models_do_their_own_jobs() -> None:
    options = _gpu_job.sweep(3)
    losses = SMALL.reference(SMALL.data(), **options)
    assert losses.shape == (_gpu_job.COMPARED, 3)
    assert len({*losses[-1]}) == 3


@pytest.mark.backends("numpy", "torch")  # it needs no device, and torch
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
@pytest.mark.parametrize("kind", ["eager", "graph"])
def test_pytorch_does_the_same_job(kind: str) -> None:
    import _gpu_torch
    import torch

    host = SMALL.data()
    task = _gpu_torch.TorchJob(torch, SMALL, host, "cpu")
    step = _gpu_torch.eager_step(task, task.loss) if kind == "eager" else _gpu_torch.graph_step(task)
    losses = [float(step()) for _ in range(_gpu_job.COMPARED)]
    section = Section("test", 10.0)
    _gpu_job.same_job(section, kind, losses, SMALL.reference(host))
    assert section.record["checks"][0]["passed"], section.record["checks"]


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
@pytest.mark.parametrize("options", [None, _gpu_job.sweep(3)], ids=["one", "several"])
def test_jax_does_the_same_job(options: dict[str, Any] | None) -> None:
    import _gpu_jax

    host = SMALL.data()
    jax, device = _gpu_jax.jax_device("cpu")
    task = _gpu_jax.JaxJob(jax, SMALL, host, device, SMALL.per_epoch, options)
    section = Section("test", 10.0)
    _gpu_job.same_job(section, "jax", task.first_losses(), SMALL.reference(host, **(options or {})))
    assert section.record["checks"][0]["passed"], section.record["checks"]
