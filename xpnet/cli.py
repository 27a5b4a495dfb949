"""The command line: thin, over what the package offers. Plain text for people, ``--json`` for machines."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from . import __version__, cli_sweep, cli_train, datasets, gradcheck
from .backend import Device, DeviceError, survey
from .cli_options import COUNT, add_architecture, number
from .network import mlp

__all__ = ["main"]

EXAMPLES = """examples:
  xpnet train --data synthetic --hidden 50,50 --batch-norm --out run
  xpnet sweep --batch-norm --l2 'log-uniform(1e-5, 1e-1)' --seed 0:3 --workers 2 --out sweep
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
    train.set_defaults(parser=train)
    cli_train.add_arguments(train)

    check = command("gradcheck", _gradcheck, "compare gradients with numerical ones")
    add_architecture(check)
    check.add_argument("--all", action="store_true", help="check every registered layer, loss and composite")
    check.add_argument("--parity", action="store_true", help="compare every case with NumPy in float64 instead")
    check.add_argument("--method", choices=("central", "complex", "both"), default="both")
    check.add_argument("--backend", choices=("numpy", "cupy", "torch", "strict"), default="numpy")
    check.add_argument("--samples", type=number(int, 2), default=20)
    check.add_argument("--features", type=COUNT, default=10)
    check.add_argument("--classes", type=number(int, 2), default=10)

    data = command("data", _data, "tell where CIFAR-10 is looked for and what was found")
    data.add_argument("--data", metavar="DIR", help="look here only")
    data.add_argument("--download", action="store_true", help="fetch the binary archive (170 MB) into the user cache")

    cli_sweep.add_arguments(command("sweep", _sweep, "train many networks in one run"))
    command("devices", _devices, "tell which devices work, and what to do for the others")
    return parser


def _show(arguments: argparse.Namespace, result: Any, text: str) -> None:
    print(json.dumps(result) if arguments.json else text)


def _train(arguments: argparse.Namespace) -> int:
    result, text, code = cli_train.run(arguments)
    if not code:
        _show(arguments, result, text)
    return code


def _sweep(arguments: argparse.Namespace) -> int:
    result, text = cli_sweep.run(arguments)
    _show(arguments, result, text)
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
    """Run the command line and give its exit code.

    0, 1 for a failed check or run, 2 for a wrong argument, 130 after Ctrl-C, 143 after SIGTERM.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    arguments = _parser().parse_args(given)
    arguments.given = given[1:]
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
    except KeyboardInterrupt as error:
        print(f"xpnet {arguments.command}: interrupted{f': {error}' if str(error) else ''}", file=sys.stderr)
        return 130
