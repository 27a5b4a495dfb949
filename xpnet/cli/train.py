"""``xpnet train``: train one network from the command line, saved to a run directory and resumable."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import datasets
from .._version import __version__
from ..backend import Device, OutOfMemoryError, format_bytes
from ..files.locks import StaleLockWarning
from ..files.storage import DamagedError, read_file, read_json, replace_file
from ..nn.formats.safetensors import CheckpointError
from ..nn.per_model import describe
from ..nn.sequential import mlp
from ..nn.summary import layers
from ..sweeps.store import DamagedBlockWarning
from ..training.callbacks import Callback, JSONLines, Progress
from ..training.checkpoints import Checkpoints, ResumeWarning, steps_in
from ..training.divergence import DivergenceWarning
from ..training.interrupts import stop_on_signals
from ..training.optimizers import SGD, Adam, AdamW
from ..training.run_directory import CONFIG_SIZE
from ..training.schedules import Constant, Cosine, CyclicLR, Step
from ..training.trainer import Trainer
from . import config as cli_config
from .options import COUNT, RATE, Number, add_architecture, add_configuration, add_data, initializer

__all__ = ["add_arguments", "read_config", "run", "warnings_in_lines"]

_PIXELS = 3072  # bytes of an image


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``xpnet train``."""
    add_architecture(parser)
    add = parser.add_argument
    add_data(parser)
    add("--standardize", action=argparse.BooleanOptionalAction, default=True, help="standardise the features")
    add("--initializer", type=initializer, default="he", help="he, xavier or normal:SIGMA")
    add("--optimizer", choices=("sgd", "adam", "adamw"), default="sgd")
    add("--momentum", type=Number(float, 0, below=1), help="of sgd; 0 by default")
    add("--nesterov", action=argparse.BooleanOptionalAction, default=False, help="Nesterov's momentum")
    add("--weight-decay", type=Number(float, 0), help="of adamw; 0.01 by default")
    add("--clip-norm", type=RATE, metavar="NORM", help="scale gradients of a larger norm down to this one")
    add("--schedule", choices=("cyclic", "constant", "step", "cosine"), default="cyclic")
    add("--lr", type=RATE, default=1e-1, help="the (highest) learning rate")
    add("--lr-min", type=Number(float, 0), default=1e-5, help="the lowest, of cyclic and cosine")
    add("--step-size", type=COUNT, help="updates of half a cycle, or between drops; 5 epochs by default")
    add("--batch-size", type=COUNT, default=100, help="examples per update")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=RATE, default=20.0, help="passes over the data")
    length.add_argument("--steps", type=COUNT, help="updates, instead of --epochs")
    add("--evaluate-every", type=COUNT, metavar="STEPS", help="updates between evaluations; an epoch by default")
    add("--divergence", choices=("raise", "halve"), default="raise",
        help="where the loss is not finite, end the run, or go back to the last evaluation and halve the rate")
    add("--dtype", choices=("float32", "float64"), default="float32")
    add("--device", default="cpu", help="cpu, cuda, cuda:N or auto")
    add("--out", type=Path, metavar="RUN", help="directory for history, curves, weights and checkpoints")
    add("--checkpoint-every", type=COUNT, default=1, metavar="N", help="evaluations between checkpoints")
    add("--resume", type=Path, metavar="RUN", help="go on with the run in this directory, with the options it had")
    add_configuration(parser)


