"""Break one line at a time and check that a test fails. Run: python tools/mutants.py (some minutes).

Those of ``CUPY`` need CuPy, and run on the emulation in ``tests/cpucuda``. The script works on a copy of the checkout,
writes docs/mutants.md, and exits with 1 if a mutant survives.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = ["tests/nn/test_gradcheck.py", "tests/nn/test_layers.py", "tests/nn/test_losses.py",
         "tests/training/test_optimizers.py", "tests/training/test_schedules.py", "tests/training/test_trainer.py",
         "tests/nn/test_initializers.py", "tests/training/test_two_threads.py"]

#: File, what it computes, the line as it is, and the line broken.
MUTANTS = [
    ("xpnet/nn/layers.py", "Linear: dx", "own.product, dz,", "own.product, -dz,"),
    ("xpnet/nn/layers.py", "Linear: dW", ".gradient, x, dz)", ".gradient, x, dz * 1.001)"),
    ("xpnet/backend/ops.py", "Linear: dW of models that share x", "side_by_side(d), None if",
     "side_by_side(-d), None if"),
    ("xpnet/nn/layers.py", "Linear: db", ".total, dz)", ".total, 0.5 * dz)"),
    ("xpnet/nn/layers.py", "Linear: bias", "ops.product(x, W) + row(b)", "ops.product(x, W) - row(b)"),
    ("xpnet/nn/layers.py", "BatchNorm: biased variance", "average @ (centred * centred)",
     "average @ (centred * centred) * (n / (n - 1))"),
    ("xpnet/nn/layers.py", "BatchNorm: eps", "spread + self.eps)", "spread + 2 * self.eps)"),
    ("xpnet/nn/layers.py", "BatchNorm: mean of dy", "dy = dy - row(dbeta) * (1.0 / n)", "dy = dy * 1.0"),
    ("xpnet/nn/layers.py", "BatchNorm: projection on x_hat", "dy -= centred * (dgamma", "dy += centred * (dgamma"),
    ("xpnet/nn/layers.py", "BatchNorm: dgamma", "(dy * centred) / deviation", "(dy * centred)"),
    ("xpnet/nn/layers.py", "BatchNorm: dbeta", "dbeta = ops_of(dy).total(dy)", "dbeta = ops_of(dy).total(-dy)"),
    ("xpnet/nn/layers.py", "BatchNorm: scale of dx", "return dy * scale, (dgamma", "return dy / deviation, (dgamma"),
    ("xpnet/nn/layers.py", "ReLU: pullback", "return dy * xp.astype(real(y) > 0, dy.dtype), ()", "return dy, ()"),
    ("xpnet/nn/layers.py", "LeakyReLU: pullback", "return dy * factor, ()", "return dy, ()"),
    ("xpnet/nn/layers.py", "LeakyReLU: slope", "(1.0 - positive) * self.slope", "(1.0 - positive) / self.slope"),
    ("xpnet/nn/layers.py", "Tanh: pullback", "return dy * (1.0 - y * y), ()", "return dy * (1.0 - y), ()"),
    ("xpnet/nn/layers.py", "Dropout: pullback", "return dy * mask, ()", "return dy, ()"),
    ("xpnet/nn/layers.py", "Dropout: scaling", "x.dtype) / (1.0 - self.rate)", "x.dtype)"),
    ("xpnet/nn/layers.py", "Standardize: pullback", "return dy * scale, ()", "return dy, ()"),
    ("xpnet/nn/layers.py", "Standardize: offset", "return (x - offset) * scale,", "return (x + offset) * scale,"),
    ("xpnet/nn/losses.py", "cross-entropy: pullback", "return (exp / total - targets) * (factor",
     "return (exp / total + targets) * (factor"),
    ("xpnet/nn/losses.py", "cross-entropy: mean over the batch", "(factor * (1.0 / n))", "factor"),
    ("xpnet/nn/losses.py", "cross-entropy: value", "xp.log(total) - class_sum(", "xp.log(total) + class_sum("),
    ("xpnet/nn/losses.py", "L2 penalty", "return l2 * squares", "return 0.5 * l2 * squares"),
    ("xpnet/nn/gradient_cases.py", "gradient of the penalty", "found[n] + 2.0 * l2 * arrays[n]",
     "found[n] + l2 * arrays[n]"),
    ("xpnet/training/optimizers.py", "SGD: step", "        w -= lr * g\n", "        w += lr * g\n"),
    ("xpnet/training/optimizers.py", "penalty", "g += penalty * w", "g -= penalty * w"),
    ("xpnet/training/step.py", "penalty, as the gradient is formed", "1.0 - lr * self._penalty",
     "1.0 - 2.0 * lr * self._penalty"),
    ("xpnet/training/optimizers.py", "clipping: norm", "total = total + xp.sum", "total = xp.sum"),
    ("xpnet/training/optimizers.py", "clipping: model axis", "== axes + 1 else (0, -1)", "<= axes + 2 else (0, -1)"),
    ("xpnet/training/optimizers.py", "SGD: velocity", "v *= momentum\n", "v *= 1.0 - momentum\n"),
    ("xpnet/training/optimizers.py", "SGD: Nesterov", "g = g + momentum * v if", "g = g + v if"),
    ("xpnet/training/optimizers.py", "Adam: first moment", "m += cast(1.0 - self.beta1, w) * g",
     "m += cast(self.beta1, w) * g"),
    ("xpnet/training/optimizers.py", "Adam: second moment", "v += cast(1.0 - self.beta2, w) * g",
     "v += cast(self.beta2, w) * g"),
    ("xpnet/training/optimizers.py", "Adam: square", "        g *= g\n", ""),
    ("xpnet/training/optimizers.py", "Adam: bias correction 1", "lr / (1.0 - self.beta1 ** (step + 1))", "lr"),
    ("xpnet/training/optimizers.py", "Adam: bias correction 2", "v / cast(1.0 - self.beta2 ** (step + 1), w)", "v"),
    ("xpnet/training/optimizers.py", "Adam: eps", "+ cast(self.eps, w))", "+ 1e3 * cast(self.eps, w))"),
    ("xpnet/training/optimizers.py", "AdamW: decay", "w *= 1.0 - lr * decay", "w *= 1.0 + lr * decay"),
    ("xpnet/training/schedules.py", "CyclicLR: fall", "else 2.0 - phase", "else phase - 1.0"),
    ("xpnet/training/schedules.py", "CyclicLR: period", "(step % (2 * self.step_size))",
     "(step % (2 * self.step_size + 1))"),
    ("xpnet/training/schedules.py", "CyclicLR: range", "rise * (self.eta_max - self.eta_min)", "rise * self.eta_max"),
    ("xpnet/training/schedules.py", "Step: drops", "drops = step // at", "drops = (step + 1) // at"),
    ("xpnet/training/schedules.py", "Step: milestones", "sum(bool(step >= update) for", "sum(bool(step > update) for"),
    ("xpnet/training/schedules.py", "Step: factor", "self.eta * self.gamma**drops", "self.eta * self.gamma"),
    ("xpnet/training/schedules.py", "Cosine: shape", "0.5 * (1.0 + math.cos(", "0.5 * (1.0 - math.cos("),
    ("xpnet/training/schedules.py", "Cosine: end", "min(step / self.steps, 1.0)", "step / self.steps"),
    ("xpnet/training/schedules.py", "Constant", "return self.eta\n", "return 2 * self.eta\n"),
    ("xpnet/nn/initializers.py", "He", "math.sqrt(2.0 / fan_in)", "math.sqrt(1.0 / fan_in)"),
    ("xpnet/nn/initializers.py", "Xavier", "math.sqrt(2.0 / (fan_in + fan_out))",
     "math.sqrt(1.0 / (fan_in + fan_out))"),
    ("xpnet/training/rows.py", "standardisation: mean over blocks", "off * (m / rows.stop)", "off * 0.5"),
    ("xpnet/training/rows.py", "standardisation: squares between blocks", "off**2 * (m * rows.start",
     "off**2 * (m * rows.stop"),
    ("xpnet/training/two_threads.py", "rows of the other half", "2 * rows + self._which)", "2 * rows)"),
    ("xpnet/training/two_threads.py", "gradient of the batch before", "descent.add_product(x, d, self._columns)",
     "descent.add_product(self.x, d, self._columns)"),
    ("xpnet/training/two_threads.py", "sum of both products", "self._mine.z + self._other.z",
     "self._mine.z + self._mine.z"),
    ("xpnet/training/step.py", "running statistics: rate", "rates = [1.0 - layer.momentum", "rates = [layer.momentum"),
    ("xpnet/training/step.py", "running statistics: first batch", "            if step:\n",
     "            if step >= 0:\n"),
]

CUPY_TESTS = ["tests/backend/test_second_device.py", "tests/backend/test_backend.py",
              "tests/backend/test_cupy_guards.py", "tests/nn/test_layers.py",
              "tests/nn/test_gradcheck.py", "tests/training/test_trainer.py"]

#: The same of what is CuPy's alone: in the backend, where a device is made the current one, and in the emulation.
CUPY = [
    ("xpnet/backend/arrays.py", "constants of one device on another", "x.dtype, str(x.device))", "x.dtype)"),
    ("xpnet/backend/arrays.py", "constants made on the current device", "with x.device if array_api_compat.is_cupy",
     "with contextlib.nullcontext() if array_api_compat.is_cupy"),
    ("xpnet/backend/arrays.py", "wrong axis of a constant", "made = transposed(namespace(x).full(",
     "made = (namespace(x).full("),
    ("xpnet/backend/arrays.py", "wrong axis of an array that is copied to the host", "np.asarray(x.get())",
     "np.asarray(x.T.get())"),
    ("xpnet/backend/ops.py", "rows taken along the wrong axis", "namespace(x).take(x, rows, axis=0)",
     "namespace(x).take(x, rows, axis=-1)"),
    ("xpnet/backend/libraries.py", "a stale view: a product that is not written",
     "namespace(out).matmul(a, b, out=out)",
     "namespace(out).matmul(a, b)"),
    ("xpnet/backend/ops.py", "product with its columns in reverse", "        return x @ w\n\n    def matmul",
     "        return (x @ w)[..., ::-1]\n\n    def matmul"),
    ("xpnet/backend/arrays.py", "imaginary part for the real one", "return namespace(x).real(x)",
     "return namespace(x).imag(x)"),
    ("xpnet/backend/devices.py", "every GPU is the first", 'self.name = f"cuda:{self.native.id}"',
     'self.name = "cuda:0"'),
    ("xpnet/backend/devices.py", "no device is made the current one",
     'with self.native if self.name.startswith("cuda")',
     'with self.native if self.name.startswith("gpu")'),
    ("xpnet/backend/devices.py", "zeros on the current device",
     "with self.activate():\n            return self.xp.zeros(",
     "if self.xp:\n            return self.xp.zeros("),
    ("xpnet/backend/devices.py", "the first GPU for whichever is named",
     "cupy, f\"cuda:{index}\", cupy.cuda.Device(index)",
     "cupy, f\"cuda:{index}\", cupy.cuda.Device(0)"),
    ("xpnet/backend/devices.py", "a GPU taken for the host", 'return "cuda" not in self.name',
     'return "cuda" in self.name'),
    ("xpnet/backend/devices.py", "free blocks of the pool not counted", " + int(pool.free_bytes())", ""),
    ("xpnet/training/run.py", "started on the current device", "with device.activate():\n            self._learner",
     "if device:\n            self._learner"),
    ("xpnet/training/run.py", "restored on the current device", "with here.activate():", "if here:"),
    ("xpnet/training/run.py", "updated on the current device", "with self.device.activate():  # type",
     "if self.device:  # type"),
    ("xpnet/nn/ensemble.py", "averaged on the current device", "with self.networks[0].device.activate():",
     "if self.networks:"),
    ("xpnet/nn/network.py", "probabilities on the current device",
     "with self.device.activate():\n            return softmax", "if self.device:\n            return softmax"),
    ("xpnet/nn/gradcheck.py", "differences on the current device", "with Device.of(x).activate():", "if Device.of(x):"),
    ("tests/cpucuda/cublas.cpp", "a product with a missing transpose", "op == No ? x[row + column * ld]",
     "op != No ? x[row + column * ld]"),
    ("tests/cpucuda/cublas.cpp", "missing conjugate", "op == ConjugateTransposed ? conjugate(value)",
     "op == ConjugateTransposed ? value"),
    ("tests/cpucuda/cublas.cpp", "missing broadcast: one matrix for the batch", "(b) + i * stride_b", "(b) + 0 * i"),
    ("tests/cpucuda/cublas.cpp", "a stale view: beta left out", "if (beta != S(0)) add_product",
     "if (false) add_product"),
    ("tests/cpucuda/driver.cpp", "wrong stream: nothing is captured", "if (is_capturing(stream)) return",
     "if (is_capturing(0)) return"),
    ("tests/cpucuda/driver.cpp", "writes out of bounds unnoticed", "if (!error) error = check_guards();", ""),
    ("tests/cpucuda/include/cpucuda_run.h", "wrong axis of blocks", "unsigned(n / gridDim.x % gridDim.y)",
     "unsigned(n / gridDim.y % gridDim.x)"),
    ("tests/cpucuda/include/cpucuda_run.h", "wrong axis of threads", "n / blockDim.x % blockDim.y",
     "n / blockDim.y % blockDim.x"),
]


def survives(copy: Path, file: str, old: str, new: str) -> str:
    """Break a line in the copy and run the tests; return the first test that fails, or nothing."""
    path = copy / file
    source = path.read_text("utf-8")
    if source.count(old) != 1:
        raise SystemExit(f"{file} holds {source.count(old)} times, not once: {old!r}")
    path.write_text(source.replace(old, new), encoding="utf-8")
    emulated = (file, old) in {(row[0], row[2]) for row in CUPY}
    before = ["-m", "cpucuda"] if emulated else []
    places = [str(copy), *([str(copy / "tests")] if emulated else [])]
    tests = ["tests/cpucuda"] if "cpucuda" in file else CUPY_TESTS if emulated else TESTS
    try:
        done = subprocess.run(
            [sys.executable, *before, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests],
            cwd=copy, text=True, capture_output=True, check=False,
            env={**os.environ, "XPNET_BACKENDS": "cupy" if emulated else "numpy", "CPUCUDA_DEVICES": "2",
                 "PYTHONPATH": os.pathsep.join(places), "OPENBLAS_NUM_THREADS": "1"},
        )
    finally:
        path.write_text(source, encoding="utf-8")
    if done.returncode < 0:  # an emulation that was broken may crash
        return f"signal {-done.returncode}"
    if done.returncode not in (0, 1):
        raise SystemExit(done.stdout + done.stderr)
    lines = done.stdout.splitlines()
    failed = [line.split(" ", 1)[1].split(" - ")[0] for line in lines if line.startswith(("FAILED", "ERROR"))]
    return failed[0].removeprefix("tests/") if done.returncode else ""


def main() -> int:
    lines, alive, many = [], 0, len(MUTANTS) + len(CUPY)
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory) / "xpnet"
        for name in ("xpnet", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        for file, what, old, new in [*MUTANTS, *CUPY]:
            caught = survives(copy, file, old, new)
            alive += not caught
            shown = " ".join(new.split()) or "(line removed)"
            lines.append(f"| {file} | {what} | `{shown}` | {f'`{caught}`' if caught else '**none**'} |")
            print(lines[-1], flush=True)
    head = (f"# Mutants\n\nMade by `python tools/mutants.py`: one line broken at a time, and the first test that "
            f"fails. {many - alive} of {many} are caught.\n\n"
            "| file | what | broken line | caught by |\n| --- | --- | --- | --- |\n")
    (ROOT / "docs" / "mutants.md").write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
    return 1 if alive else 0


if __name__ == "__main__":
    raise SystemExit(main())
