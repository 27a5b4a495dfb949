"""Read the directory of a run or a sweep, whose files anyone may have changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..backend import Device
from ..files import kinds
from ..files.storage import DamagedError, read_file, read_json
from ..nn.formats.safetensors import CheckpointError, readable
from ..nn.network import Network
from .checkpoints import steps_in

__all__ = ["CONFIG", "CONFIG_SIZE", "class_names", "config", "curves", "history", "network", "objects", "picture"]

CONFIG = "config.json"
#: The trained network of a run, and the best one of a sweep.
NETWORKS = ("network.safetensors", "best.safetensors")
#: Bytes of a configuration: a thousand classes may have long names.
CONFIG_SIZE = 2**21
_HIGHEST = 1e300  # of a number in a table
_LARGEST = 2**27  # bytes of a table, and a hundredth of the free memory: JSON in memory is thirty times as large


def config(folder: Path) -> dict[str, Any]:
    """Read the configuration in a run's or a sweep's directory; an empty one where there is none.

    Raises
    ------
    CheckpointError
        If it is damaged.
    """
    path = folder / CONFIG
    if not path.exists():
        return {}
    try:
        return read_json(read_file(path, CONFIG_SIZE), CONFIG)
    except DamagedError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error


def network(run: Path, device: str | Device = "cpu") -> Network:
    """Read the network of a run, the best of a sweep, or that in a file of safetensors or npz.

    Raises
    ------
    FileNotFoundError
        If there is none; the message says what to do.
    CheckpointError
        If it is damaged.
    """
    if not run.exists():
        raise FileNotFoundError(f"no run and no file {run}: expected what xpnet train --out or xpnet sweep --out "
                                "wrote, or a network's file")
    if run.is_dir():
        path = next((run / name for name in NETWORKS if (run / name).is_file()), None)
        if path is None:
            hint = (f"go on with it with xpnet train --resume {run}" if steps_in(run) and (run / CONFIG).exists() else
                    "its checkpoints are a Trainer's: go on with trainer.resume(...), and save trainer.network here"
                    if steps_in(run) else
                    "its command goes on with it" if (run / "sweep.json").exists() else
                    "expected a directory that xpnet train --out or xpnet sweep --out wrote")
            raise FileNotFoundError(f"no trained network in {run}, neither {' nor '.join(NETWORKS)}: {hint}")
        run = path
    npz = run.is_file() and kinds.kind_of(kinds.start_of(run)) is kinds.NPZ
    found = Network.from_npz(run, device=device) if npz else Network.load(run, device)
    if found.models:
        raise ValueError(f"{run} holds {found.models[0]} models side by side: save one, with "
                         "network.member(0).save(path)")
    return found


def class_names(folder: Path, found: Network) -> list[str]:
    """Return the names of a network's classes: those in the run's configuration, or numbers.

    Raises
    ------
    CheckpointError
        If the configuration is damaged, or its names are not one for each output.
    """
    count = found.architecture.out_features
    names = config(folder).get("classes", [str(i) for i in range(count)])
    if not isinstance(names, list) or len(names) != count or any(type(name) is not str for name in names):
        raise CheckpointError(f"{folder / CONFIG} is damaged: expected {count} classes, got {str(names)[:80]}")
    return names


def history(path: Path) -> dict[str, list[Any]]:
    """Read what ``JSONLines`` wrote of one network, as columns; None where there is no number.

    Raises
    ------
    CheckpointError
        If it is damaged.
    """
    try:
        lines = read_file(path, min(_LARGEST, readable() // 32)).decode().splitlines()
        rows = [read_json(line.encode(), path.name) for line in lines]
        if any(row.keys() != rows[0].keys() for row in rows):  # else columns times rows may be without measure
            raise ValueError("its lines have different columns")
    except (DamagedError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: [row.get(name) for row in rows] for name in names}
    return _numbers(columns, path)


def objects(path: Path) -> list[dict[str, Any]]:
    """Read the objects in a JSON array: a sweep's ``table.json`` or ``curves.json``.

    Raises
    ------
    CheckpointError
        If it is damaged, or something else.
    """
    try:
        found = json.loads(read_file(path, min(_LARGEST, readable() // 32)))
    except (DamagedError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if not isinstance(found, list) or not found or any(type(row) is not dict for row in found):
        raise CheckpointError(f"{path} is damaged: expected an array of objects, got {str(found)[:80]}")
    return found


def curves(path: Path) -> list[tuple[dict[str, Any], dict[str, list[Any]]]]:
    """Read a sweep's ``curves.json``: each member's point and the columns of its history.

    Raises
    ------
    CheckpointError
        If it is damaged.
    """
    found = []
    for row in objects(path):
        point = row.pop("point", None)
        if type(point) is not dict or any(type(values) is not list for values in row.values()):
            raise CheckpointError(f"{path} is damaged: expected a point and columns, got {str(row)[:80]}")
        found.append((point, _numbers(row, path)))
    return found


def picture(path: Path) -> bytes:
    """Read a picture.

    Raises
    ------
    CheckpointError
        If it is too large, or no plain file.
    """
    try:
        return read_file(path, _LARGEST)
    except DamagedError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error


def _numbers(columns: dict[str, list[Any]], path: Path) -> dict[str, list[Any]]:
    steps = columns.get("step", [])
    wrong = [name for name, values in columns.items()
             if len(values) != len(steps) or any(
                 v is not None and not (type(v) in (int, float) and (v != v or abs(v) <= _HIGHEST)) for v in values)]
    if not steps or wrong or None in steps:
        raise CheckpointError(f"{path} is damaged: expected columns of numbers, among them step, got "
                              f"{', '.join(wrong or columns)[:80] or 'none'}")
    return columns