def run(arguments: argparse.Namespace) -> tuple[dict[str, Any], str, int]:
    """Train; give the results, the same as text, and the exit code."""
    if arguments.resume and arguments.dry_run:
        raise ValueError("--dry-run shows what a new run would do: leave --resume away")
    a = _resumed(arguments) if arguments.resume else arguments
    a.saved = a.saved if arguments.resume else [*arguments.given]
    for name, owner in (("momentum", "sgd"), ("nesterov", "sgd"), ("weight_decay", "adamw")):
        if getattr(a, name) and a.optimizer != owner:
            raise ValueError(f"--{name.replace('_', '-')} belongs to --optimizer {owner}, not {a.optimizer}")
    if a.nesterov and not a.momentum:
        raise ValueError("--nesterov needs --momentum above 0")
    if a.schedule in ("cyclic", "cosine") and a.lr_min > a.lr:
        raise ValueError(f"--lr-min {a.lr_min:g} is above --lr {a.lr:g}")
    device = Device(a.device)
    _refuse_another_run(a)
    free = Device().free_memory()
    if a.images and a.data in (None, "synthetic") and free and a.images * _PIXELS > free:
        raise OutOfMemoryError(f"--images {a.images} need {format_bytes(a.images * _PIXELS)}, {format_bytes(free)} are "
                               "free: lower --images")
    data = datasets.load(a.data, train=a.images)
    network = mlp(data.train.x.shape[1], a.hidden, len(data.classes), batch_norm=a.batch_norm, dropout=a.dropout,
                  initializer=a.initializer, standardize=a.standardize, feature_names=data.feature_names)
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
    a.data = a.data or ("synthetic" if data.name == "synthetic" else "cifar10")
    a.step_size = size if a.schedule in ("cyclic", "step") else None
    checkpoints = Checkpoints(a.out, every=a.checkpoint_every) if a.out else None
    kept: list[Callback] = [JSONLines(a.out / "history.jsonl"), checkpoints] if checkpoints else []
    trainer = Trainer(network, optimizer=optimizer, schedule=schedule, l2=a.l2, clip_norm=a.clip_norm,
                      batch_size=a.batch_size, seed=a.seed, dtype=a.dtype, device=device,
                      callbacks=[Progress(), *kept], divergence=a.divergence)
    if a.dry_run:
        count = sum(row["parameters"] for row in layers(network))
        return *cli_config.dry(
            a, f"{len(data.train.y):,} training {data.noun}", f"{steps:,} updates ({per_epoch:,} an epoch)",
            f"{count:,} parameters", f"on {device.name} {device.why}".rstrip()), 0
    config = {"version": __version__, "data": data.name, "source": data.source,
              "place": data.source if a.data == "cifar10" else a.data, "classes": data.classes,
              "image_shape": data.image_shape, "network": network.config(),
              "optimizer": describe(optimizer), "schedule": describe(schedule), "l2": a.l2,
              "clip_norm": a.clip_norm, "batch_size": a.batch_size, "steps": steps, "seed": a.seed, "dtype": a.dtype,
              "device": device.name, "arguments": a.saved}
    with warnings_in_lines("train"), contextlib.ExitStack() as held:
        if checkpoints:
            a.out.mkdir(parents=True, exist_ok=True)
            held.enter_context(checkpoints.lock)
            _refuse_another_run(a)
            begun = a.resume is not None and bool(steps_in(a.out))
            if begun:
                trainer.resume(a.out)
            _write_again(JSONLines(a.out / "history.jsonl"), trainer)
            replace_file(a.out / "config.json", (json.dumps(config, indent=1) + "\n").encode())
        if not a.json:
            print(f"data: {data.name}, {data.source}; device: {device.name} {device.why}".rstrip())
            if a.resume:
                print(f"going on with {a.out} from {f'update {trainer.step}' if begun else 'the beginning'}")
        with stop_on_signals(trainer) as signals:
            history = trainer.fit(*data.train, steps=steps, validation=data.validation,
                                  evaluate_every=a.evaluate_every)
        if signals:
            name = signal.Signals(signals[0]).name
            then = f"go on with: xpnet train --resume {a.out}" if a.out else "nothing is kept, for there was no --out"
            print(f"xpnet train: ended by {name} after update {trainer.step} of {steps}; {then}", file=sys.stderr)
            return {}, "", 128 + signals[0]
        test = trainer.evaluate(*data.test)
        last = {k: v for k, v in history.rows[-1].items() if k != "lr"}
        result = {"data": data.name, **last, **{f"test_{k}": v for k, v in test.items()}}
        lines = [f"{k.replace('_', ' ')}: {v:.4f}" if isinstance(v, float) else f"{k}: {v}" for k, v in result.items()]
        if a.out:
            from .. import plotting

            trainer.network.save(a.out / "network.safetensors")
            title = f"{data.name}: hidden layers {a.hidden}".replace("$", r"\$")  # else a formula
            (a.out / "curves.png").unlink(missing_ok=True)  # a link would be written through
            plotting.save(plotting.history(history.columns, title=title), a.out / "curves.png")
            result["out"] = str(a.out)
            lines.append(f"wrote {a.out}/network.safetensors, history.jsonl, curves.png, config.json, checkpoints")
    return result, "\n".join(lines), 0


def _refuse_another_run(a: argparse.Namespace) -> None:
    if a.out and not a.resume and (a.out / "config.json").exists():
        raise FileExistsError(f"{a.out} already holds a run: go on with it with --resume {a.out}, choose another --out"
                              ", or remove it")


def _write_again(log: JSONLines, trainer: Trainer) -> None:
    """Write the rows of a history anew: an interrupted run may have logged some that it will measure again."""
    log.path.unlink(missing_ok=True)
    if trainer.history.rows:
        log.on_begin(trainer, 0)
        for row in trainer.history.rows:
            log.on_evaluation(trainer, row)
        log.on_end(trainer)


def _resumed(given: argparse.Namespace) -> argparse.Namespace:
    """Return the options that a run had, with those given now in their place."""
    if given.out and given.out != given.resume:
        raise ValueError(f"--resume writes to {given.resume}: leave --out {given.out} away")
    a, steps = read_config(given.resume / "config.json", given.parser)
    saved = a.saved
    a.epochs = a.steps = None
    a = argparse.Namespace(**{**vars(a), "json": False, "dry_run": False})
    given.parser.parse_args(given.given, a)
    if a.steps is None and a.epochs is None:
        a.steps = steps
    a.out, a.saved = given.resume, saved
    return a


def read_config(path: Path, parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, int]:
    """Return the options in a run's configuration, read as the command line's own are, and its number of updates.

    Raises
    ------
    FileNotFoundError
        If there is none.
    CheckpointError
        If it is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no run in {path.parent}: expected a directory that xpnet train --out wrote")
    said = io.StringIO()
    try:
        config = read_json(read_file(path, CONFIG_SIZE), path.name)
        if config.get("command") == "sweep":
            raise DamagedError("it is a sweep's: the same xpnet sweep command goes on with that")
        saved, steps = config.get("arguments"), config.get("steps")
        if type(saved) is not list or any(type(v) is not str for v in saved) or type(steps) is not int or steps < 1:
            raise DamagedError("it has no list of arguments, or no number of steps")
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            a = parser.parse_args(saved)
    except DamagedError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    except SystemExit:
        raise CheckpointError(f"{path} is damaged: {said.getvalue().strip()[:300]}") from None
    a.saved = saved
    return a, steps


@contextlib.contextmanager
def warnings_in_lines(command: str) -> Iterator[None]:
    """Write what is worth knowing to the standard error, without the place in the source."""
    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        print(f"xpnet {command}: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        for category in (DamagedBlockWarning, DivergenceWarning, ResumeWarning, StaleLockWarning):
            warnings.simplefilter("always", category)
        yield
