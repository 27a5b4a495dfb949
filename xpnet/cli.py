"""The command line: thin, over what the package offers. Plain text for people, ``--json`` for machines."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from . import __version__, datasets, gradcheck
from .backend import Device, DeviceError, survey
from .callbacks import JSONLines, Progress
from .hyper import describe
from .initializers import He, Normal, Xavier
from .network import mlp
from .optimizers import SGD, Adam, AdamW
from .schedules import Constant, Cosine, CyclicLR, Step
from .training import Trainer

__all__ = ["main"]

EXAMPLES = """examples:
  xpnet train --data synthetic --hidden 50,50 --batch-norm --out run
  xpnet gradcheck --hidden 50,50,50 --batch-norm
  xpnet gradcheck --all --backend strict
  xpnet data                    where CIFAR-10 is looked for, and what was found
  xpnet devices                 which devices work here, and what to do for the others
"""


class _Parser(argparse.ArgumentParser):
    """Answers a wrong argument with one line and exit code 2."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: error: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def _widths(text: str) -> list[int]:
    try:
        widths = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        widths = [0]
    if any(width < 1 for width in widths):
        raise argparse.ArgumentTypeError(f"expected widths of at least 1 separated by commas, like 50,50, got {text!r}")
    return widths


def _initializer(text: str) -> Any:
    if text in ("he", "xavier"):
        return {"he": He(), "xavier": Xavier()}[text]
    try:
        name, sigma = text.split(":")
        if name == "normal" and float(sigma) > 0:
            return Normal(float(sigma))
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"expected he, xavier or normal:SIGMA, like normal:1e-3, got {text!r}")


def _number(kind: type, low: float, *, above: bool = False, below: float = float("inf")) -> Callable[[str], Any]:
    """Make a reader of numbers from ``low`` on (or above it), and below ``below``."""
    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not (value > low if above else value >= low) or not value < below:
            upper = "" if below == float("inf") else f" and below {below:g}"
            raise argparse.ArgumentTypeError(
                f"expected {'an integer' if kind is int else 'a number'} {'above' if above else 'of at least'} "
                f"{low:g}{upper}, got {text!r}"
            )
        return value

    return read


_COUNT, _FROM_0, _RATE = _number(int, 1), _number(int, 0), _number(float, 0, above=True)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="xpnet", description="Train multilayer perceptrons on NumPy or CuPy arrays.", epilog=EXAMPLES,
                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"xpnet {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    def command(name: str, run: Callable[[Any], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text + ".",
                                  formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        sub.set_defaults(run=run)
        sub.add_argument("--json", action="store_true", help="write JSON instead of text")
        return sub

    train = command("train", _train, "train a network")
    _add_architecture(train)
    add = train.add_argument
    add("--data", help="synthetic, cifar10, or a CIFAR-10 directory or archive; CIFAR-10 where found, else synthetic")
    add("--images", type=_COUNT, metavar="N", help="train on so many images; all of CIFAR-10, 10,000 synthetic ones")
    add("--standardize", action=argparse.BooleanOptionalAction, default=True, help="standardise the pixels")
    add("--initializer", type=_initializer, default="he", help="he, xavier or normal:SIGMA")
    add("--optimizer", choices=("sgd", "adam", "adamw"), default="sgd")
    add("--momentum", type=_number(float, 0, below=1), help="of sgd; 0 by default")
    add("--nesterov", action="store_true", help="Nesterov's momentum")
    add("--weight-decay", type=_number(float, 0), help="of adamw; 0.01 by default")
    add("--schedule", choices=("cyclic", "constant", "step", "cosine"), default="cyclic")
    add("--lr", type=_RATE, default=1e-1, help="the (highest) learning rate")
    add("--lr-min", type=_number(float, 0), default=1e-5, help="the lowest, of cyclic and cosine")
    add("--step-size", type=_COUNT, help="updates of half a cycle, or between drops; 5 epochs by default")
    add("--batch-size", type=_COUNT, default=100, help="examples per update")
    length = train.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=_RATE, default=20.0, help="passes over the data")
    length.add_argument("--steps", type=_COUNT, help="updates, instead of --epochs")
    add("--evaluate-every", type=_COUNT, metavar="STEPS", help="updates between evaluations; an epoch by default")
    add("--dtype", choices=("float32", "float64"), default="float32")
    add("--device", default="cpu", help="cpu, cuda, cuda:N or auto")
    add("--out", type=Path, metavar="RUN", help="directory for history, curves and weights")

    check = command("gradcheck", _gradcheck, "compare gradients with numerical ones")
    _add_architecture(check)
    check.add_argument("--all", action="store_true", help="check every registered layer, loss and composite")
    check.add_argument("--parity", action="store_true", help="compare every case with NumPy in float64 instead")
    check.add_argument("--method", choices=("central", "complex", "both"), default="both")
    check.add_argument("--backend", choices=("numpy", "cupy", "torch", "strict"), default="numpy")
    check.add_argument("--samples", type=_number(int, 2), default=20)
    check.add_argument("--features", type=_COUNT, default=10)
    check.add_argument("--classes", type=_number(int, 2), default=10)

    data = command("data", _data, "tell where CIFAR-10 is looked for and what was found")
    data.add_argument("--data", metavar="DIR", help="look here only")
    data.add_argument("--download", action="store_true", help="fetch the binary archive (170 MB) into the user cache")

    command("devices", _devices, "tell which devices work, and what to do for the others")
    return parser


