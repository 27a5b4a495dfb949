"""A run at one update: taken from a trainer, written to files, read again, compared, and restored.

Arrays and the history's columns go to safetensors, everything else to JSON. Nothing is unpickled, and nothing in a file
is trusted before it has been compared with what the trainer expects.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .._version import __version__
from ..backend import Array, Device, namespace, ops_of, to_numpy
from ..files.json_form import field
from ..files.storage import DamagedError, read_directory, read_json
from ..nn.examples import blocks
from ..nn.formats.safetensors import CheckpointError, blas_in_use, pack, readable, unpack
from ..nn.scaling import compared_dtype
from .callback import Callback
from .history import History
from .state import RunState

if TYPE_CHECKING:
    from .trainer import Trainer

__all__ = ["ResumeError", "Snapshot", "compared", "differences", "environment", "files", "fingerprint", "mean",
           "read", "restore", "run_state", "take"]

ARRAYS, STATE = "arrays.safetensors", "state.json"
_FORMAT = "xpnet checkpoint 1"
_LONGEST = 2**24  # bytes of JSON: whatever they hold, it stays below half a gigabyte in memory


class ResumeError(ValueError):
    """The run in a directory is not the one that is to go on; the message names the differences."""


class Snapshot(NamedTuple):
    """A run at one update.

    Attributes
    ----------
    step : int
        Updates made.
    told : dict
        Everything that is not an array, in plain values.
    arrays : dict of str to array
        By kind and name: ``state/W1``, ``kept/W1``, ``callback/0/W1``, ``rows/train_loss``, ``batch_loss``.
    rows, batch_loss : list
        The history, as long as it is not among the arrays.
    """

    step: int
    told: dict[str, Any]
    arrays: dict[str, Any]
    rows: list[dict[str, Any]]
    batch_loss: list[Any]


def take(trainer: Trainer) -> Snapshot:
    """Copy a trainer's state; only what changes is copied, the rest is for ``files`` to convert."""
    run = trainer.run_state
    with trainer.network.device.activate():
        arrays = {f"state/{name}": a for name, a in run.arrays.items()}
        if run.finite_arrays and run.finite_step != run.step:
            arrays |= {f"kept/{name}": a for name, a in run.finite_arrays.items()}
        callbacks: list[dict[str, Any]] = []
        for callback in _stateful(trainer):
            arrays |= {f"callback/{len(callbacks)}/{name}": a for name, a in callback.arrays.items()}
            callbacks.append({"type": type(callback).__name__, "state": callback.state()})
        arrays = {name: to_numpy(a).copy(order="C") for name, a in arrays.items()}
    told = {
        "format": _FORMAT, "version": __version__, "step": run.step, "config": _config(trainer),
        "plan": dict(trainer.plan), "stopped": run.stopped, "unseen": run.unchecked,
        "kept_step": run.finite_step, "halvings": list(run.halvings), "callbacks": callbacks,
        "diverged": [[model, step, run.causes[model]] for model, step in run.diverged.items()],
        "environment": environment(trainer.network.device),
    }
    return Snapshot(run.step, told, arrays, list(run.history.rows), list(run.history.batch_loss))


def run_state(snapshot: Snapshot) -> RunState:
    """Return the state of the run of which a snapshot was taken, with arrays in host memory."""
    told, trees, history = snapshot.told, _trees(snapshot), History()
    history.rows, history.batch_loss = snapshot.rows, snapshot.batch_loss
    return RunState(
        step=snapshot.step, arrays=trees["state"], history=history, finite_step=told["kept_step"],
        finite_arrays=trees.get("kept") or trees["state"], unchecked=told["unseen"], stopped=told["stopped"],
        diverged={model: step for model, step, _ in told["diverged"]},
        causes={model: cause for model, _, cause in told["diverged"]},
        halvings=[str(cause) for cause in told["halvings"]],
    )


def _trees(snapshot: Snapshot) -> dict[str, dict[str, Any]]:
    """Return the arrays by kind, such as ``"callback/0"``, and name."""
    trees: dict[str, dict[str, Any]] = {"state": {}}
    for name, array in snapshot.arrays.items():
        kind, _, own = name.rpartition("/")
        trees.setdefault(kind, {})[own] = array
    return trees


