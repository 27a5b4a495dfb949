"""Judge the docstrings of every public name by numpydoc's validation. Run: python tools/judge_docstrings.py.

Public is what the API reference lists (reference/*.rst), with the public members of its classes.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpydoc.docscrape import get_doc_object
from numpydoc.validate import Validator, validate

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
OFF = {
    "ES01": "one sentence often says it all",
    "SA01": "the reference groups what belongs together",
    "EX01": "examples are the README's, the tutorial's and the how-tos', where they run as tests",
}
#: Of a method that a base class or protocol has too: there the parameters and results are described, once.
INHERITED = {"PR01", "RT01", "YD01"}


class Reader(Validator):
    """Theirs, which also reads methods that have a block of text at the margin."""

    def __init__(self, obj_name: str) -> None:
        super().__init__(get_doc_object(self._load_obj(obj_name)))

    @property
    def method_source(self) -> str:
        """The source without its indentation."""
        source = super().method_source
        return re.sub(f"^{source[: len(source) - len(source.lstrip())]}", "", source, flags=re.MULTILINE)


def listed() -> Iterator[tuple[str, Any]]:
    """Return what the pages of the reference list, each with the name under which it is defined."""
    for page in sorted(REFERENCE.glob("*.rst")):
        module: Any = None
        for line in page.read_text("utf-8").splitlines():
            if found := re.match(r"\.\. (?:currentmodule|automodule):: (\S+)", line):
                module = importlib.import_module(found[1])
            elif module and (found := re.fullmatch(r"   ([A-Za-z_][\w.]*)", line)):
                *rooms, name = found[1].split(".")
                room = importlib.import_module(".".join([module.__name__, *rooms]))
                thing = getattr(room, name)
                yield f"{thing.__module__}.{thing.__qualname__}", thing


def protocols(kind: type) -> list[type]:
    """Return the protocols beside a class, such as what losses have in common."""
    beside = vars(sys.modules[kind.__module__]).values()
    return [other for other in beside if getattr(other, "_is_protocol", False) and other is not kind]


def members(thing: Any, pages: dict[str, Any]) -> dict[str, Any]:
    """Return what a class defines, and what it has of classes of the package that have no page of their own."""
    if not inspect.isclass(thing):
        return {}
    kinds = [kind for kind in reversed(thing.__mro__) if kind.__module__.startswith("xpnet.")]
    return {key: member for kind in kinds if kind is thing or kind not in pages.values()
            for key, member in vars(kind).items()}


def public() -> dict[str, bool]:
    """Return every public name, and whether a base class or protocol has it too."""
    found, pages = {}, dict(listed())
    for name, thing in pages.items():
        found[name] = bool(getattr(thing, "_is_protocol", False))
        for key, member in members(thing, pages).items():
            kinds = (property, classmethod, staticmethod)
            if not key.startswith("_") and (inspect.isfunction(member) or isinstance(member, kinds)):
                above = [*thing.__mro__[1:], *protocols(thing)]
                found[f"{name}.{key}"] = any(key in vars(base) for base in above)
    return found


def main() -> None:
    """Print what the validation finds, and fail if it finds anything."""
    names = public()
    found = [
        f"{name}: {code} {text}"
        for name, inherited in names.items()
        for code, text in validate(name, Reader)["errors"]
        if code not in OFF and not (inherited and code in INHERITED)
    ]
    print(*found, f"{len(found)} findings in the docstrings of {len(names)} public names", sep="\n")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
