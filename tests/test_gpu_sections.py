"""What the sections of the GPU acceptance run judge: canaries, and the peers' jobs on the CPU."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import _gpu_device
import _gpu_job
import _gpu_memory
import _gpu_parity
import _gpu_runs
from _gpu_report import times
from _gpu_section import Section, execute

from xpnet.backend import Device

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


@pytest.mark.backends("cupy")
def test_a_kernel_that_is_not_busy_is_noticed(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    section, cuda = Section("test", 10.0), _gpu_device.Cuda(device)
    _gpu_device.spin_lasts(section, cuda, 0.01)
    monkeypatch.setattr(_gpu_device, "SPIN", 'extern "C" __global__ void spin(long long cycles) {}')
    _gpu_device.spin_lasts(section, cuda, 0.01)
    assert [check["passed"] for check in section.record["checks"]] == [True, False]


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
