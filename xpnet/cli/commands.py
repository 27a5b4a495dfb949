"""The command line: thin, over what the package offers. Plain text for people, ``--json`` for machines."""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from .. import datasets
from .._version import __version__
from ..backend import Device, DeviceError, survey
from ..nn import gradcheck
from ..nn.sequential import mlp
from ..training.divergence import DivergenceError
from ..training.interrupts import interrupted_by_sigterm
from . import config, predict, sweep, train
from .options import COUNT, Number, add_architecture

__all__ = ["main"]

EXAMPLES = """examples:
  xpnet train --data synthetic --hidden 50,50 --batch-norm --out run
  xpnet train --config run.toml --lr 0.05 --dry-run
  xpnet sweep --l2 'log-uniform(1e-5, 1e-1)' --seed 0:3 --out sweep
  xpnet predict run images.npy --out classes.csv
  xpnet report run
  xpnet gradcheck --all --backend strict

exit codes: 0 success, 1 a run or a check failed, 2 wrong arguments or files,
128 + N ended by signal N (130: Ctrl-C)
"""


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Leaves out the defaults that say nothing."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = (action.help or "").removesuffix(" (default: %(default)s)")  # some Pythons add it to flags
        return text if action.default in (None, False, argparse.SUPPRESS) else f"{text} (default: %(default)s)"


