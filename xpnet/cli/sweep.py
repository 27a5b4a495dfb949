"""``xpnet sweep``: one training run for many values, from the command line."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import datasets
from .._version import __version__
from ..backend import Device
from ..files import write_text
from ..files.json_form import plain
from ..nn.initializers import Normal
from ..nn.sequential import mlp
from ..sweeps.plan import make_trainers
from ..sweeps.refine import coarse_to_fine
from ..sweeps.results import Sweep
from ..sweeps.space import Uniform, points
from ..sweeps.sweep import sweep
from ..training.optimizers import SGD
from ..training.schedules import CyclicLR
from ..training.trainer import DivergenceError, Trainer
from . import config as cli_config
from .options import COUNT, RATE, Values, add_configuration, add_data, widths

__all__ = ["add_arguments", "run"]

#: What may have several values: the option, what its values are, and its default.
_SWEPT: dict[str, tuple[type, str | None, str]] = {
    "l2": (float, "0", "cost = loss + l2 * sum of squared weights"),
    "lr": (float, "0.1", "the highest learning rate of the cycle"),
    "lr_min": (float, "1e-5", "the lowest, unless --lr is lower still"),
    "sigma": (float, None, "standard deviation of the initial weights; He's by default"),
    "dropout": (float, "0", "rate after each ReLU"),
    "momentum": (float, "0", "of SGD"),
    "seed": (int, "0", "seeds; 0:5 are 0 to 4"),
}


@dataclass(frozen=True)
class _Make:
    """From a point's values to a trainer."""

    features: int
    classes: int
    batch_norm: bool
    standardize: bool
    step_size: int
    batch_size: int
    dtype: str
    device: str
    feature_names: tuple[str, ...] | None = None

    def __call__(self, hidden: list[int], l2: float, lr: float, lr_min: float, sigma: float | None, dropout: float,
                 momentum: float, seed: int) -> Trainer:
        network = mlp(self.features, hidden, self.classes, batch_norm=self.batch_norm, dropout=dropout,
                      initializer=None if sigma is None else Normal(sigma), standardize=self.standardize,
                      feature_names=self.feature_names)
        return Trainer(network, optimizer=SGD(momentum), schedule=CyclicLR(min(lr_min, lr), lr, self.step_size), l2=l2,
                       batch_size=self.batch_size, seed=seed, dtype=self.dtype, device=self.device)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``xpnet sweep``."""
    add = parser.add_argument
    add_data(parser)
    add("--hidden", action="append", type=widths, metavar="WIDTHS",
        help="widths of the hidden layers, like 50,50, the default; may be repeated")
    add("--batch-norm", action=argparse.BooleanOptionalAction, default=False, help="batch norm before each ReLU")
    add("--standardize", action=argparse.BooleanOptionalAction, default=True, help="standardise the features")
    for name, (kind, default, text) in _SWEPT.items():
        add(f"--{name.replace('_', '-')}", type=Values(kind), default=default, metavar="VALUES", help=text)
    add("--draws", type=COUNT, default=8, help="points drawn from log-uniform(...) and uniform(...) values")
    add("--coarse-to-fine", action=argparse.BooleanOptionalAction, default=False,
        help="draw again from the interval that the best points span")
    add("--halve-at", type=Values(int), metavar="STEPS",
        help="updates at which the worse half is dropped, like 1000,2000")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=RATE, default=20.0, help="passes over the data")
    length.add_argument("--steps", type=COUNT, help="updates, instead of --epochs")
    add("--step-size", type=COUNT, help="updates of half a cycle; 5 epochs by default")
    add("--evaluate-every", type=COUNT, metavar="STEPS", help="updates between evaluations; an epoch by default")
    add("--batch-size", type=COUNT, default=100, help="examples per update")
    add("--dtype", choices=("float32", "float64"), default="float32")
    add("--device", default="cpu", help="cpu, cuda, cuda:N or auto")
    add("--block-size", type=COUNT, metavar="M", help="networks trained side by side; by default as memory allows")
    add("--workers", type=COUNT, default=1, help="processes on this machine")
    add("--dask", metavar="ADDRESS", help="train on a Dask cluster, like tcp://scheduler:8786")
    add("--out", type=Path, metavar="DIR", help="keep blocks, tables, curves and the best network here; "
        "the same command again does only what is missing")
    add_configuration(parser)


def run(a: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Carry out ``xpnet sweep``; give what to print, as plain values and as text.

    Raises
    ------
    DivergenceError
        If every network diverged; ``--out`` has been written.
    """
    a.hidden = a.hidden or [[50, 50]]
    space: dict[str, Any] = {"hidden": a.hidden}
    space |= {name: [None] if getattr(a, name) is None else getattr(a, name) for name in _SWEPT}
    if a.coarse_to_fine and not any(isinstance(v, Uniform) for v in space.values()):
        raise ValueError("--coarse-to-fine needs values to draw, like --l2 'log-uniform(1e-5, 1e-1)'")
    device = Device(a.device)
    data = datasets.load(a.data, train=a.images)
    x, y = data.train
    per_epoch = -(-len(y) // min(a.batch_size, len(y)))
    make = _Make(x.shape[1], len(data.classes), a.batch_norm, a.standardize, a.step_size or 5 * per_epoch,
                 a.batch_size, a.dtype, device.name, data.feature_names)
    a.data = a.data or ("synthetic" if data.name == "synthetic" else "cifar10")
    a.step_size = make.step_size
    if a.dry_run:
        networks = len(make_trainers(make, points(space, draws=a.draws))) * (1 + a.coarse_to_fine)
        return cli_config.dry(a, f"{networks:,} networks", f"{len(y):,} training {data.noun}",
                              f"{per_epoch:,} updates an epoch", f"on {device.name} {device.why}".rstrip())
    if not a.json:
        print(f"data: {data.name}, {data.source}; device: {device.name} {device.why}".rstrip(), flush=True)
    with _dask(a.dask) as executor:
        options: dict[str, Any] = {
            "steps": a.steps, "epochs": None if a.steps else a.epochs, "validation": data.validation, "draws": a.draws,
            "evaluate_every": a.evaluate_every, "block_size": a.block_size, "workers": a.workers, "executor": executor,
            "halve_at": a.halve_at or (), "directory": a.out,
        }
        if a.coarse_to_fine:
            found = coarse_to_fine(make, space, x, y, **options)
            result, tables = found.better, {"coarse": found.coarse.table(), "fine": found.fine.table()}
        else:
            result = sweep(make, space, x, y, **options)
            tables = {"table": result.table()}
    if len(result.diverged) == len(result):
        raise DivergenceError(f"every network diverged; the first: {result.diverged[0][1]}; lower --lr or --sigma")
    shown = [name for name, values in space.items() if isinstance(values, Uniform) or len(values) > 1]
    lines = [line for name, table in tables.items() for line in _lines(name, table, shown, result)]
    test = result.ensemble([result.best]).evaluate(*data.test)["accuracy"]
    together = result.ensemble().evaluate(*data.test)
    networks = len(together["members"])
    lines.append(f"test accuracy: best network {test:.4f}; ensemble of {networks} {together['accuracy']:.4f}")
    if a.out:
        result.network().save(a.out / "best.safetensors")  # of both rounds, where there are two
        config = {"version": __version__, "command": "sweep", "data": data.name, "source": data.source,
                  "place": data.source if a.data == "cifar10" else a.data, "classes": data.classes,
                  "image_shape": data.image_shape, "score": result.score, "device": device.name,
                  "arguments": a.given}
        write_text(a.out / "config.json", json.dumps(config, indent=1) + "\n")
        lines.append(f"wrote {a.out}")
    told = {"data": data.name, "device": device.name, **tables,
            "best": {**result.points[result.best], "test_accuracy": test},
            "ensemble": {"networks": networks, "test_accuracy": together["accuracy"]},
            "out": str(a.out) if a.out else None}
    return plain(told), "\n".join(lines)


def _lines(name: str, table: list[dict[str, Any]], shown: list[str], result: Sweep) -> list[str]:
    """Write a table in plain text: what was swept, and the score with its interval over seeds."""
    score, columns = result.score, [n for n in shown if n != "seed"] or ["hidden"]
    columns += ["step"] if len({row["step"] for row in table}) > 1 else []
    rows = [[*columns, score, "+- (95 %)", "seeds", "diverged"]]
    for row in table:
        margin = row[f"{score}_margin"]
        rows.append([*[f"{row[c]:.4g}" if isinstance(row[c], float) else str(row[c]) for c in columns],
                     f"{row[score]:.4f}", "" if margin != margin else f"{margin:.4f}", str(row["n"]),
                     str(row["diverged"] or "")])
    room = [max(len(line[i]) for line in rows) for i in range(len(rows[0]))]
    title = [] if name == "table" else [f"{name}:"]
    return title + ["  ".join(v.ljust(w) for v, w in zip(line, room, strict=True)).rstrip() for line in rows]


@contextlib.contextmanager
def _dask(address: str | None) -> Iterator[Any]:
    """Return a client of a Dask cluster, or none without an address."""
    if not address:
        yield None
        return
    try:
        from distributed import Client  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        raise ImportError("--dask needs Dask: pip install 'xpnet[dask]'") from None
    with Client(address) as client:  # type: ignore[no-untyped-call, unused-ignore]
        yield client
