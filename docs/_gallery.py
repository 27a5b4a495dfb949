"""The gallery: copies of ../examples with headings, run on little data, and the figures that they write."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from sphinx_gallery.scrapers import figure_rst

from xpnet import datasets

HERE = Path(__file__).parent
EXAMPLES = HERE / "_build" / "examples"
load = datasets.load


def copy() -> None:
    """Copy the examples, the first sentence of each made a heading, as Sphinx-Gallery wants it."""
    shutil.rmtree(EXAMPLES, ignore_errors=True)
    EXAMPLES.mkdir(parents=True)
    shutil.copy(HERE / "gallery_header.rst", EXAMPLES / "GALLERY_HEADER.rst")
    for path in (HERE.parent / "examples").glob("*.py"):
        first, rest = path.read_text("utf-8").removeprefix('"""').split("\n", 1)
        ends = '"""' if first.endswith('"""') else ""
        title = first.removesuffix('"""').removesuffix(".")
        (EXAMPLES / path.name).write_text(f'"""\n{title}\n{"=" * len(title)}\n{ends}\n{rest}', "utf-8")


def arguments(config: dict[str, Any], variables: dict[str, Any]) -> list[str]:
    """Return the command line that an example is run with."""
    variables["example_globals"]["__doc__"] = "An example."  # which Sphinx-Gallery took out, to show it as text
    return ["--quick", "--out", "out"]


def shrink(config: dict[str, Any], path: str, when: str) -> None:
    """Let an example load 2,000 generated images, whatever it asks for."""
    small = {"train": 2_000, "validation": 500, "test": 1_000}
    datasets.load = (lambda *_, **__: datasets.synthetic(**small)) if when == "before" else load


def figures(block: Any, variables: dict[str, Any], config: dict[str, Any]) -> str:
    """Take up the figures that an example wrote."""
    written = sorted((EXAMPLES / "out").glob("*.png"))
    return figure_rst([shutil.move(p, next(variables["image_path_iterator"])) for p in written], config["src_dir"])
