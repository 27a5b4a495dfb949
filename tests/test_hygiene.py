"""The rules that hold everywhere: who imports what, no reading by the host in a step, nothing written but one's own."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import HostReadError, blobs, no_host_reads
from mutants import CUPY, MUTANTS

import xpnet
from xpnet import SGD, Adam, AdamW, CyclicLR, Layer, Trainer, mlp
from xpnet.backend import Device, to_numpy
from xpnet.nn.layers import Linear
from xpnet.training.optimizers import Optimizer

PACKAGE = Path(xpnet.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# Imports ------------------------------------------------------------------------------------------------------

COMPAT = {"array_api_compat", "array_api_strict", "array_api_extra"}
LIBRARIES = COMPAT | {"numpy", "cupy", "torch", "jax", "scipy", "dask"}
#: What knows that libraries differ.
ROOM = ("backend/arrays.py", "backend/devices.py", "backend/gpu.py", "backend/libraries.py",
        "backend/machine.py",
        *(f"backend/cuda/{name}.py" for name in ("columns", "launch", "rows", "step", "update", "persistent")))
#: The rooms that work on the host by nature, and so know NumPy; nobody else knows an array library.
HOST = {
    "backend/blas.py", "datasets/inputs.py", "nn/formats/convert.py", "nn/formats/dtypes.py",
    "nn/formats/onnx.py", "nn/formats/safetensors.py", "nn/formats/state_dict.py", "plotting/lines.py",
    "plotting/pictures.py", "plotting/training.py", "random.py",
    "sweeps/workers.py",
}


def imports(tree: ast.Module) -> Iterator[str]:
    """Return the packages that a module imports, at its top or anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").partition(".")[0]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in (
            "import_module", "__import__"
        ):
            yield "importlib, called"


def allowed(path: Path) -> set[str]:
    """Return the array libraries that a file may import."""
    name = path.relative_to(PACKAGE).as_posix()
    if name in ROOM:
        return {"numpy", "cupy", "array_api_compat", "importlib, called"}
    if name == "_moved.py":
        return {"importlib, called"}  # it imports modules of xpnet by their names
    return {"numpy"} if name in HOST or name.startswith(("backend/fast/", "datasets/")) else set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_only_the_backend_knows_array_libraries(path: Path) -> None:
    found = set(imports(ast.parse(path.read_text(encoding="utf-8")))) & (LIBRARIES | {"importlib, called"})
    assert found <= allowed(path), f"{path.name} imports {', '.join(sorted(found - allowed(path)))}"


def test_the_reading_of_imports_sees_them_all() -> None:
    code = (
        "import numpy.linalg as n, os\ndef f():\n from cupy.cuda import x\n"
        " importlib.import_module('torch')\nfrom . import a"
    )
    assert set(imports(ast.parse(code))) == {"numpy", "os", "cupy", "importlib, called"}
    assert {PACKAGE / name for name in ROOM} < set(FILES)
    assert len(FILES) > 15


@pytest.mark.parametrize("name", ["torch", "cupy", "is_numpy", "is_cupy", "is_torch", "is_array_api", "__array_"])
def test_nobody_else_asks_which_library_an_array_has(name: str) -> None:
    for path in FILES:
        if path.relative_to(PACKAGE).as_posix() in (*ROOM, "cli/commands.py") or path.parent.name == "datasets":
            continue
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        words = {node.id for node in nodes if isinstance(node, ast.Name)}
        words |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        assert not [word for word in words if word.startswith(name)], path.name


def test_importing_the_package_leaves_the_heavy_and_the_optional_alone() -> None:
    code = "import sys, xpnet; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "xpnet" in loaded
    assert "numpy" in loaded
    assert not loaded & {"matplotlib", "cupy", "torch", "jax", "pooch", "PIL", "scipy", "sklearn", "array_api_strict"}
    assert not done.stderr


# No reading by the host inside a step ---------------------------------------------------------------------------

MODELS = {
    "plain": {},
    "batch norm, dropout, L2": {"l2": 0.01},
    "models": {"l2": [0.0, 0.01], "seed": [1, 2]},
}
OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": SGD(), "momentum": SGD(0.9), "nesterov": SGD(0.9, nesterov=True), "adam": Adam(), "adamw": AdamW(),
}


def started(
    device: Device, models: str, optimizer: Optimizer, dtype: str = "float32"
) -> tuple[Trainer, Callable[[], Any]]:
    """Return a trainer that has begun, and a function that makes one update of it."""
    rich = models != "plain"
    network = mlp(6, [5, 4], 3, batch_norm=rich, dropout=0.2 if rich else 0.0)
    trainer = Trainer(network, optimizer=optimizer, dtype=dtype, batch_size=16, **MODELS[models])
    x, y = blobs(device, 16, dtype=dtype)
    trainer.fit(x, y, steps=1)
    targets = device.asarray(np.eye(3)[to_numpy(y)], dtype)
    noise = {name: device.asarray(np.full(shape, 0.5), dtype) for name, shape in network.noise_shapes(16).items()}
    lr = device.asarray([[0.1], [0.05]], dtype) if trainer.models else 0.1
    return trainer, lambda: trainer.update(x, targets, lr, noise)