class _Parser(argparse.ArgumentParser):
    """Answers a wrong argument with one line and exit code 2."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: error: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="xpnet", description="Train multilayer perceptrons on NumPy or CuPy arrays.",
                     usage="xpnet [-h] [--version] COMMAND ...", formatter_class=argparse.RawDescriptionHelpFormatter,
                     add_help=False)
    add = parser.add_argument  # the usage has said enough of these two
    add("-h", "--help", action="help", help=argparse.SUPPRESS)
    add("--version", action="version", version=f"xpnet {__version__}", help=argparse.SUPPRESS)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser,
                                     prog="xpnet", help=argparse.SUPPRESS)
    listed = ["commands (xpnet COMMAND --help says more):"]

    def command(name: str, run: Callable[[Any], int], text: str) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = commands.add_parser(name, description=f"{text.capitalize()}.",
                                                           formatter_class=_Help)
        sub.set_defaults(run=run, parser=sub)
        listed.append(f"  {name:9}  {text}")
        sub.add_argument("--json", action="store_true", help="write JSON instead of text")
        return sub

    train.add_arguments(command("train", _train, "train a network"))

    sweep.add_arguments(command("sweep", _sweep, "train many networks in one run"))
    predict.add_arguments(command("predict", _predict, "classify new arrays or images with a trained network"))

    report = command("report", _report, "write a page about a run or a sweep: curves, tables, pictures")
    report.add_argument("run_directory", type=Path, metavar="RUN", help="directory of xpnet train or xpnet sweep")
    report.add_argument("--out", type=Path, metavar="FILE", help="the page; RUN/report.html by default")
    report.add_argument("--data", metavar="PATH", help="where the data set is; by default where it was")

    check = command("gradcheck", _gradcheck, "compare gradients with numerical ones")
    add_architecture(check)
    check.add_argument("--all", action="store_true", help="check every registered layer, loss and composite")
    check.add_argument("--parity", action="store_true", help="compare every case with NumPy in float64 instead")
    check.add_argument("--method", choices=("central", "complex", "both"), default="both")
    check.add_argument("--backend", choices=("numpy", "cupy", "torch", "strict"), default="numpy")
    check.add_argument("--samples", type=Number(int, 2), default=20)
    check.add_argument("--features", type=COUNT, default=10)
    check.add_argument("--classes", type=Number(int, 2), default=10)

    data = command("data", _data, "tell where CIFAR-10 is looked for and what was found")
    data.add_argument("--data", metavar="DIR", help="look here only")
    data.add_argument("--download", action="store_true", help="fetch the binary archive (170 MB) into the user cache")

    command("devices", _devices, "tell which devices work, and what to do for the others")
    parser.epilog = "\n".join([*listed, "", EXAMPLES])
    return parser


def _show(arguments: argparse.Namespace, result: Any, text: str) -> None:
    print(json.dumps(result) if arguments.json else text)


def _train(arguments: argparse.Namespace) -> int:
    result, text, code = train.run(arguments)
    if not code:
        _show(arguments, result, text)
    return code


def _sweep(arguments: argparse.Namespace) -> int:
    with interrupted_by_sigterm() as signals, train.warnings_in_lines("sweep"):
        try:
            result, text = sweep.run(arguments)
        except KeyboardInterrupt as error:
            if not signals:
                raise
            print(f"xpnet sweep: ended by SIGTERM: {error}", file=sys.stderr)
            return 128 + signals[0]
    _show(arguments, result, text)
    return 0


def _predict(arguments: argparse.Namespace) -> int:
    predict.run(arguments)
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from ..report.run import page

    made, missing = page(arguments.run_directory, arguments.data)
    path = made.write(arguments.out or arguments.run_directory / "report.html")
    lines = [*([f"not on the page: {missing}"] if missing else []), f"wrote {path}"]
    _show(arguments, {"page": str(path), "missing": missing or None}, "\n".join(lines))
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
    columns = list(dict.fromkeys(column for row in rows for column in row))
    texts = [[_cell(row.get(c, "")) for c in columns] for row in rows]
    widths = [max(len(str(line[i])) for line in [columns, *texts]) for i in range(len(columns))]
    table = ["  ".join(str(v).ljust(w) for v, w in zip(line, widths, strict=True)).rstrip()
             for line in [columns, *texts]]
    failed = sum(not row["passes"] for row in rows)
    if not a.parity and any(row["analytical_norm"] < 1e-14 for row in rows):
        table.append("A gradient that is 0, as of a bias that batch norm cancels, has no relative error: "
                     "its norms are judged.")
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
        first = "" if importlib.util.find_spec("pooch") else "pip install 'xpnet[data]', then "
        lines.append("without CIFAR-10 the embedded synthetic images are used; fetch it with: "
                     f"{first}xpnet data --download")
    _show(arguments, {"places": places, "found": found, "downloaded": fetched}, "\n".join(lines))
    return 0 if found or not arguments.data else 2


def _devices(arguments: argparse.Namespace) -> int:
    rows = survey()
    lines = [f"{'works ' if row['works'] else 'absent'}  {row['device']}: {row['detail']}" for row in rows]
    _show(arguments, rows, "\n".join(lines))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and give its exit code.

    0; 1 for a run or a check that failed; 2 for wrong arguments or files; 128 + N where signal N ended it: 130 after
    Ctrl-C, 141 where nobody reads the output any more, 143 after SIGTERM.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # whoever called closed it
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
    given = list(sys.argv[1:] if argv is None else argv)
    arguments, unknown = _parser().parse_known_args(given)
    arguments.given = given[1:]
    if unknown:
        options = [option for action in arguments.parser._actions for option in action.option_strings]
        near = difflib.get_close_matches(unknown[0].partition("=")[0], options, 1)
        arguments.parser.error(f"unrecognized arguments: {' '.join(unknown)}"
                               f"{f'; the nearest is {near[0]}' if near else ''}")
    try:
        if getattr(arguments, "config", None):
            arguments = config.resolve(arguments, arguments.parser)
        code = int(arguments.run(arguments))
        sys.stdout.flush()  # so that a reader who has enough is noticed here
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # who reads has enough
        return 141
    except DivergenceError as error:
        print(f"xpnet {arguments.command}: {error}", file=sys.stderr)
        return 1
    except (ValueError, TypeError, OSError, ImportError, DeviceError, MemoryError) as error:
        print(f"xpnet {arguments.command}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except ArithmeticError as error:
        print(f"xpnet {arguments.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        print(f"xpnet {arguments.command}: interrupted{f': {error}' if str(error) else ''}", file=sys.stderr)
        return 130
