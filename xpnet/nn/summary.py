"""What a network is made of (layers, shapes, parameters, operations), and how large its activations are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..backend import Array, Device, to_numpy
from ..datasets.admission import check_finite
from .device_code import why_no_kernel
from .examples import check_features, to_float
from .sequential import Sequential

if TYPE_CHECKING:
    from .network import Network

__all__ = ["activation_statistics", "layers", "summary"]


def layers(network: Sequential | Network) -> list[dict[str, Any]]:
    """Return one row for each layer, in plain values.

    Parameters
    ----------
    network : Sequential or Network
        What to describe; of several models, one.

    Returns
    -------
    list of dict
        With the keys ``layer`` (1, 2, ...), ``type``, ``output_shape`` (None stands for the batch), ``arrays``
        (shape by name), ``parameters`` (how many numbers are trained), ``statistics`` (how many follow the data)
        and ``flops``: floating-point operations for one example's prediction, an addition, a multiplication and
        a comparison being one each, so that a product of (1, k) with (k, m) and the bias are 2 k m. It is None for
        a layer that does not say: see ``Layer.flops``.
    """
    architecture = network if isinstance(network, Sequential) else network.architecture
    rows = []
    places = zip(architecture.layers, architecture._names, architecture.widths, strict=True)
    for i, (layer, names, width) in enumerate(places):
        shapes = {name: architecture.shapes[name] for name in names}
        trained = sum(math.prod(shapes[name]) for name in names[: len(layer.parameters)])
        rows.append({
            "layer": i + 1, "type": type(layer).__name__, "output_shape": [None, layer.out_features(width)],
            "arrays": {name: list(shape) for name, shape in shapes.items()}, "parameters": trained,
            "statistics": sum(map(math.prod, shapes.values())) - trained, "flops": layer.flops(width),
        })
    return rows


def summary(network: Sequential | Network, device: str | Device | None = None) -> str:
    """Return the layers as a table in plain text: output shapes, parameters, operations, and the totals.

    Parameters
    ----------
    network : Sequential or Network
        What to describe; the rows are of one model, and the last line says how many there are.
    device : str or Device, optional
        A line more says whether long runs there make many updates in one launch, and if not, why.

    Returns
    -------
    str
        The table.
    """
    rows = layers(network)
    lines = [[str(row["layer"]), row["type"], f"(n, {row['output_shape'][1]:,})", f"{row['parameters']:,}",
              f"{row['statistics']:,}", "?" if row["flops"] is None else f"{row['flops']:,}",
              ", ".join(f"{name} {tuple(shape)}" for name, shape in row["arrays"].items())] for row in rows]
    known = [row["flops"] for row in rows if row["flops"] is not None]
    at_least = "" if len(known) == len(rows) else "at least "
    trained, kept = (sum(row[key] for row in rows) for key in ("parameters", "statistics"))
    lines.append(["", "total", "", f"{trained:,}", f"{kept:,}", f"{at_least}{sum(known):,}", ""])
    header = ["", "layer", "output", "parameters", "statistics", "FLOPs per example", "arrays"]
    table = text_table(header, lines, left=("layer", "output", "arrays")).split("\n")
    rule = "-" * max(map(len, table))
    text = "\n".join([table[0], rule, *table[1:-1], rule, table[-1]])
    if device is not None:
        device = Device(device) if isinstance(device, str) else device
        why = why_no_kernel((network if isinstance(network, Sequential) else network.architecture).layers, device)
        text += f"\ntraining on {device.name}: " + (f"one launch for each update or more ({why})" if why else
                                                    "one launch for many updates of a long run")
    if isinstance(network, Sequential):
        return text
    arrays = network.arrays
    size = sum(to_numpy(a).nbytes for a in arrays.values())
    many = f"{network.models[0]:,} models of this kind: " if network.models else ""
    inputs = network.architecture.inputs  # which are float64 in any network
    kinds = " and ".join(sorted({str(a.dtype).rpartition(".")[2] for name, a in arrays.items() if name not in inputs}))
    return f"{text}\n{many}{size:,} bytes of {kinds} on {network.device.name}"


def activation_statistics(network: Network, x: Array, *, train: bool = False) -> list[dict[str, Any]]:
    """Measure how large each layer's outputs are on given data, and how many of them are zero.

    Parameters
    ----------
    network : Network
        One network, or several models.
    x : array of shape (n, in_features)
        Features, a thousand or so: the outputs of all layers pass through memory at once.
    train : bool
        Normalise with the batch's statistics, as in training. A network that was not trained has no running
        ones that fit its data. Dropout is left out in any case.

    Returns
    -------
    list of dict
        For each layer ``layer`` (1, 2, ...), ``type``, ``mean_abs`` (mean absolute output) and ``zeros`` (the
        share of the outputs that are exactly 0): floats, or lists with one for each model.

    Raises
    ------
    ValueError, TypeError
        If ``x`` is no input for the network.
    """
    architecture, device = network.architecture, network.device
    x = check_features(x, architecture, device)
    xp, rows = device.xp, []
    with device.activate():
        dtype = network.arrays[architecture.parameters[0]].dtype
        scaling: Any = tuple(network.arrays[name] for name in architecture.inputs)
        check_finite(x, "features", dtype=dtype, scaling=scaling or None)
        x = to_float(x, architecture, dtype)
        for i, (layer, names) in enumerate(zip(architecture.layers, architecture._names, strict=True)):
            arrays = [network.arrays[name] for name in names]
            x = xp.astype(layer.forward(x, *arrays, train=train and not layer.noisy)[0], dtype, copy=False)
            zeros = xp.mean(xp.astype(x == 0, x.dtype), axis=(-2, -1))
            found = {"mean_abs": xp.mean(xp.abs(x), axis=(-2, -1)), "zeros": zeros}
            rows.append({"layer": i + 1, "type": type(layer).__name__,
                         **{name: to_numpy(value).tolist() for name, value in found.items()}})
    return rows


def text_table(header: Sequence[str], lines: Sequence[Sequence[str]], left: Sequence[str] = ()) -> str:
    """Lay cells out as a table in plain text: numbers to the right, columns named in ``left`` to the left."""
    widths = [max(len(line[i]) for line in [header, *lines]) for i in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(w) if name in left else cell.rjust(w)
                  for cell, w, name in zip(line, widths, header, strict=True)).rstrip()
        for line in [header, *lines]
    )