@pytest.mark.backends("strict")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("models", MODELS)
def test_a_step_reads_nothing_and_asks_no_shape_of_the_data(device: Device, models: str, optimizer: str) -> None:
    import array_api_strict as strict

    trainer, update = started(device, models, OPTIMIZERS[optimizer])
    flags = strict.get_array_api_strict_flags()
    try:
        strict.set_array_api_strict_flags(
            api_version="2024.12", boolean_indexing=False, data_dependent_shapes=False, enabled_extensions=[]
        )
        with no_host_reads(device):
            losses = [update() for _ in range(3)]
    finally:
        strict.set_array_api_strict_flags(**flags)
    assert trainer.step == 4
    assert np.isfinite(np.asarray([to_numpy(loss) for loss in losses])).all()


@pytest.mark.backends("strict")
@pytest.mark.parametrize("read", [float, bool, int], ids=lambda read: read.__name__)
def test_a_step_that_reads_is_caught(
    device: Device, read: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Linear.forward

    def nosy(self: Layer, x: Any, *arrays: Any, **options: Any) -> Any:
        read(device.xp.max(x))
        return forward(self, x, *arrays, **options)

    _, update = started(device, "plain", SGD())
    monkeypatch.setattr(Linear, "forward", nosy)
    update()
    with no_host_reads(device), pytest.raises(HostReadError):
        update()


@pytest.mark.backends("strict")
def test_updates_between_evaluations_read_nothing_but_their_losses(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop too: batches, schedules, noise; the losses are read once, at the evaluation point."""
    x, y = blobs(device, 40)
    trainer = Trainer(
        mlp(6, [5], 3, batch_norm=True, dropout=0.2, standardize=True), batch_size=16, l2=[0.0, 0.1],
        schedule=CyclicLR(np.asarray([0.0, 0.01]), 0.1, 5),
    )
    trainer.fit(x, y, steps=0)
    update, calls = Trainer.update, []

    def ignore_overflow(self: Trainer, *arguments: Any) -> Any:
        with no_host_reads(device):
            calls.append(self.step)
            return update(self, *arguments)

    monkeypatch.setattr(Trainer, "update", ignore_overflow)
    trainer.fit(x, y, steps=9, evaluate_every=9)
    assert calls == list(range(9))


# Nothing is written but one's own ---------------------------------------------------------------------------------


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("models", MODELS)
def test_a_step_writes_only_what_it_owns(device: Device, models: str, optimizer: str) -> None:
    network = mlp(6, [5, 4], 3, batch_norm=models != "plain", dropout=0.2 if models != "plain" else 0.0)
    trainer = Trainer(network, optimizer=OPTIMIZERS[optimizer], batch_size=16, **MODELS[models])
    x, y = blobs(device, 16)
    trainer.fit(x, y, steps=1)
    targets, noise = np.eye(3, dtype="float32")[y], {
        name: np.full(shape, 0.5, "float32") for name, shape in network.noise_shapes(16).items()}
    lr = np.asarray([[0.1], [0.05]], "float32") if trainer.models else 0.1
    inputs = [x, targets, *noise.values(), *([lr] if trainer.models else [])]
    for a in inputs:
        a.flags.writeable = False
    copies = [a.copy() for a in inputs]
    for _ in range(3):
        loss = trainer.update(x, targets, lr, noise)
        assert np.isfinite(loss).all()
    assert all((a == copy).all() for a, copy in zip(inputs, copies, strict=True))
    owned = [*trainer.arrays.values()]
    assert not any(np.shares_memory(a, b) for a in owned for b in inputs)


@pytest.mark.backends("numpy")
def test_fit_predict_and_evaluate_leave_read_only_data_alone(device: Device) -> None:
    x, y = blobs(device, 40)
    x.flags.writeable = y.flags.writeable = False
    before = x.copy(), y.copy()
    trainer = Trainer(mlp(6, [5], 3, batch_norm=True, standardize=True), batch_size=16)
    trainer.fit(x, y, steps=5, validation=(x, y))
    trainer.evaluate(x, y)
    trainer.network.predict_proba(x)
    assert (x == before[0]).all()
    assert (y == before[1]).all()


@pytest.mark.parametrize("models", MODELS)
def test_the_gradient_of_a_step_lands_in_its_buffers_without_new_large_arrays(device: Device, models: str) -> None:
    trainer, update = started(device, models, SGD())
    segments = [*trainer.learner.gradients.segments, *trainer.learner.parameters.segments]
    update()
    assert all(a is b for a, b in zip(
        segments, [*trainer.learner.gradients.segments, *trainer.learner.parameters.segments], strict=True))
    for name, view in trainer.learner.parameters.views.items():
        assert trainer.arrays[name] is view


# Sources ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_every_module_says_what_lives_in_it(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{path.name} has no docstring"


def test_what_is_public_is_there() -> None:
    assert sorted(xpnet.__all__) == sorted(set(xpnet.__all__))
    assert all(hasattr(xpnet, name) for name in xpnet.__all__)


@pytest.mark.parametrize(("file", "what", "line"), [row[:3] for row in [*MUTANTS, *CUPY]], ids=lambda text: text[:40])
def test_every_mutant_breaks_a_line_that_is_there(file: str, what: str, line: str) -> None:
    # An installed package lies apart from its tests.
    root = Path(__file__).parents[1] if file.startswith("tests/") else PACKAGE.parent
    assert (root / file).read_text("utf-8").count(line) == 1, what
