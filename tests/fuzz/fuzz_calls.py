"""Random calls of the public API: each ends in numbers that an independent model confirms, or in an error of ours.

``python tests/fuzz/fuzz_calls.py COUNT SEED`` makes at least so many calls, and prints what came of them as JSON.

Seeds draw the calls, and no state machine of hypothesis: a failure is named by one number, a hundred thousand calls
need no database, and a network with fewer layers, to which hypothesis would shrink it, rounds otherwise and may pass.
"""

from __future__ import annotations

import collections
import itertools
import json
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))  # where this is run by itself

import reference
from answers import CALLS, FoundError, Refused, answer, confirm
from command_calls import CommandCalls
from conversion_calls import ConversionCalls
from odd_data import Features

import xpnet
from xpnet import Ensemble, GridSearch, MLPClassifier, MLPRegressor, Network, Trainer

#: What seeds stand for, in turn; commands take longest.
KINDS = ("train", "resume", "estimate", "sweep", "convert") * 2 + ("command",)


class Calls(ConversionCalls, CommandCalls):
    """Random calls of every kind."""

    def __init__(self, seed: int, folder: Path) -> None:
        super().__init__(seed, folder)
        self.size: Any = self.pick(3, np.int64(5), 100)
        self.limit: Any = self.pick(None, 1.0, np.float32(0.1))

    def train(self) -> None:
        """Train on the whole batch, and compare with the independent model; then predict, save, load, and resume."""
        n, k, classes = int(self.rng.integers(3, 20)), int(self.rng.integers(1, 6)), int(self.rng.integers(2, 4))
        x, regression = self.features(n, k), self.rng.random() < 0.3
        y, exact, wrong = self.labels(n, classes)
        if regression:
            y = exact = self.rng.normal(size=(n, classes))
            wrong = ""
        l2 = self.pick(0.0, 0.01, np.float32(0.1), np.int64(0))
        rule, momentum, decay = self.pick(("sgd", 0.0, 0.0), ("sgd", 0.9, 0.0), ("adamw", 0.0, 0.01))
        optimizer = xpnet.SGD(momentum) if rule == "sgd" else xpnet.AdamW(weight_decay=decay)
        architecture = self.architecture(k, classes)
        lr, steps = self.pick(0.1, np.float64(0.01), 1e-3), self.pick(1, 3, np.int32(2))
        dtype = self.pick("float32", "float64")
        if any(isinstance(layer, xpnet.Tanh) for layer in architecture.layers):
            dtype = "float64"  # 1 - tanh^2 of a saturated unit has no correct digit in float32
        if any(isinstance(layer, xpnet.BatchNorm) for layer in architecture.layers):
            rule, optimizer = "sgd", xpnet.SGD(momentum)  # Adam would blow up what rounding leaves of a gradient of 0
        loss = xpnet.MeanSquaredError() if regression else None
        make = lambda: Trainer(architecture, optimizer=optimizer, schedule=lr, l2=l2, loss=loss, batch_size=np.int64(n),  # noqa: E731
                               dtype=dtype, seed=self.pick(0, np.uint8(3)))
        trainer = answer(make)
        start: dict[str, Any] = {}
        original = trainer.start

        def started(*arguments: Any, **options: Any) -> None:
            original(*arguments, **options)
            start.update({name: np.array(a, np.float64) for name, a in trainer.arrays.items()})

        trainer.start = started
        bad = x.bad if x.bad not in ("", "maybe") else wrong
        self.expect(bad, lambda: trainer.fit(x.given, y, steps=steps))
        layers = reference.describe(architecture)
        if layers[0][0] == "Standardize":
            deviation = x.values.std(axis=0)
            flat = deviation <= 1e-7 * np.abs(x.values).max(axis=0)
            confirm(np.where(flat, 0, start["offset1"] - x.values.mean(axis=0)),
                    0 * deviation, 1e-6 * (np.abs(x.values).max(axis=0) + 1e-300), "offset")
        with np.errstate(all="ignore"):
            options = {"steps": int(steps), "lr": float(lr), "l2": float(l2), "rule": rule, "momentum": momentum,
                       "decay": decay}
            expected = reference.train(layers, start, x.values, exact, **options)
            small = 16 * float(np.finfo(dtype).eps)
            moved = [reference.train(layers, start, x.values, exact, rounding=self.rounding(64 * small), **options)
                     for _ in range(6)]
        for name, array in trainer.arrays.items():
            want = expected[name]
            spread = np.max([np.abs(m[name] - want) for m in moved], axis=0).max()
            size = np.abs(want).max()
            if name.startswith("mean"):  # of numbers that may be much larger
                size = max(size, np.sqrt(expected["var" + name[4:]].max()))
            # Beyond this the model says nothing: what rounding does to it decides the numbers.
            known = np.isfinite(want).all() and size < 1e30 and spread < 1e-2 * size
            if known and name[:-1] not in ("offset", "scale"):
                confirm(array, want, 8 * spread + 1e4 * small * size + small, f"{name} after {steps} updates")
        found = answer(lambda: trainer.evaluate(x.given, y))
        got, tolerance = self.modelled(trainer.network, x.values, rounded_input=True)
        value, size = reference.loss(got, exact)[0], np.abs(got).max()
        # Where rounding decides the outputs, as behind a batch norm of features that do not vary, so it does the loss.
        if np.isfinite(value) and size < 1e4 and tolerance < 1e-2 * (1 + size):
            confirm(found["loss"], value, (1e4 * small + 4 * tolerance) * (1 + size**2), "loss")
        self.files(trainer.network, self.features(n, k))

    def resume(self) -> None:
        """Stop a run, resume it from its checkpoint, and compare with the run that was not stopped, bit for bit."""
        n, k = int(self.rng.integers(4, 20)), int(self.rng.integers(1, 5))
        x, (y, _, wrong) = self.features(n, k), self.labels(n, 3)
        network, dtype = self.architecture(k, 3), self.pick("float32", "float64")
        optimizer = self.pick(xpnet.SGD(0.9), xpnet.Adam(), xpnet.SGD())
        l2 = self.pick(0.0, np.float32(0.1), [0.0, 0.1])
        folder = Path(tempfile.mkdtemp(dir=self.folder))

        def make() -> Trainer:
            return Trainer(network, optimizer=optimizer, l2=l2, dtype=dtype, batch_size=self.size, schedule=0.01,
                           clip_norm=self.limit, callbacks=[xpnet.Checkpoints(folder)])

        bad = x.bad if x.bad not in ("", "maybe") else wrong
        whole = answer(make)
        self.expect(bad, lambda: whole.fit(x.given, y, steps=6, evaluate_every=2))
        shutil.rmtree(folder / "checkpoints")
        part, resumed = answer(make), answer(make)
        answer(lambda: part.fit(x.given, y, steps=4, evaluate_every=2))
        answer(lambda: resumed.resume(folder))
        answer(lambda: resumed.fit(x.given, y, steps=6, evaluate_every=2))
        for name, array in whole.state().items():
            if not np.array_equal(np.asarray(resumed.state()[name]), np.asarray(array)):
                raise FoundError(f"resumed: {name} has other bits")

    def files(self, network: Network, x: Features) -> None:
        """Save, load, convert and fold, and compare predictions."""
        self.outputs(network, x, "outputs")
        path = self.folder / self.pick("n.safetensors", "n.npz")
        if path.suffix == ".npz":
            answer(lambda: network.to_npz(path))
            options = network.architecture
            other = answer(lambda: Network.from_npz(path, architecture=options))
        else:
            answer(lambda: network.save(path))
            other = answer(lambda: Network.load(path))
        for name, array in network.arrays.items():
            if not np.array_equal(np.asarray(other.arrays[name]), np.asarray(array)):
                raise FoundError(f"{path.name}: {name} is another one")
        labels = answer(lambda: network.predict(x.given)) if network.architecture.out_features > 1 else None
        if labels is not None:
            raw = np.asarray(answer(lambda: network(x.given)))
            if not np.isfinite(raw).all():
                raise FoundError("a class for outputs that are not finite")
            if len(raw) and not (raw[np.arange(len(raw)), np.asarray(labels)] >= raw.max(axis=1)).all():
                raise FoundError("predict: not the likeliest class")
        plain = answer(network.fold)
        folded = np.asarray(answer(lambda: plain(x.given)))
        if np.abs(raw).max(initial=0.0) < 1e30:
            scale = np.abs(raw).max(initial=0.0) + 1.0
            confirm(folded, raw, (1e-2 if raw.dtype == np.float32 else 1e-9) * scale, "folded")
        both = answer(lambda: Ensemble([network, other]).predict_proba(x.given))
        confirm(np.asarray(both).sum(axis=-1), np.ones(len(raw)), 1e-5, "probabilities")

    def estimate(self) -> None:
        """Fit an estimator or a grid of them, predict and score."""
        n, k, classes = int(self.rng.integers(4, 30)), int(self.rng.integers(1, 5)), int(self.rng.integers(2, 4))
        x, (y, _, wrong) = self.features(n, k), self.labels(n, classes)
        options: dict[str, Any] = {
            "hidden_layer_sizes": self.pick((3,), [4, 2], (), (np.int64(3),)), "max_iter": self.pick(1, 3, np.int16(2)),
            "batch_size": self.pick("auto", 5, np.int64(200)), "random_state": self.pick(0, np.int64(1)),
            "early_stopping": bool(self.rng.random() < 0.2), "learning_rate_init": self.pick(1e-3, np.float32(0.01)),
            "solver": self.pick("adam", "sgd", "adamw"),
        }
        if self.rng.random() < 0.15:
            name, value = self.pick(("max_iter", 0), ("max_iter", 2.5), ("batch_size", -1), ("learning_rate_init", "x"),
                                    ("hidden_layer_sizes", "abc"), ("solver", "none"), ("random_state", -1),
                                    ("learning_rate_init", float("nan")), ("hidden_layer_sizes", (0,)))
            options[name] = value
            wrong = wrong if wrong not in ("", "maybe") else "parameter"
        regression = self.rng.random() < 0.3
        # A classifier takes labels of any range and kind.
        always = ("shape", "nan", "masked", "parameter")
        wrong = "maybe" if wrong == "range" or (regression and wrong not in always) else wrong
        model: Any = answer(lambda: (MLPRegressor if regression else MLPClassifier)(**options))
        if self.rng.random() < 0.15:
            model = answer(lambda: GridSearch(model, {"l2": [0.0, 0.01]}, cv=2))
        bad = x.bad if x.bad not in ("", "maybe", "width") else wrong  # an estimator takes any width
        self.expect(bad, lambda: model.fit(x.given, y))
        k = int(model.n_features_in_)
        if not isinstance(model, GridSearch) and self.rng.random() < 0.3:
            more = self.features(n, k)
            self.expect(more.bad if more.bad != "rows" else "maybe", lambda: model.partial_fit(more.given, y))
        again = self.features(n, k)
        found = np.asarray(self.expect(again.bad, lambda: model.predict(again.given)))
        if found.dtype.kind == "f" and not np.isfinite(found).all():
            raise FoundError(f"predict: not finite: {found}")
        if not regression:
            p = np.asarray(answer(lambda: model.predict_proba(again.given)))
            confirm(p.sum(axis=1), np.ones(len(p)), 1e-5, "probabilities")
            score = answer(lambda: model.score(again.given, y if len(np.asarray(y)) == len(p) else found))
            if not 0 <= score <= 1:
                raise FoundError(f"score {score}")

    def sweep(self) -> None:
        """Train members side by side, and compare one with its solo run."""
        n, k = int(self.rng.integers(4, 20)), int(self.rng.integers(1, 5))
        x, (y, _, wrong) = self.features(n, k), self.labels(n, 3)
        bad = x.bad if x.bad not in ("", "maybe") else wrong
        network = self.architecture(k, 3)
        l2 = [0.0, self.pick(0.1, np.float32(0.01), 1)]

        def make(l2: float, seed: int) -> Trainer:
            return Trainer(network, l2=l2, seed=seed, dtype="float64", batch_size=5, schedule=0.01, order_seed=0)

        found = self.expect(bad, lambda: xpnet.sweep(make, {"l2": l2, "seed": [0, 1]}, x.given, y, steps=3,
                                                     validation=(x.given, y)))
        best = found.network(3)
        solo = make(l2[1], 1)
        answer(lambda: solo.fit(x.given, y, steps=3))
        for name, array in solo.arrays.items():
            size = np.abs(np.asarray(array)).max()
            confirm(best.arrays[name], array, 1e-6 * size + 1e-9, f"sweep: {name}")


def run(seeds: Iterable[int], folder: Path, most: int = 50) -> tuple[collections.Counter[str], list[str]]:
    """Make calls from each seed, until so many failed; return how many were confirmed and refused, and what failed."""
    counts: collections.Counter[str] = collections.Counter()
    failures = []
    for seed in seeds:
        kind = KINDS[seed % len(KINDS)]
        try:
            getattr(Calls(seed, folder), kind)()
            counts[f"{kind}: confirmed"] += 1
        except Refused:
            counts[f"{kind}: refused"] += 1
        except FoundError as error:
            failures.append(f"{kind}, seed {seed}: {error}")
            if len(failures) == most:
                break
    return counts, failures


def main() -> int:
    """Make as many calls as the command line asks for, at least."""
    count, seed = map(int, sys.argv[1:3])
    with tempfile.TemporaryDirectory() as folder:
        counts, failures = run(itertools.takewhile(lambda _: CALLS["calls"] < count, itertools.count(seed)),
                               Path(folder))
    print(json.dumps({**CALLS, **counts, "failures": failures}, indent=1))
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