def files(snapshot: Snapshot, data: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the contents of a checkpoint's files, with the data's fingerprint."""
    names = list(dict.fromkeys(name for row in snapshot.rows for name in row))
    arrays = {**snapshot.arrays, "batch_loss": to_numpy(snapshot.batch_loss)}
    for name in names:
        there = [i for i, row in enumerate(snapshot.rows) if name in row]
        arrays[f"rows/{name}"] = to_numpy([snapshot.rows[i][name] for i in there])
        arrays[f"there/{name}"] = to_numpy(there)
    told = {**snapshot.told, "columns": names, "rows": len(snapshot.rows), "data": data}
    content = json.dumps(told, indent=1, allow_nan=False).encode()
    if len(content) > _LONGEST:
        raise ValueError(f"a checkpoint's JSON has {len(content):,} bytes, more than the {_LONGEST:,} that are read: "
                         "keep large things of a callback in its arrays")
    return {ARRAYS: pack(arrays), STATE: content}


def read(path: Path) -> Snapshot:
    """Read a checkpoint.

    Raises
    ------
    CheckpointError
        If it is damaged; the message names it.
    ResumeError
        If another version of xpnet wrote it.
    """
    try:
        contents = read_directory(path, {ARRAYS: readable(), STATE: _LONGEST})
        told = read_json(contents[STATE], STATE)
        if told.get("format") != _FORMAT or told.get("version") != __version__:
            wrote = f"xpnet {str(told.get('version'))[:20]} ({str(told.get('format'))[:40]})"
            raise ResumeError(f"{path} was written by {wrote}, this is xpnet {__version__} ({_FORMAT}): go on with the "
                              "version that began")
        arrays = unpack(contents[ARRAYS])
        _check(told, arrays, path)
        rows: list[dict[str, Any]] = [{} for _ in range(told["rows"])]
        for name in told["columns"]:
            column, there = arrays.pop(f"rows/{name}"), arrays.pop(f"there/{name}")
            for i, value in zip(there.tolist(), list(column) if column.ndim > 1 else column.tolist(), strict=True):
                rows[i][name] = value
        losses = arrays.pop("batch_loss")
        return Snapshot(told["step"], told, arrays, rows, list(losses) if losses.ndim > 1 else losses.tolist())
    except (CheckpointError, DamagedError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, ResumeError):
            raise
        raise CheckpointError(f"{path} is damaged: it holds something else than a checkpoint ({error})") from error


def _check(told: dict[str, Any], arrays: Mapping[str, Any], path: Path) -> None:
    """Check that everything is there and of the right type."""
    kinds = {"step": int, "rows": int, "unseen": int, "kept_step": int, "stopped": bool, "config": dict, "plan": dict,
             "environment": dict, "data": dict, "columns": list, "halvings": list, "callbacks": list, "diverged": list}
    for name, kind in kinds.items():
        if type(told[name]) is not kind:
            raise TypeError(f"{name} is {str(told[name])[:40]!r}, expected {kind.__name__}")
    if path.name.lstrip(".").partition(".old")[0] != f"step-{told['step']:08d}":
        raise ValueError(f"its update is {told['step']}")
    if any(type(told["plan"].get(name)) is not int for name in ("steps", "evaluate_every", "train_sample")):
        raise TypeError(f"its plan is {str(told['plan'])[:80]}")
    if not (0 <= told["unseen"] <= len(arrays["batch_loss"]) <= 2**40 and 0 <= told["kept_step"]):
        raise ValueError("its counters do not fit its history")
    steps = arrays["rows/step"]
    if (steps.shape, steps.dtype.kind) != ((told["rows"],), "i") or not told["rows"]:
        raise ValueError("its rows have no updates")
    for entry in told["callbacks"]:
        if type(entry["type"]) is not str or type(entry["state"]) is not dict:
            raise TypeError("a callback's state is none")
    for model, step, cause in told["diverged"]:
        if (type(model), type(step), type(cause)) != (int, int, str):
            raise TypeError("what diverged is not told in numbers")


def restore(snapshot: Snapshot, trainer: Trainer) -> None:
    """Put a trainer, with its callbacks, where the snapshot was taken.

    Raises
    ------
    CheckpointError
        If the arrays are not the trainer's.
    """
    told, trees, before = snapshot.told, _trees(snapshot), trainer.device
    if not trainer.arrays:
        trainer.start(trainer.device or Device())
    expected = {name: (tuple(a.shape), trainer.dtype) for name, a in trainer.state().items()}
    for kind in {"state", *({"kept"} & trees.keys())}:
        found = {name: (a.shape, compared_dtype(name, a, trainer.architecture.inputs, trainer.dtype))
                 for name, a in trees.get(kind, {}).items()}
        if wrong := compared(found, expected):
            raise CheckpointError(f"the checkpoint at update {snapshot.step} has other arrays: {'; '.join(wrong)}")
    saved: list[tuple[int, dict[str, Any]]] = list(enumerate(told["callbacks"]))
    for callback in _stateful(trainer):
        i, entry = next(((i, e) for i, e in saved if e["type"] == type(callback).__name__), (-1, None))
        if entry is not None:
            saved.remove((i, entry))
            try:
                callback.load_state(entry["state"], trees.get(f"callback/{i}", {}))
            except (KeyError, TypeError, AttributeError, ValueError, IndexError, OverflowError) as error:
                raise CheckpointError(f"the checkpoint at update {snapshot.step} has a wrong state of "
                                      f"{entry['type']}: {error}") from error
    trainer.run_state.load(run_state(snapshot), trainer.network.device)
    trainer.device = before


def differences(told: Mapping[str, Any], trainer: Trainer) -> list[str]:
    """Name what the trainer has otherwise than the run, but for the device and the data."""
    config = {name: value for name, value in told["config"].items() if name != "device"}
    own = {name: value for name, value in _config(trainer).items() if name != "device"}
    remembering = [[t for t in kinds if t != "Checkpoints"] for kinds in (
        [entry["type"] for entry in told["callbacks"]], [type(c).__name__ for c in _stateful(trainer)])]
    return compared(config, own) + compared({"callbacks": remembering[0]}, {"callbacks": remembering[1]})


def compared(told: Any, here: Any, name: str = "") -> list[str]:
    """Name the differences between two plain values, at most five."""
    if isinstance(told, dict) and isinstance(here, dict):
        pairs = [(f"{name}.{key}" if name else str(key), told.get(key), here.get(key)) for key in {**told, **here}]
    elif isinstance(told, list) and isinstance(here, list) and len(told) == len(here):
        pairs = [(f"{name}[{i}]", a, b) for i, (a, b) in enumerate(zip(told, here, strict=True))]
    else:
        return [] if told == here and isinstance(told, bool) == isinstance(here, bool) else [
            f"{name} was {_short(told)}, and is {_short(here)} here"]
    return [line for key, a, b in pairs for line in compared(a, b, key)][:5]


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def fingerprint(data: Mapping[str, tuple[Array, Array]]) -> dict[str, Any]:
    """Return shape, dtype and SHA-256 of features and labels, block by block."""
    found = {}
    for split, pair in data.items():
        for word, a in zip(("features", "labels"), pair, strict=True):
            digest, dtype = hashlib.sha256(), ""
            with Device.of(a).activate():
                for rows in blocks(a.shape[0], 10_000):
                    part = to_numpy(a[rows, ...])
                    flat = part if part.flags.c_contiguous else part.copy(order="C")
                    digest.update(flat.reshape(-1).data)
                    dtype = part.dtype.name
            found[f"{split} {word}"] = {"shape": list(a.shape), "dtype": dtype, "sha256": digest.hexdigest()}
    return found


def environment(device: Device) -> dict[str, str]:
    """Return what decides the last bits of a number: machine, versions, BLAS and its threads, device."""
    array = device.empty((1,), "float32")
    library, kernels = namespace(array).__name__.rpartition(".")[2], ops_of(array).kernels
    arrays = f"{library} {getattr(sys.modules.get(library), '__version__', '')}{kernels}"
    told = {"machine": platform.machine(), "python": platform.python_version(), "arrays": arrays, "device": device.name,
            **blas_in_use()}
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    threads = next((value for name in names if (value := os.environ.get(name))), str(os.cpu_count()))
    return {"threads": threads, **told}


def mean(value: Any) -> float | None:
    """Return the mean of the finite values, of one or several models; None if there are none."""
    values = [v for v in to_numpy(value).reshape(-1).tolist() if math.isfinite(v)]
    return math.fsum(values) / len(values) if values else None


def _stateful(trainer: Trainer) -> list[Callback]:
    """Return the callbacks that have a state."""
    return [callback for callback in trainer.callbacks if callback.state() or callback.arrays]


def _config(trainer: Trainer) -> dict[str, Any]:
    """Describe the trainer in what JSON gives back."""
    config: dict[str, Any] = json.loads(json.dumps(trainer.config(), default=field))
    return config
