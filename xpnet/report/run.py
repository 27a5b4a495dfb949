"""The page of a run or a sweep: what its directory holds, and what its network does on the test data."""

from __future__ import annotations

import json
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import datasets, plotting
from ..backend import Array, to_numpy
from ..nn.formats.safetensors import CheckpointError
from ..nn.losses import Measure, log_softmax, registered_measures
from ..nn.network import Network
from ..nn.summary import activation_statistics, layers
from ..training import run_directory
from .page import Page

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["page"]

_UNITS = 100  # of the first layer, shown as images
_LINES = 21  # of a chart: as many as it has looks for
_SAMPLE = 1_000  # examples whose activations are measured
_CLASSES = 40  # of a confusion matrix: more would be too small to read
_IMAGES = (3072, 10)  # pixels and classes of the data sets that have names
_PERCENT = "{:.2%}"
_CONFUSION = "counts of true and predicted classes; the table above sums them up"


def page(run: Path, data: str | None = None) -> tuple[Page, str]:
    """Make the page of a directory that ``xpnet train`` or ``xpnet sweep`` wrote.

    Parameters
    ----------
    run : Path
        The directory.
    data : str, optional
        Where the data set is, as ``datasets.load`` takes it; by default where it was.

    Returns
    -------
    Page, str
        And what is missing on it, and why: nothing, or one line.

    Raises
    ------
    FileNotFoundError
        If there is no run.
    CheckpointError
        If a file of it is damaged.
    """
    rounds = [run / name for name in ("coarse", "fine") if (run / name / "table.json").is_file()]
    sweeps = rounds or ([run] if (run / "table.json").is_file() else [])
    if not sweeps and not (run / "history.jsonl").is_file():
        raise FileNotFoundError(f"no run in {run}, neither history.jsonl nor table.json: expected a directory that "
                                "xpnet train --out or xpnet sweep --out wrote; a sweep writes its tables at its end")
    config = run_directory.config(run)
    version = config.get("version")
    known = [f"xpnet {version}" if version else None, config.get("data"), config.get("device")]
    made = Page(f"{run.resolve().name or run}: {'a sweep' if sweeps else 'a training run'}",
                subtitle=", ".join(str(text) for text in known if text))
    network, found, missing = None, None, ""
    try:
        network = run_directory.network(run)
    except FileNotFoundError as error:
        missing = str(error)
    else:
        found, missing = _data(config, data, network)
    taken, measured = _take(network, found) if network and found else (None, {})
    for folder in sweeps:
        tested = ""
        if found and measured and folder == sweeps[-1]:  # the best of all rounds, so once
            tested = f"On the test {found.noun} the best network has accuracy {measured['accuracy']:.2%}, " \
                     f"loss {measured['loss']:.4g}."
        _sweep(made, folder, config, folder.name if rounds else "", tested)
    if not sweeps:
        _history(made, run_directory.history(run / "history.jsonl"), measured)
    if network:
        made.heading("The best network" if sweeps else "Network")
        _network(made, network, config)
    if network and found and taken is None:
        made.text(f"The network does not fit the test {found.noun} of {found.name}: it was trained on others.")
    elif network and found:
        _on_test_data(made, network, found, taken)
    if missing:
        made.text(f"Not on this page: {missing}.")
    _configuration(made, config)
    return made, missing


def _data(config: Mapping[str, Any], data: str | None, network: Network) -> tuple[datasets.Dataset | None, str]:
    """Load the data set, or tell why it is not there."""
    place, noun = data or config.get("place"), "images" if config.get("image_shape", True) else "examples"
    if not isinstance(place, str):
        if (network.architecture.in_features, network.architecture.out_features) != _IMAGES:
            return None, ""  # what --data would have to name is not known
        return None, f"the test {noun}, since the directory has no configuration that names them; --data names them"
    try:
        return datasets.load(place, train=1), ""
    except (OSError, ValueError) as error:
        return None, f"the test {noun} ({' '.join(str(error).split())}); --data says where they are"


def _take(network: Network, data: datasets.Dataset) -> tuple[Array | None, dict[str, float]]:
    """Return what the network takes the test data for, and its loss and accuracy; nothing if they do not fit it."""
    x, y = data.test
    if (network.architecture.in_features, network.architecture.out_features) != (x.shape[1], len(data.classes)):
        return None, {}
    logarithms = to_numpy(log_softmax(network(network.device.asarray(x))))
    taken = logarithms.argmax(axis=1)
    return taken, {"loss": -float(logarithms[range(len(y)), y].mean()), "accuracy": float((taken == y).mean())}


# What is in the directory ---------------------------------------------------------------------------------------------


