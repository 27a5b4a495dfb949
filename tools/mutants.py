"""Break one line at a time and see that the tests notice. Run: python tools/mutants.py (some minutes).

Works on a copy of the checkout, writes docs/mutants.md, and exits with 1 if a mutant survives.
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
    ("nn/layers", "Linear: dx", "dx = product(dz, W.mT) if", "dx = product(-dz, W.mT) if"),
    ("nn/layers", "Linear: dW", "dW = add_gradient(to, x, dz)", "dW = add_gradient(to, x, dz * 1.001)"),
    ("nn/layers", "Linear: dW of models that share x",
     "else to, x, side_by_side(dz))", "else to, x, side_by_side(-dz))"),
    ("nn/layers", "Linear: db", "else batch_total(dz, db))", "else batch_total(0.5 * dz, db))"),
    ("nn/layers", "Linear: bias", "z = z + row(b)", "z = z - row(b)"),
    ("nn/layers", "BatchNorm: biased variance", "average @ (centred * centred)",
     "average @ (centred * centred) * (n / (n - 1))"),
    ("nn/layers", "BatchNorm: eps", "spread + self.eps)", "spread + 2 * self.eps)"),
    ("nn/layers", "BatchNorm: mean of dy", "dy = dy - row(dbeta) * (1.0 / n)", "dy = dy * 1.0"),
    ("nn/layers", "BatchNorm: projection on x_hat", "dy -= centred * (dgamma", "dy += centred * (dgamma"),
    ("nn/layers", "BatchNorm: dgamma", "(dy * centred) / deviation", "(dy * centred)"),
    ("nn/layers", "BatchNorm: dbeta", "dbeta = batch_total(dy, into", "dbeta = batch_total(-dy, into"),
    ("nn/layers", "BatchNorm: scale of dx", "return dy * scale, (dgamma", "return dy / deviation, (dgamma"),
    ("nn/layers", "ReLU: pullback", "return dy * xp.astype(real(y) > 0, dy.dtype), ()", "return dy, ()"),
    ("nn/layers", "LeakyReLU: pullback", "return dy * factor, ()", "return dy, ()"),
    ("nn/layers", "LeakyReLU: slope", "(1.0 - positive) * self.slope", "(1.0 - positive) / self.slope"),
    ("nn/layers", "Tanh: pullback", "return dy * (1.0 - y * y), ()", "return dy * (1.0 - y), ()"),
    ("nn/layers", "Dropout: pullback", "return dy * mask, ()", "return dy, ()"),
    ("nn/layers", "Dropout: scaling", "x.dtype) / (1.0 - self.rate)", "x.dtype)"),
    ("nn/layers", "Standardize: pullback", "(dy * scale if wrt_input else None)", "(dy if wrt_input else None)"),
    ("nn/layers", "Standardize: offset", "y = (x - offset) * scale", "y = (x + offset) * scale"),
    ("nn/losses", "cross-entropy: pullback", "return (exp / total - targets) * (factor",
     "return (exp / total + targets) * (factor"),
    ("nn/losses", "cross-entropy: mean over the batch", "(factor * (1.0 / n))", "factor"),
    ("nn/losses", "cross-entropy: value", "xp.log(total) - class_sum(", "xp.log(total) + class_sum("),
    ("nn/losses", "L2 penalty", "return l2 * sum(", "return 0.5 * l2 * sum("),
    ("nn/gradcheck", "gradient of the penalty", "found[n] + 2.0 * l2 * arrays[n]", "found[n] + l2 * arrays[n]"),
    ("training/optimizers", "SGD: step",
     "            g *= lr\n            w -= g", "            g *= lr\n            w += g"),
    ("training/optimizers", "SGD: penalty", "w *= 1.0 - 2.0 * lr * l2", "w *= 1.0 - lr * l2"),
    ("training/optimizers", "SGD: velocity", "v *= self.momentum\n", "v *= 1.0 - self.momentum\n"),
    ("training/optimizers", "SGD: Nesterov", "lr * (g + self.momentum * v)", "lr * (g + v)"),
    ("training/optimizers", "SGD: penalty with momentum", "g += (2.0 * l2) * w\n        v *= self.momentum",
     "g += l2 * w\n        v *= self.momentum"),
    ("training/optimizers", "Adam: first moment", "m += (1.0 - self.beta1) * g", "m += self.beta1 * g"),
    ("training/optimizers", "Adam: second moment", "v += (1.0 - self.beta2) * g", "v += self.beta2 * g"),
    ("training/optimizers", "Adam: square", "        g *= g\n", ""),
    ("training/optimizers", "Adam: bias correction 1", "lr / (1.0 - self.beta1 ** (step + 1))", "lr"),
    ("training/optimizers", "Adam: bias correction 2", "v / (1.0 - self.beta2 ** (step + 1))", "v"),
    ("training/optimizers", "Adam: eps", "+ self.eps)", "+ 1e3 * self.eps)"),
    ("training/optimizers", "AdamW: decay", "w *= 1.0 - lr * self.weight_decay", "w *= 1.0 + lr * self.weight_decay"),
    ("training/schedules", "CyclicLR: fall", "else 2.0 - phase", "else phase - 1.0"),
    ("training/schedules", "CyclicLR: period", "(step % (2 * self.step_size))", "(step % (2 * self.step_size + 1))"),
    ("training/schedules", "CyclicLR: range", "rise * (self.eta_max - self.eta_min)", "rise * self.eta_max"),
    ("training/schedules", "Step: drops", "drops = step // at", "drops = (step + 1) // at"),
    ("training/schedules", "Step: milestones", "sum(bool(step >= update) for", "sum(bool(step > update) for"),
    ("training/schedules", "Step: factor", "self.eta * self.gamma**drops", "self.eta * self.gamma"),
    ("training/schedules", "Cosine: shape", "0.5 * (1.0 + math.cos(", "0.5 * (1.0 - math.cos("),
    ("training/schedules", "Cosine: end", "min(step / self.steps, 1.0)", "step / self.steps"),
    ("training/schedules", "Constant", "return self.eta\n", "return 2 * self.eta\n"),
    ("nn/initializers", "He", "math.sqrt(2.0 / fan_in)", "math.sqrt(1.0 / fan_in)"),
    ("nn/initializers", "Xavier", "math.sqrt(2.0 / (fan_in + fan_out))", "math.sqrt(1.0 / (fan_in + fan_out))"),
    ("training/rows", "standardisation: mean over blocks", "off * (m / rows.stop)", "off * 0.5"),
    ("training/rows", "standardisation: squares between blocks", "off**2 * (m * rows.start", "off**2 * (m * rows.stop"),
    ("training/two_threads", "rows of the other half", "2 * rows + self._which)", "2 * rows)"),
    ("training/two_threads", "gradient of the batch before", "descent.add_product(x, d, self._columns)",
     "descent.add_product(self.x, d, self._columns)"),
    ("training/two_threads", "sum of both products", "self._mine.z + self._other.z", "self._mine.z + self._mine.z"),
    ("training/step", "running statistics: rate", "rates = [1.0 - layer.momentum", "rates = [layer.momentum"),
    ("training/step", "running statistics: first batch", "if step else 1.0", "if step >= 0 else 1.0"),
]


def survives(copy: Path, file: str, old: str, new: str) -> str:
    """Break a line in the copy and run the tests; give the first test that fails, or nothing."""
    path = copy / "xpnet" / f"{file}.py"
    source = path.read_text("utf-8")
    if source.count(old) != 1:
        raise SystemExit(f"xpnet/{file}.py holds {source.count(old)} times, not once: {old!r}")
    path.write_text(source.replace(old, new), encoding="utf-8")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *TESTS], cwd=copy, text=True,
            capture_output=True, check=False,
            env={**os.environ, "XPNET_BACKENDS": "numpy", "PYTHONPATH": str(copy), "OPENBLAS_NUM_THREADS": "1"},
        )
    finally:
        path.write_text(source, encoding="utf-8")
    if done.returncode not in (0, 1):
        raise SystemExit(done.stdout + done.stderr)
    lines = done.stdout.splitlines()
    failed = [line.split(" ", 1)[1].split(" - ")[0] for line in lines if line.startswith(("FAILED", "ERROR"))]
    return failed[0].removeprefix("tests/") if done.returncode else ""


def main() -> int:
    lines, alive = [], 0
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory) / "xpnet"
        for name in ("xpnet", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        for file, what, old, new in MUTANTS:
            caught = survives(copy, file, old, new)
            alive += not caught
            shown = " ".join(new.split()) or "(line removed)"
            lines.append(f"| {file}.py | {what} | `{shown}` | {f'`{caught}`' if caught else '**none**'} |")
            print(lines[-1], flush=True)
    head = (f"# Mutants\n\nMade by `python tools/mutants.py`: one line broken at a time, and the first test that "
            f"fails. {len(MUTANTS) - alive} of {len(MUTANTS)} are caught.\n\n"
            "| file | what | broken line | caught by |\n| --- | --- | --- | --- |\n")
    (ROOT / "docs" / "mutants.md").write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
    return 1 if alive else 0


if __name__ == "__main__":
    raise SystemExit(main())
