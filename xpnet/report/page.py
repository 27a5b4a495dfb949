"""The page: what is put on it, and its HTML."""

from __future__ import annotations

import base64
import os
import struct
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from ..backend import Array, to_numpy
from ..files import write_text
from .markup import LONGER, align, cell, embed, escape, finite, is_numeric

__all__ = ["Page"]

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


class Page:
    """A page built from top to bottom.

    Every method but `html` and `write` appends a section and returns the page.

    Parameters
    ----------
    title : str
        The page's title, also its first heading.
    subtitle : str, optional
        One line beneath the title: what was run, on which data.

    Examples
    --------
    >>> page = Page("A run").heading("Result").table(["claim", "holds"], [["it learns", True]])
    >>> "it learns" in page.html()
    True
    """

    def __init__(self, title: str, *, subtitle: str = "") -> None:
        self.title = title
        self.subtitle = subtitle
        self._headings: list[str] = []
        self._sections: list[str] = []

    def heading(self, text: str) -> Page:
        """Append a heading, which also becomes an entry of the page's contents.

        Parameters
        ----------
        text : str
            The heading.

        Returns
        -------
        Page
            The page itself, so that calls can follow one another.
        """
        self._headings.append(text)
        return self._append(f'<h2 id="s{len(self._headings)}">{escape(text)}</h2>')

    def text(self, paragraph: str) -> Page:
        """Append one paragraph of plain text.

        Parameters
        ----------
        paragraph : str
            The text.

        Returns
        -------
        Page
            The page itself, so that calls can follow one another.
        """
        return self._append(f"<p>{escape(paragraph)}</p>")

    def code(self, text: str, *, label: str = "Command") -> Page:
        """Append a command or other text of fixed width, whose lines scroll and do not break.

        Parameters
        ----------
        text : str
            The text.
        label : str, optional
            What it is, for those who cannot see it.

        Returns
        -------
        Page
            The page itself, so that calls can follow one another.
        """
        return self._append(f'<pre class="scroll" role="region" tabindex="0" aria-label="{escape(label)}">'
                            f"<code>{escape(text)}</code></pre>")

    def table(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[object]],
        *,
        caption: str = "",
        formats: Mapping[str, str] | None = None,
    ) -> Page:
        """Append a table that sorts by any column.

        Parameters
        ----------
        columns : sequence of str
            The column headings.
        rows : sequence of sequences
            One cell for each column. Numbers are aligned right and sort as numbers, a tuple (number, margin) is
            shown as number ± margin and sorts by the number, a bool is shown as a verdict (holds or does not
            hold), None as a dash, and all else as its `str`.
        caption : str, optional
            The table's caption.
        formats : mapping from column to format, optional
            How a column's numbers are written: a format specification (``".2f"``) or a template
            (``"{:.1f} %"``).
            Integers are otherwise written in full, and floats to four significant digits.

        Returns
        -------
        Page
            The page itself, so that calls can follow one another.

        Raises
        ------
        ValueError
            If a row has not as many cells as there are columns, or `formats` names a column that is not
            there.
        """
        formats = formats or {}
        if unknown := set(formats) - set(columns):
            raise ValueError(
                f"formats names {sorted(unknown)}, but the columns are {list(columns)}: "
                "correct the names in formats"
            )
        body = []
        numeric = [is_numeric([row[i] for row in rows if i < len(row)]) for i in range(len(columns))]
        # On a phone long texts side by side are thin columns or far away: there each row becomes a card.
        cards = len(columns) > 2 and any(len(str(cell)) > LONGER for row in rows for cell in row)
        for index, row in enumerate(rows):
            if len(row) != len(columns):
                raise ValueError(
                    f"row {index} has {len(row)} cells where {len(columns)} were expected, one for each "
                    f"of {list(columns)}: give None for a cell that is empty"
                )
            cells = (
                cell(value, formats.get(column, ""), right, column if cards else "")
                for column, value, right in zip(columns, row, numeric, strict=True)
            )
            body.append(f"<tr>{''.join(cells)}</tr>")
        heads = "".join(
            f'<th scope="col" aria-sort="none" class="{align(right)}">'
            f'<button type="button">{escape(column)}</button></th>'
            for column, right in zip(columns, numeric, strict=True)
        )
        label = escape(caption or "Table: " + ", ".join(columns))
        return self._append(
            f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">'
            + ('<table class="cards">' if cards else "<table>")
            + (f"<caption>{escape(caption)}</caption>" if caption else "")
            + f"<thead><tr>{heads}</tr></thead>\n<tbody>\n"
            + "\n".join(body)
            + "\n</tbody></table></div>"
        )

    def figure(
        self, png: bytes | str | os.PathLike[str], *, caption: str, alt: str, drawing: bool = False
    ) -> Page:
        """Append a picture, which is copied into the page, and is shrunk to the page's width where it is wider.

        Parameters
        ----------
        png : bytes or path
            The PNG file's contents, or where it is.
        caption : str
            The text beneath the picture.
        alt : str
            What the picture shows, for those who cannot see it.
        drawing : bool, optional
            Whether it is a drawing on white, whose light and dark the dark theme may swap; of photographs it
            dims the light.

        Returns
        -------
        Page
            The page itself, so that calls can follow one another.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If `png` is not a PNG image.
        """
        content = png if isinstance(png, bytes) else Path(png).read_bytes()
        if not content.startswith(_PNG_SIGNATURE) or len(content) < 24:
            source = "the bytes given" if isinstance(png, bytes) else os.fspath(png)
            raise ValueError(
                f"expected a PNG image, but {source} begins with {content[:8]!r}: "
                "save the figure as PNG first"
            )
        width, height = struct.unpack(">II", content[16:24])  # so that the page keeps their place
        kind = ' class="drawing"' if drawing else ""
        data = base64.b64encode(content).decode("ascii")
        return self._append(
            f'<figure><div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}">'
            f'<img{kind} width="{width}" height="{height}" alt="{escape(alt)}" '
            f'src="data:image/png;base64,{data}">'
            '</div><button type="button" class="size" hidden>Full size</button>'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )

    def chart(
        self,
        series: Mapping[str, tuple[Array, Array]],
        *,
        caption: str,
        x_label: str,
        y_label: str,
        log_y: bool = False,
        from_zero: bool = False,
    ) -> Page:
        """Append a line chart that can be zoomed and read off.

        Parameters
        ----------
        series : mapping from name to (x, y)
            Two host arrays or sequences of equally many numbers for each line. Where a number is not finite,
            or with `log_y` a `y` is not positive, the line has a gap.
        caption : str
            The text beneath the chart.
        x_label, y_label : str
            What the axes show, with units.
        log_y : bool, optional
            Whether the vertical axis is logarithmic.
        from_zero : bool, optional
            Whether the vertical axis, if it is not logarithmic, begins at 0: else the lines fill it.

        Returns
        -------
        Page
            The page itself, so that calls can follow one another.

        Raises
        ------
        ValueError
            If a line's `x` and `y` are not one-dimensional and equally long.
        """
        lines = []
        for name, (x, y) in series.items():
            xs, ys = to_numpy(x), to_numpy(y)
            if xs.ndim != 1 or xs.shape != ys.shape:
                raise ValueError(
                    f"series {name!r}: expected x and y of one shape (n,), but x is {xs.shape} and y is "
                    f"{ys.shape}: give one y for each x"
                )
            points = [(finite(u), finite(v)) for u, v in zip(xs.tolist(), ys.tolist(), strict=True)]
            shown = [None if u is None or v is None or (log_y and v <= 0) else v for u, v in points]
            lines.append({"name": name, "x": [u for u, _ in points], "y": shown})
        content = {"series": lines, "x_label": x_label, "y_label": y_label, "log_y": log_y,
                   "from_zero": from_zero and not log_y}
        return self._append(
            f'<figure class="chart"><script type="application/json">{embed(content)}</script>'
            "<noscript><p>The page's own script draws this chart, but it did not run.</p></noscript>"
            f'<svg tabindex="0" role="img" aria-label="{escape(caption)}"></svg>'
            '<div class="bar"><output></output>'
            '<button type="button" class="reset" hidden>Reset zoom</button></div>'
            '<div class="legend" role="group" aria-label="Lines shown"></div>'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )

    def html(self) -> str:
        """Return the whole page as text.

        Returns
        -------
        str
            HTML.
        """
        files = resources.files("xpnet.report")
        style, script = (
            files.joinpath(name).read_text(encoding="utf-8") for name in ("_page.css", "_page.js")
        )
        entries = "".join(
            f'<li><a href="#s{i}">{escape(h)}</a></li>' for i, h in enumerate(self._headings, 1)
        )
        contents = f'<nav aria-label="Contents"><ul>{entries}</ul></nav>' if len(self._headings) > 1 else ""
        subtitle = f'<p class="subtitle">{escape(self.subtitle)}</p>' if self.subtitle else ""
        sections = "\n".join(self._sections)
        return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{escape(self.title)}</title>
<style>
{style}</style>
</head>
<body>
<header><h1>{escape(self.title)}</h1>
<button type="button" id="theme" hidden>Theme</button>{subtitle}</header>
{contents}
<main>
{sections}
</main>
<script>
{script}</script>
</body>
</html>
"""

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the page to a file, wholly or not at all, and return where it is.

        Parameters
        ----------
        path : path
            The file; missing directories are made, and an older page is replaced.

        Returns
        -------
        pathlib.Path
            The file.
        """
        target = Path(path)
        content = self.html()
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, content)
        return target

    def _append(self, section: str) -> Page:
        self._sections.append(section)
        return self
