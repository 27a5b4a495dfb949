"""How Sphinx builds this site. Run: sphinx-build -W --keep-going -n docs docs/_build/html.

Nothing is fetched. The examples are run on 2,000 generated images, which takes about a minute; those that have not
changed since the last build are not run again.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is imported: small matrices gain nothing from more

import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.utils.math import latex2mathml
from sphinx.application import Sphinx

import xpnet
from xpnet.cli.commands import _parser

sys.path.insert(0, str(Path(__file__).parent))
import _gallery

project, copyright, author = "xpnet", "xpnet contributors", "xpnet contributors"
version = release = xpnet.__version__
extensions = [
    "myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "gallery_header.rst"]
templates_path = ["_templates"]
html_theme, html_title = "furo", f"xpnet {release}"
html_math_renderer = "mathml"
highlight_language = "none"  # unless a block names one
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
autosummary_filename_map = {  # files that differ in capitals only are one file on some systems
    name: f"{name}-class" for name in ("xpnet.Sweep", "xpnet.intervals.Interval", "xpnet.nn.losses.Loss")
}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
numpydoc_show_class_members = False  # the templates list them, with their texts
nitpick_ignore_regex = [
    # Of other projects, whose indexes would have to be fetched.
    ("py:class", r"(np|numpy|matplotlib|collections|concurrent|os|pathlib)\..*|Figure|ArrayLike|NDArray|Path"),
    # Rooms inside.
    ("py:class", r"xpnet\.(backend\.blas|cli|files|nn\.parameters)\..*"),
    ("py:class", r"xpnet\.sweeps\.(blocks|export|plan|store|workers)\..*"),
    ("py:class", r"xpnet\.training\.(batches|rows|step|two_threads)\..*"),
    ("py:class", r"xpnet\.(.*\.)?_.*"),
]
sphinx_gallery_conf = {
    "examples_dirs": str(_gallery.EXAMPLES), "gallery_dirs": "gallery",
    "filename_pattern": r"/(table\d|figures\d|pictures)",
    "ignore_pattern": r"^(_common|claims)\.py", "image_scrapers": ("_gallery.figures",),
    "reset_argv": "_gallery.arguments", "reset_modules": ("_gallery.shrink",), "reset_modules_order": "both",
    "within_subsection_order": "FileNameSortKey", "write_computation_times": False, "show_memory": False,
    "download_all_examples": False, "min_reported_time": 10**6,
    "default_thumb_file": str(Path(__file__).parent / "images" / "figure4.png"),
}
#: The README, CONTRIBUTING.md and benchmarks/README.md link to each other as files; here they are pages.
PAGES = {"](CONTRIBUTING.md)": "](contributing.md)", "](benchmarks/README.md)": "](benchmarks.md)", "](docs/": "]("}


def follow(app: Sphinx, path: Path, parent: str, content: list[str]) -> None:
    """Make the links of an included file lead to the pages."""
    for link, page in PAGES.items():
        content[0] = content[0].replace(link, page)


def escape(app: Sphinx, kind: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Let the stars in shapes like (*models, n, k) be stars."""
    lines[:] = [re.sub(r"``.*?``|(?<=[( ])\*(?=(?:models|shape)\b)",
                       lambda found: r"\*" if found[0] == "*" else found[0], line) for line in lines]


def formula(writer: Any, node: nodes.Element) -> None:
    """Write a formula as MathML, which browsers know: nothing is fetched, and nothing has to run."""
    block = isinstance(node, nodes.math_block)
    writer.body.append(latex2mathml.tex2mathml(node.astext(), as_block=block))
    raise nodes.SkipNode


class Help(Directive):
    """What ``xpnet COMMAND --help`` prints, or ``xpnet --help`` without an argument."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return it as it is."""
        parser: Any = _parser()
        if self.arguments:
            parser = parser._subparsers._group_actions[0].choices[self.arguments[0]]
        text = parser.format_help()
        return [nodes.literal_block(text, text, language="none")]


def setup(app: Sphinx) -> None:
    """Prepare the gallery, and add what is above."""
    _gallery.copy()
    app.add_directive("help", Help)
    app.add_html_math_renderer("mathml", (formula, None), (formula, None))
    app.connect("include-read", follow)
    app.connect("autodoc-process-docstring", escape, priority=400)  # before numpydoc
