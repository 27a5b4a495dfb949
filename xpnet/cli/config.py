"""Options from a TOML file, and as one: ``--config FILE`` and ``--dry-run``.

A key is an option's name without the dashes in front, and its value what the option takes: a number, a string, true or
false, or an array where the command line has commas. What is read becomes a command line, so that the one parser says
what is right, and a run keeps its options in one form.
"""

from __future__ import annotations

import argparse
import difflib
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files import kinds
from ..files.storage import DamagedError, read_file
from ..nn.initializers import He, Normal, Xavier
from ..sweeps.space import LogUniform, Uniform
from .options import Number, Values, widths

__all__ = ["ConfigError", "dry", "read", "resolve", "write"]

_LARGEST = 2**16  # bytes of a file
_OWN = ("help", "config", "dry_run", "json", "resume")  # of one call, not of what is trained


class ConfigError(ValueError):
    """A file of options cannot be used; the message names the file and the key."""


def resolve(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Put the options of ``--config`` beneath those given: as if they had been given before them.

    Raises
    ------
    ConfigError
        If the file, a key or a value is wrong.
    """
    read_from: Path = arguments.config
    lines = read(read_from, parser)
    blank = argparse.Namespace(**{action.dest: None for action in parser._actions})
    given = {name for name, value in vars(parser.parse_args(arguments.given, blank)).items() if value is not None}
    for group in parser._mutually_exclusive_groups:  # --steps comes before the file's epochs, too
        names = {action.dest for action in group._group_actions}
        given |= names if names & given else set()
    before = [word for name, words in lines.items() if name not in given for word in words]
    resolved = parser.parse_args([*before, *arguments.given], argparse.Namespace(command=arguments.command))
    resolved.given = [*before, *arguments.given]
    return resolved


def read(path: Path, parser: argparse.ArgumentParser) -> dict[str, list[str]]:
    """Read a file of options, as the words of a command line by option.

    Parameters
    ----------
    path : Path
        A TOML file of at most 64 KiB.
    parser : argparse.ArgumentParser
        The parser whose options it may hold.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ConfigError
        If it is not TOML, has a key that is no option, or a value of another kind than the option's.
    """
    if not path.exists():
        raise FileNotFoundError(f"no file {path}: --config expects a TOML file, such as --dry-run prints")
    try:
        found = tomllib.loads(read_file(path.resolve(), _LARGEST).decode())
    except (DamagedError, ValueError, RecursionError) as error:  # tomllib's own errors are ValueErrors
        if path.is_file() and kinds.kind_of(kinds.start_of(path)) is not kinds.TEXT:
            raise ConfigError(f"{path}: not a TOML file, but {kinds.describe(path)}") from error
        raise ConfigError(f"{path}: not a TOML file ({error})") from error
    options = _options(parser)
    lines: dict[str, list[str]] = {}
    for key, value in found.items():
        name = key.replace("-", "_")
        if name not in options:
            near = difflib.get_close_matches(name, options, 1)
            hint = f"the nearest is {_key(near[0])!r}" if near else f"they are {', '.join(map(_key, options))}"
            raise ConfigError(f"{path}: {key!r} is no option of {parser.prog}; {hint}")
        if name in lines:
            raise ConfigError(f"{path}: {_key(name)!r} is there twice, with - and with _")
        try:
            lines[name] = list(_words(options[name], value))
        except (argparse.ArgumentTypeError, TypeError, ValueError) as error:
            raise ConfigError(f"{path}: {key}: {error}") from error
    for group in parser._mutually_exclusive_groups:
        both = [_key(action.dest) for action in group._group_actions if action.dest in lines]
        if len(both) > 1:
            raise ConfigError(f"{path}: {' and '.join(both)} exclude each other: leave one out")
    return lines


def _options(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    return {action.dest: action for action in parser._actions if action.dest not in _OWN}


def _key(name: str) -> str:
    return name.replace("_", "-")


def _words(action: argparse.Action, value: Any) -> Sequence[str]:
    """Return the words of a command line that say what a key says."""
    flag = action.option_strings[0]
    if action.nargs == 0:
        if type(value) is not bool:
            raise TypeError(f"expected true or false, got {_told(value)}")
        return [flag if value else f"--no-{flag[2:]}"]
    several = isinstance(action, argparse._AppendAction) and isinstance(value, list) and any(
        isinstance(v, list) for v in value)
    return [f"{flag}={_text(action, v)}" for v in (value if several else [value])]


def _text(action: argparse.Action, value: Any) -> str:
    """Return the text that an option takes, having seen that the option takes it."""
    kind: Any = action.type or str
    if isinstance(kind, Number):
        _expect(_is_number(value, kind.kind), _NUMBERS[kind.kind], value)
        text = str(value)
    elif kind is widths:
        _expect(isinstance(value, list) and all(type(v) is int for v in value),
                "an array of integers, like [50, 50]", value)
        text = ",".join(map(str, value))
    elif isinstance(kind, Values):
        values = value if isinstance(value, list) else [value]
        _expect(isinstance(value, str) or all(_is_number(v, kind.kind) for v in values),
                f"{_NUMBERS[kind.kind]}, an array of them, or a string like {_STRINGS[kind.kind]}", value)
        text = value if isinstance(value, str) else ",".join(map(str, values))
    else:
        _expect(isinstance(value, str), "a string", value)
        text = value
    kind(text)  # says what is wrong with it
    if action.choices:
        near = difflib.get_close_matches(text, action.choices, 1)
        _expect(text in action.choices, f"{' or '.join(map(repr, action.choices))}"
                f"{f' (the nearest is {near[0]!r})' if near else ''}", value)
    return text


_NUMBERS = {int: "an integer", float: "a number"}
_STRINGS = {int: "'0:5'", float: "'log-uniform(1e-5, 1e-1)'"}


def _is_number(value: Any, kind: type) -> bool:
    return type(value) is int or (kind is float and type(value) is float)


def _expect(fits: bool, what: str, value: Any) -> None:
    if not fits:
        raise TypeError(f"expected {what}, got {_told(value)}")


def _told(value: Any) -> str:
    """Name a value of TOML for a message."""
    kinds = {bool: "", str: "the string ", dict: "a table ", list: "the array "}
    return f"{kinds.get(type(value), '')}{_toml(value) if isinstance(value, bool | str) else repr(value)}"[:80]


# As TOML --------------------------------------------------------------------------------------------------------------


def write(arguments: argparse.Namespace) -> str:
    """Return the options that have a value as TOML that ``read`` takes."""
    names = [name for name in _options(arguments.parser) if getattr(arguments, name) is not None]
    return "".join(f"{_key(name)} = {_toml(getattr(arguments, name))}\n" for name in names)


def dry(arguments: argparse.Namespace, *facts: str) -> tuple[dict[str, Any], str]:
    """Return what ``--dry-run`` prints: the options as plain values, and as TOML under a line of what they come to."""
    a = argparse.Namespace(**vars(arguments))
    if a.steps:
        a.epochs = None
    text = write(a)
    return tomllib.loads(text), f"# {a.parser.prog} --config FILE: {', '.join(facts)}\n{text}".rstrip()


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, Uniform):
        return _toml(f"{'log-' if isinstance(value, LogUniform) else ''}uniform({value.low!r}, {value.high!r})")
    if isinstance(value, Normal):
        return _toml(f"normal:{value.sigma!r}")
    text = type(value).__name__.lower() if isinstance(value, He | Xavier) else str(value)
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