def _add_architecture(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--hidden", type=_widths, default="50,50", help="widths of the hidden layers, like 50,50")
    parser.add_argument("--batch-norm", action="store_true", help="batch norm before each ReLU")
    parser.add_argument("--dropout", type=_number(float, 0, below=1), default=0.0, help="rate after each ReLU")
    parser.add_argument("--l2", type=_number(float, 0), default=0.0, help="cost = loss + l2 * sum of squared weights")
    parser.add_argument("--seed", type=_FROM_0, default=0)


def _show(arguments: argparse.Namespace, result: Any, text: str) -> None:
    print(json.dumps(result) if arguments.json else text)


def _train(arguments: argparse.Namespace) -> int:
    a = arguments
    for name, owner in (("momentum", "sgd"), ("nesterov", "sgd"), ("weight_decay", "adamw")):
        if getattr(a, name) and a.optimizer != owner:
            raise ValueError(f"--{name.replace('_', '-')} belongs to --optimizer {owner}, not {a.optimizer}")
    if a.nesterov and not a.momentum:
        raise ValueError("--nesterov needs --momentum above 0")
    if a.schedule in ("cyclic", "cosine") and a.lr_min > a.lr:
        raise ValueError(f"--lr-min {a.lr_min:g} is above --lr {a.lr:g}")
    device = Device(a.device)
    if a.out and (a.out / "config.json").exists():
        raise FileExistsError(f"{a.out} already holds a run: choose another --out, or remove it")
    data = datasets.load(a.data, train=a.images)
    features, classes = data.train.x.shape[1], len(data.classes)
    network = mlp(features, a.hidden, classes, batch_norm=a.batch_norm, dropout=a.dropout, initializer=a.initializer,
                  standardize=a.standardize)
    optimizers: dict[str, Any] = {
        "sgd": SGD(a.momentum or 0.0, a.nesterov), "adam": Adam(),
        "adamw": AdamW(weight_decay=1e-2 if a.weight_decay is None else a.weight_decay)}
    optimizer = optimizers[a.optimizer]
    per_epoch = -(-len(data.train.y) // min(a.batch_size, len(data.train.y)))
    steps = a.steps or max(1, round(a.epochs * per_epoch))
    size = a.step_size or 5 * per_epoch
    schedules: dict[str, Any] = {"cyclic": CyclicLR(a.lr_min, a.lr, size), "constant": Constant(a.lr),
                                 "step": Step(a.lr, size), "cosine": Cosine(a.lr, steps, a.lr_min)}
    schedule = schedules[a.schedule]
    callbacks: list[Any] = [Progress()] + ([JSONLines(a.out / "history.jsonl")] if a.out else [])
    trainer = Trainer(network, optimizer=optimizer, schedule=schedule, l2=a.l2, batch_size=a.batch_size,
                      seed=a.seed, dtype=a.dtype, device=device, callbacks=callbacks)
    config = {"version": __version__, "data": data.name, "source": data.source, "network": network.config(),
              "optimizer": describe(optimizer), "schedule": describe(schedule), "l2": a.l2,
              "batch_size": a.batch_size, "steps": steps, "seed": a.seed, "dtype": a.dtype, "device": device.name}
    if a.out:
        a.out.mkdir(parents=True, exist_ok=True)
        (a.out / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    if not a.json:
        print(f"data: {data.name}, {data.source}; device: {device.name} {device.why}".rstrip())
    history = trainer.fit(*data.train, steps=steps, validation=data.validation, evaluate_every=a.evaluate_every)
    test = trainer.evaluate(*data.test)
    last = {k: v for k, v in history.rows[-1].items() if k != "lr"}
    result = {"data": data.name, **last, **{f"test_{k}": v for k, v in test.items()}}
    lines = [f"{k.replace('_', ' ')}: {v:.4f}" if isinstance(v, float) else f"{k}: {v}" for k, v in result.items()]
    if a.out:
        from . import plotting

        trainer.network.save(a.out / "network.safetensors")
        plotting.save(plotting.history(history.columns, title=f"{data.name}: hidden layers {a.hidden}"),
                      a.out / "curves.png")
        result["out"] = str(a.out)
        lines.append(f"wrote {a.out}/network.safetensors, history.jsonl, curves.png, config.json")
    _show(a, result, "\n".join(lines))
    return 0


def _gradcheck(arguments: argparse.Namespace) -> int:
    a = arguments
    device = Device.backend(a.backend)
    methods = ("central", "complex") if a.method == "both" else (a.method,)
    if a.parity:
        rows = [row for dtype in ("float64", "float32") for row in gradcheck.parity(device, dtype)]
    elif a.all:
        rows = [{"case": name, **row} for name, case in gradcheck.CASES.items()
                for row in gradcheck.check(*case(device), methods=methods)]
    else:
        network = mlp(a.features, a.hidden, a.classes, batch_norm=a.batch_norm, dropout=a.dropout)
        rows = gradcheck.check_network(network, samples=a.samples, l2=a.l2, seed=a.seed, device=device, methods=methods)
    for row in () if a.parity else rows:
        row["passes"] = gradcheck.passes(row)
    columns = list(rows[0])
    texts = [[_cell(row[c]) for c in columns] for row in rows]
    widths = [max(len(str(line[i])) for line in [columns, *texts]) for i in range(len(columns))]
    table = ["  ".join(str(v).ljust(w) for v, w in zip(line, widths, strict=True)).rstrip()
             for line in [columns, *texts]]
    failed = sum(not row["passes"] for row in rows)
    table.append(f"{len(rows) - failed} of {len(rows)} {'cases' if a.parity else 'gradients'} pass on {a.backend}")
    _show(a, {"backend": a.backend, "rows": rows, "passes": not failed}, "\n".join(table))
    return 1 if failed else 0


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:.2e}" if isinstance(value, float) else str(value)


def _data(arguments: argparse.Namespace) -> int:
    fetched = None
    if arguments.download:
        fetched = str(datasets.download_cifar10(arguments.data, progress=sys.stderr.isatty()))
    places = [{k: v if isinstance(v, bool | None) else str(v) for k, v in place.items()}
              for place in datasets.search_places(arguments.data)]
    found = any(place["found"] for place in places)
    lines = [f"fetched {fetched}"] if fetched else []
    lines += [f"{'found  ' if p['found'] else 'missing'}  {p['place']}: {p['path']} ({p['detail'] or p['layout']})"
              for p in places]
    if not found and not arguments.data:
        lines.append("without CIFAR-10 the embedded synthetic images are used; fetch it with: xpnet data --download")
    _show(arguments, {"places": places, "found": found, "downloaded": fetched}, "\n".join(lines))
    return 0 if found or not arguments.data else 2


def _devices(arguments: argparse.Namespace) -> int:
    rows = survey()
    lines = [f"{'works ' if row['works'] else 'absent'}  {row['device']}: {row['detail']}" for row in rows]
    _show(arguments, rows, "\n".join(lines))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and give its exit code: 0, 1 for a failed check or run, 2 for a wrong argument."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # who reads has enough
        return 1
    except (ValueError, TypeError, OSError, ImportError, DeviceError, MemoryError) as error:
        print(f"xpnet {arguments.command}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except ArithmeticError as error:
        print(f"xpnet {arguments.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"xpnet {arguments.command}: interrupted", file=sys.stderr)
        return 130
