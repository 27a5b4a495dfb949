"""``xpnet predict``: the classes of new examples, by a trained network."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..backend import to_numpy
from ..datasets import _csv, inputs, tables
from ..files import kinds, write_text
from ..files.json_form import plain
from ..files.storage import replace_file
from ..nn.network import Network
from ..nn.summary import text_table
from ..training import run_directory

__all__ = ["add_arguments", "run"]

_FORMATS = ("text", "csv", "json", "npy")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``xpnet predict``."""
    add = parser.add_argument
    add("run_or_network", type=Path, metavar="RUN",
        help="directory of xpnet train or xpnet sweep (its best network), or a network's file")
    add("files", type=Path, nargs="+", metavar="FILE",
        help="an .npy or .npz file with an array (n, features), CSV with a line for each example, or a PNG image")
    add("--key", metavar="NAME", help="the array of an .npz file")
    add("--header", choices=_csv.HEADERS, default="auto",
        help="whether the first line of a CSV file holds the names of the features; auto refuses one that may be an "
             "example too")
    add("--classes", metavar="NAMES", help="names of the classes, separated by commas; those of the run by default")
    add("--raw", action="store_true", help="give the network's outputs instead of probabilities, as for regression")
    add("--out", type=Path, metavar="FILE", help="write here; .csv, .json or .npy by its ending, else text")
    add("--format", choices=_FORMATS, help="of the output; by default as --out ends, else text")
    add("--device", default="cpu", help="cpu, cuda, cuda:N or auto")


def run(a: argparse.Namespace) -> None:
    """Predict, and print or write what came of it."""
    network = run_directory.network(a.run_or_network, a.device)
    names = _names(a, network)
    read = [tables.read_table(path, a.key, a.header, network.architecture.feature_names) for path in a.files]
    notes = [f"{path}: {table.note}" for path, table in zip(a.files, read, strict=True) if table.note]
    found = [_outputs(network, path, table.x, a) for path, table in zip(a.files, read, strict=True)]
    form = a.format or ("json" if a.json else (a.out.suffix[1:] if a.out and a.out.suffix[1:] in _FORMATS else "text"))
    if form != "json":
        for note in notes:
            print(f"xpnet predict: {note}", file=sys.stderr)
    if form == "npy":
        content = inputs.as_npy(found)
        if a.out:
            replace_file(a.out, content)
            _wrote(a)
        else:
            sys.stdout.buffer.write(content)
        return
    rows = [_row(str(path), i, values, names, a.raw)
            for path, part in zip(a.files, found, strict=True) for i, values in enumerate(part.tolist())]
    text = (_json(a, names, rows, notes) if form == "json" else
            _table(names, rows) if form == "csv" else _text(a, names, rows))
    if a.out:
        write_text(a.out, f"{text}\n")
        _wrote(a)
    else:
        print(text)


def _wrote(a: argparse.Namespace) -> None:
    if not a.json:
        print(f"wrote {a.out}")


def _row(file: str, i: int, values: list[float], names: list[str], raw: bool) -> dict[str, Any]:
    """Return what is predicted for one example, as plain values."""
    told: dict[str, Any] = {"file": file, "row": i}
    if raw:
        return {**told, "outputs": values}
    best = max(range(len(values)), key=values.__getitem__)
    return {**told, "class": names[best], "probability": values[best], "probabilities": values}


def _json(a: argparse.Namespace, names: list[str], rows: list[dict[str, Any]], notes: list[str]) -> str:
    return json.dumps(plain({"network": str(a.run_or_network), "classes": names, "notes": notes, "predictions": rows}))


def _cells(names: list[str], rows: list[dict[str, Any]], write: Callable[[float], str]) -> list[list[str]]:
    """Return a header and lines, with a column for each class behind the others."""
    wide, cells = list(rows[0])[-1], []
    for row in rows:
        own = [v if isinstance(v, str) else str(v) if isinstance(v, int) else write(v)
               for name, v in row.items() if name != wide]
        cells.append([*own, *map(write, row[wide])])
    return [[*list(rows[0])[:-1], *names], *cells]


def _table(names: list[str], rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(_cells(names, rows, repr))
    return text.getvalue().rstrip("\n")


def _text(a: argparse.Namespace, names: list[str], rows: list[dict[str, Any]]) -> str:
    """Lay the likeliest classes out for people; the files are named where there are several."""
    header, *lines = _cells(names, rows, "{:.4f}".format)
    chosen = [i for i, name in enumerate(header) if (a.raw or i < 4) and (name != "file" or len(a.files) > 1)]
    return text_table([header[i] for i in chosen], [[line[i] for i in chosen] for line in lines],
                      left=("file", "row", "class"))


def _names(a: argparse.Namespace, network: Network) -> list[str]:
    outputs = network.architecture.out_features
    if a.classes is None:
        folder = a.run_or_network if a.run_or_network.is_dir() else a.run_or_network.parent
        return run_directory.class_names(folder, network)
    names = [name.strip() for name in a.classes.split(",")]
    if len(names) != outputs:
        raise ValueError(f"--classes: expected {outputs} names, one for each output of the network, got {len(names)}")
    return names


def _outputs(network: Network, path: Path, x: Any, a: argparse.Namespace) -> Any:
    """Return the probabilities, or the outputs, for the examples in a file, as a NumPy array."""
    width = network.architecture.in_features
    if x.shape[1] != width:
        hint = ""
        if kinds.kind_of(kinds.start_of(path)) is kinds.PNG:
            side = round((width / 3) ** 0.5)
            hint = f": an image of {side} x {side} pixels in colour" if 3 * side * side == width else ""
        raise ValueError(f"{path}: expected {width:,} features, as many as the network takes{hint}; got {x.shape[1]:,} "
                         f"(shape {x.shape})")
    x = network.device.asarray(x)
    return to_numpy(network(x) if a.raw else network.predict_proba(x))
