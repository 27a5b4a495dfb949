"""The GPU acceptance run, on CuPy and with NumPy in the GPU's place; and canaries: what must fail it, does."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
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

import _gpu_device  # noqa: E402
import _gpu_job  # noqa: E402
import _gpu_memory  # noqa: E402
import _gpu_parity  # noqa: E402
import _gpu_runs  # noqa: E402
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
    assert found.keys() >= {"/seconds", "/sections/layers/seconds", "/sections/models.xpnet/results/4 models/"
                            "model_steps_per_second", "/sections/step_time.xpnet/results/9 layers/us_per_step_device"}
    assert {*found.values()} == {None}
    assert " us per step" not in output + json.dumps(report)
    for plan in gpu_acceptance.SECTIONS:
        section = report["sections"][plan.name]
        if plan.peer:
            assert section["status"] == "absent"
            assert section["reason"].endswith("needs a GPU: the CPU emulation is CuPy's alone")
        elif plan.name not in ("environment", "layers"):
            assert section["shortened"], plan.name


@pytest.mark.backends("cupy")
def test_a_kernel_that_is_not_busy_is_noticed(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    section, cuda = Section("test", 10.0), _gpu_device.Cuda(device)
    _gpu_device.spin_lasts(section, cuda, 0.01)
    monkeypatch.setattr(_gpu_device, "SPIN", 'extern "C" __global__ void spin(long long cycles) {}')
    _gpu_device.spin_lasts(section, cuda, 0.01)
    assert [check["passed"] for check in section.record["checks"]] == [True, False]


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


# Checks -----------------------------------------------------------------------------------------------------------


def test_the_layer_comparison_sees_an_error_that_numpy_does_not_make() -> None:
    golden = {"y": np.linspace(1.0, 2.0, 7)}
    own = {"y": golden["y"].astype(np.float32)}
    assert _gpu_parity.worst(golden, own, own)[0] <= 1.0
    assert _gpu_parity.worst(golden, own, {"y": own["y"] * np.float32(1 + 1e-5)})[0] > 1.0
    for wrong in (own["y"][:-1], golden["y"], own["y"] * np.float32(np.nan)):
        assert _gpu_parity.worst(golden, own, {"y": wrong})[0] == float("inf")


def test_the_layer_comparison_sees_half_precision() -> None:
    golden, own = (_gpu_parity.of_case("Linear", Device(), dtype)[1] for dtype in ("float64", "float32"))
    half = {name: a.astype(np.float16).astype(np.float32) for name, a in own.items()}
    assert _gpu_parity.worst(golden, own, own)[0] < 1.0 < _gpu_parity.worst(golden, own, half)[0]


def test_the_comparison_of_runs_sees_another_run() -> None:
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
    assert _gpu_memory.sizes_in("asked 1,024 bytes of 2.5 GiB; 3 models") == [1024.0, 2.5 * 2**30]
    assert _gpu_memory.sizes_in("needs 1.5 GB, 20 MB are free") == [1.5e9, 2e7]
    assert _gpu_memory.sizes_in("out of memory") == []


@pytest.mark.parametrize(("message", "failed"), [
    ("it needs 3 GB, 2 GB are free: lower it", []),
    ("it needs 3 GB, 2 GB are free", ["says what to lower"]),
    ("it needs 3 GB, 2,000,000,000 are free: lower it", ["names two sizes with their units", "names what is free"]),
    ("it needs 1 GB, 2 GB are free: lower it", ["names what is asked"]),
    (None, ["raises MemoryError"]),
])
def test_messages_about_memory_are_judged(
    message: str | None, failed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask() -> None:
        if message is not None:
            raise MemoryError(message)

    section = Section("test", 10.0)
    monkeypatch.setattr(Device, "free_memory", lambda self: 2 * 10**9)
    _gpu_memory.explained(section, "x", ask, Device(), 3 * 10**9)
    assert [check["name"] for check in section.record["checks"] if not check["passed"]] == [f"x: {f}" for f in failed]


def test_the_numbers_of_a_network_are_counted() -> None:
    shapes = _gpu_runs.architecture("9 layers", 48).shapes
    own = sum(int(np.prod(shape)) for name, shape in shapes.items() if name not in ("offset1", "scale1"))
    assert _gpu_memory.model_numbers(48, _gpu_runs.NETWORKS["9 layers"], 10) == own


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
    section = Section("test", 10.0)
    jax, device = _gpu_jax.jax_device(section, "cpu")
    task = _gpu_jax.JaxJob(jax, SMALL, host, device, SMALL.per_epoch, options)
    _gpu_job.same_job(section, "jax", task.first_losses(), SMALL.reference(host, **(options or {})))
    assert section.record["checks"][0]["passed"], section.record["checks"]


@pytest.mark.backends("numpy", "torch")
@pytest.mark.parametrize("name", ["_gpu_torch.torch_eager", "_gpu_torch.torch_graph", "_gpu_jax.jax_scan",
                                  "_gpu_jax.jax_vmap"])
def test_the_sections_of_peers_run_on_the_cpu(name: str) -> None:
    module, _, function = name.partition(".")
    package = module.removeprefix("_gpu_")
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    section = Section("test", 1.0, small=True)
    record = execute(lambda s: getattr(importlib.import_module(module), function)(s, "cpu"), section, peer=True)
    assert record["status"] == "passed", record
    assert len(record["checks"]) == 2
    assert [value for key, value in times(record["results"]) if key.endswith("us_per_step_wall")]


@pytest.mark.parametrize("name", ["_gpu_torch.torch_eager", "_gpu_torch.torch_compile", "_gpu_jax.jax_vmap"])
def test_peers_say_that_the_emulation_is_not_theirs(name: str) -> None:
    module, _, function = name.partition(".")
    section = Section("test", 1.0, small=True, emulated=True)
    record = execute(lambda s: getattr(importlib.import_module(module), function)(s, "cuda"), section, peer=True)
    assert record["status"] == "absent"
    assert "needs a GPU" in record["reason"]