def _history(made: Page, columns: dict[str, list[Any]], test: Mapping[str, float]) -> None:
    last = {name: values[-1] for name, values in columns.items()}
    splits = [split for split in ("train", "validation") if f"{split}_loss" in columns]
    measures = list(dict.fromkeys(name.partition("_")[2] for name in columns if name.partition("_")[0] in splits))
    penalised = any(columns.get(f"{s}_cost", columns[f"{s}_loss"]) != columns[f"{s}_loss"] for s in splits)
    if not penalised:
        measures = [m for m in measures if m != "cost"]  # it is the loss
    rows = [[split, *[last.get(f"{split}_{m}") for m in measures]] for split in splits]
    made.heading("Result").table(
        ["data", *measures], [*rows, *([["test", *[test.get(m) for m in measures]]] if test else [])],
        formats={m: _PERCENT for m in measures if _is_share(m)},
        caption=f"After {last['step']:,} updates{', {:g} epochs'.format(last['epoch']) if last.get('epoch') else ''}.")
    best = _best(columns)
    if best:
        made.text(best)
    made.heading("Curves")
    for title, wanted, label in (
        ("Loss and cost", ("loss", "cost"), "loss, cost (nats)") if penalised else ("Loss", ("loss",), "loss (nats)"),
        *((_words(name).capitalize(), (name,), _words(name)) for name in _declared()),
        ("Learning rate", ("lr",), "learning rate"),
    ):
        series = {_words(name): (columns["step"], values) for name, values in columns.items()
                  if name.rpartition("_")[2] in wanted}
        if series:
            made.chart(series, caption=f"{title} against the update.", x_label="update", y_label=label,
                       from_zero="lr" in wanted)


def _declared() -> dict[str, Measure]:
    """Return what losses measure beside the loss and the cost."""
    return {name: measure for name, measure in registered_measures().items() if name not in ("loss", "cost")}


def _best(columns: dict[str, list[Any]]) -> str:
    lines = []
    for name, measure in _declared().items():
        found = [(value, step) for value, step in zip(columns.get(f"validation_{name}", []), columns["step"],
                                                      strict=False) if value is not None]
        if found:
            best, word = (max, "highest") if measure.more_is_better else (min, "lowest")
            value, step = best(found, key=lambda pair: pair[0])
            shown = f"{value:.2%}" if measure.share else f"{value:.4g}"
            lines.append(f"The {word} validation {_words(name)} was {shown}, at update {step:,}.")
    return " ".join(lines)


def _sweep(made: Page, folder: Path, config: Mapping[str, Any], name: str, tested: str) -> None:
    table = [{key: _cell(value) for key, value in row.items()} for row in run_directory.objects(folder / "table.json")]
    columns = list(table[0])
    measures = [column for column in columns if f"{column}_std" in columns]
    if not measures:
        raise CheckpointError(f"{folder / 'table.json'} is damaged: it has no measures among {str(columns)[:80]}")
    score = next((measure for measure in measures if measure == config.get("score")), measures[-1])
    values = columns[: columns.index("n")] if "n" in columns else []
    fixed = [column for column in [*values, "diverged", "step"] if len({repr(row.get(column)) for row in table}) == 1]
    of = [m for m in [score, *[m for m in measures if m != score]] if not _is_loss(m, table)]
    shown = [column for column in [*values, *of, "n", "diverged", "step"] if column not in fixed]
    made.heading(f"Result{f' of the {name} round' if name else ''}").table(
        [_words(column) for column in shown],
        [[(row.get(c), row.get(f"{c}_margin")) if c in of else row.get(c) for c in shown] for row in table],
        formats={_words(column): _PERCENT for column in shown if _is_share(column)},
        caption=f"A row for each point, best {_words(score)} first: means over n seeds, ± half of the 95 % interval "
        "where there are several.")
    if tested:
        made.text(tested)
    if fixed:
        made.text(f"The same for all: {', '.join(f'{_words(c)} {_short(table[0].get(c))}' for c in fixed)}.")
    if (folder / "sweep.png").is_file():
        made.figure(run_directory.picture(folder / "sweep.png"), drawing=True,
                    caption=f"{_words(score).capitalize()} against what was swept.",
                    alt="the score of each point with its interval; the numbers are in the table above")
    if not (folder / "curves.json").is_file():
        return
    curves = run_directory.curves(folder / "curves.json")
    swept = [key for key in curves[0][0] if len({repr(point.get(key)) for point, _ in curves}) > 1]
    measure = _measure(score)
    sign = (-1.0 if measure.more_is_better else 1.0) if measure else 0.0  # in the order of the file

    def order(item: tuple[dict[str, Any], dict[str, list[Any]]]) -> tuple[float, bool, float]:
        value = item[1].get(score, [None])[-1]
        return -item[1]["step"][-1], value is None, sign * (value or 0.0)

    chosen = sorted(curves, key=order)[:_LINES]
    series: dict[str, tuple[Any, Any]] = {}
    for i, (point, own) in enumerate(chosen):
        label = ", ".join(f"{key} {_short(point.get(key))}" for key in swept) or f"network {i + 1}"
        series[label if label not in series else f"{label} ({i + 1})"] = (
            own["step"], own.get(score, [None] * len(own["step"])))
    some = f" The {len(chosen)} best of {len(curves)} networks." if len(curves) > len(chosen) else ""
    made.chart(series, caption=f"{_words(score).capitalize()} against the update.{some}", x_label="update",
               y_label=_words(score))


def _measure(column: str) -> Measure | None:
    """Return what the registered losses declare of a measure, in whichever split; None if they do not know it."""
    return registered_measures().get(column.removeprefix("train_").removeprefix("validation_"))


def _is_share(column: str) -> bool:
    measure = _measure(column)
    return measure is not None and measure.share


def _is_loss(measure: str, table: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a cost is the loss at every point, as it is without a penalty."""
    loss = measure.removesuffix("cost") + "loss"
    return measure.endswith("cost") and all(row.get(measure) == row.get(loss) for row in table)


def _network(made: Page, network: Network, config: Mapping[str, Any]) -> None:
    rows = layers(network)
    names = ["layer", "type", "output", "parameters", "statistics", "operations"]
    made.table(names, [[row["layer"], row["type"], row["output_shape"][1], row["parameters"], row["statistics"],
                        row["flops"]] for row in rows], formats=dict.fromkeys(names[2:], ",d"),
               caption=f"{sum(row['parameters'] for row in rows):,} trained numbers; operations are for one example.")
    shape = config.get("image_shape")
    if shape == [3, 32, 32] and network.architecture.in_features == 3072:
        first = to_numpy(network.arrays[network.architecture.weights[0]])
        picture = plotting.weights(first[:, :_UNITS], (3, 32, 32))
        some = f"The first {_UNITS} of {first.shape[1]}" if first.shape[1] > _UNITS else "All"
        made.figure(_png(picture, dpi=85), caption=f"Weights of the first layer as images. {some} hidden units.",
                    alt="a small colour image for each unit of the first layer")


def _on_test_data(made: Page, network: Network, data: datasets.Dataset, taken: Array) -> None:
    """Show what the network takes the test data for, and how its layers respond to them."""
    x, y = data.test
    classes, noun = data.classes, data.noun
    rows, counts = [], []
    for label, name in enumerate(classes):
        own = taken[y == label].tolist()
        counts.append([own.count(other) for other in range(len(classes))])
        wrong = [v for v in own if v != label]
        often = max(range(len(classes)), key=wrong.count) if wrong else None
        rows.append([name, len(own), 1 - len(wrong) / len(own) if own else None, int((taken == label).sum()),
                     None if often is None else f"{classes[often]} ({wrong.count(often)})"])
    made.heading(f"On the test {noun}").table(
        ["class", noun, "recognised", "taken for it", "most often mistaken for"], rows,
        formats={"recognised": _PERCENT, noun: ",d", "taken for it": ",d"})
    names = [name.replace("$", r"\$") for name in classes]  # matplotlib reads formulas between two of them
    if len(classes) > _CLASSES:
        made.text(f"The confusion matrix of {len(classes):,} classes is too large to draw.")
    else:
        made.figure(_png(plotting.confusion(counts, names)), caption="Confusion matrix.", drawing=True, alt=_CONFUSION)
        if data.image_shape and (taken != y).any():
            made.figure(_png(plotting.mistakes(y, taken, x, data.image_shape, names, count=12, matrix=False)),
                        caption="The most frequent confusions, the first image of each.",
                        alt="test images with their true class and what they were taken for")
    sizes = activation_statistics(network, x[:_SAMPLE])
    made.table(["layer", "type", "mean absolute output", "zeros"],
               [[row["layer"], row["type"], row["mean_abs"], row["zeros"]] for row in sizes], formats={"zeros": ".1%"},
               caption=f"Outputs of each layer on {min(_SAMPLE, len(x)):,} test {noun}.")


def _configuration(made: Page, config: Mapping[str, Any]) -> None:
    if not config:
        return
    made.heading("How it was made")
    words = config.get("arguments")
    if isinstance(words, list):
        made.code(f"xpnet {config.get('command', 'train')} {shlex.join(map(str, words))}")
    made.table(["setting", "value"], [[name, _short(value)] for name, value in config.items()
                                      if name not in ("arguments", "place", "network", "classes", "image_shape")])


# Values ---------------------------------------------------------------------------------------------------------------


def _cell(value: Any) -> Any:
    """Return a value of JSON as a cell: numbers that a page can sort by, and else text."""
    fits = value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 2**63)
    return value if fits else _short(value)


def _short(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, dict) and "type" in value:
        text = f"{value['type']}({', '.join(f'{k}={_short(v)}' for k, v in value.items() if k != 'type')})"
    else:
        text = value if isinstance(value, str) else f"{value:.4g}" if isinstance(value, float) else json.dumps(value)
    return text if len(text) <= 300 else f"{text[:297]}..."


def _words(name: str) -> str:
    return "learning rate" if name == "lr" else name.replace("_", " ")


def _png(figure: Figure, dpi: int = 120) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return plotting.save(figure, Path(folder) / "figure.png", dpi=dpi).read_bytes()
