"""The page builder: its structure as a parser sees it, escaping, embedded data and files."""

from __future__ import annotations

import base64
import math
import os
import struct
import zlib
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pages import Parsed

from xpnet.report import Page

HOSTILE = '</script><script>alert("1")</script><!-- & \' <b>'


def png(width: int = 3, height: int = 2) -> bytes:
    """Return a small black PNG image."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width + 1) * height))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def full_page(text: str = "some text") -> Page:
    """Return a page with every kind of section, and the text in every place that takes one."""
    return (
        Page(text, subtitle=text)
        .heading(text)
        .text(text)
        .table([text, "holds"], [[text, True], [1.5, None]], caption=text)
        .heading("second")
        .figure(png(), caption=text, alt=text)
        .chart({text: ([0, 1], [1.0, 2.0])}, caption=text, x_label=text, y_label=text)
    )


def test_sections_come_in_the_order_of_the_calls() -> None:
    parsed = Parsed(full_page().html())
    order = [e["tag"] for e in parsed.elements if e["tag"] in {"h1", "h2", "table", "img", "svg"}]
    assert order == ["h1", "h2", "table", "h2", "img", "svg"]
    assert parsed.all("title")[0]["text"] == parsed.all("h1")[0]["text"] == "some text"
    assert parsed.all("html")[0]["attributes"]["lang"] == "en"
    assert any(e["attributes"].get("name") == "viewport" for e in parsed.all("meta"))


def test_contents_link_to_the_headings() -> None:
    parsed = Parsed(full_page().html())
    targets = [e["attributes"]["href"] for e in parsed.all("a")]
    assert targets == ["#" + e["attributes"]["id"] for e in parsed.all("h2")]
    assert not Parsed(Page("one").heading("alone").html()).all("nav")


def test_page_refers_to_nothing_outside_itself() -> None:
    parsed = Parsed(full_page().html())
    assert parsed.external() == []
    policy = [
        e["attributes"].get("content", "") for e in parsed.all("meta") if "http-equiv" in e["attributes"]
    ]
    assert len(policy) == 1
    assert policy[0].startswith("default-src 'none';")


@pytest.mark.parametrize(
    "leak",
    [
        '<img src="a.png">',
        '<link href="https://a.b/c.css">',
        "<style>a{b:url(c)}</style>",
        "<script>fetch(1)</script>",
    ],
)
def test_canary_external_references_are_found(leak: str) -> None:
    assert Parsed(leak).external()


def test_canary_the_parser_refuses_crossed_elements() -> None:
    with pytest.raises(AssertionError, match="closes"):
        Parsed("<p><b></p></b>")


def test_hostile_text_is_shown_and_never_run() -> None:
    parsed, harmless = Parsed(full_page(HOSTILE).html()), Parsed(full_page().html())
    assert [e["tag"] for e in parsed.elements] == [e["tag"] for e in harmless.elements]
    shown = [parsed.all(tag)[0]["text"] for tag in ("title", "h1", "h2", "caption", "figcaption", "button")]
    assert shown[:5] == [HOSTILE] * 5
    assert parsed.all("img")[0]["attributes"]["alt"] == HOSTILE
    assert parsed.json()[0]["x_label"] == parsed.json()[0]["series"][0]["name"] == HOSTILE


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_any_text_survives(text: str) -> None:
    parsed = Parsed(full_page(text).html())
    assert parsed.all("h1")[0]["text"] == text
    assert parsed.json()[0]["y_label"] == text


def test_own_code_cannot_end_its_element() -> None:
    for name in ("_page.css", "_page.js"):
        code = resources.files("xpnet.report").joinpath(name).read_text(encoding="utf-8")
        assert "</" not in code
        assert "://" not in code


def test_table_cells_carry_text_class_and_sort_value() -> None:
    row = ["word", 3, 0.123456, np.float32(0.5), np.int64(7), True, np.bool_(False), None, float("nan")]
    names = [f"c{i}" for i in range(len(row))]
    parsed = Parsed(Page("t").table(names, [row], formats={"c3": ".2f", "c4": "{:d} %"}).html())
    cells = parsed.all("td")
    assert [c["text"] for c in cells] == [
        "word",
        "3",
        "0.1235",
        "0.50",
        "7 %",
        "✓holds",
        "✗does not hold",
        "\N{EN DASH}",
        "nan",
    ]
    sorts = [c["attributes"].get("data-sort") for c in cells]
    assert sorts == [None, "3.0", "0.123456", "0.5", "7.0", "1", "0", None, "nan"]
    right = ["num" in c["attributes"]["class"].split() for c in cells]
    assert right == [False, True, True, True, True, False, False, False, True]


def test_table_headings_are_buttons_that_sort() -> None:
    parsed = Parsed(Page("t").table(["name", "value"], [["a", 1], ["b", None]], caption="c").html())
    heads = parsed.all("th")
    assert [h["attributes"]["aria-sort"] for h in heads] == ["none", "none"]
    assert [h["attributes"]["scope"] for h in heads] == ["col", "col"]
    assert [h["attributes"]["class"] for h in heads] == ["text", "num"]
    assert parsed.all("td", "none")[0]["attributes"]["class"] == "num none"
    assert [b["text"] for b in parsed.all("button")[1:]] == ["name", "value"]


def test_a_margin_stands_beside_its_number() -> None:
    rows = [[(0.705, 0.0049), (2, None)], [(0.5, np.float64(0.25)), (np.nan, 1.0)], [None, (1.0, math.nan)]]
    parsed = Parsed(Page("t").table(["a", "b"], rows, formats={"a": "{:.1%}"}).html())
    cells = parsed.all("td")
    assert [cell["text"] for cell in cells] == [
        "70.5% ± 0.5%", "2", "50.0% ± 25.0%", "nan ± 1.0", "\N{EN DASH}", "1"]
    assert [cell["attributes"].get("data-sort") for cell in cells] == ["0.705", "2.0", "0.5", "nan", None, "1.0"]
    assert all("num" in cell["attributes"]["class"] for cell in cells)
    assert Parsed(Page("t").table(["a"], [[("x", "y")]]).html()).all("td")[0]["text"] == "('x', 'y')"


def test_rows_with_long_texts_become_cards_that_name_their_cells() -> None:
    short, long = ["a", "b", "c"], ["a", None, "x" * 121]
    for row, names in ((short, [None] * 3), (long, ["p", HOSTILE, "r"])):
        parsed = Parsed(Page("t").table(["p", HOSTILE, "r"], [row]).html())
        assert [cell["attributes"].get("data-name") for cell in parsed.all("td")] == names
        assert bool(parsed.all("table", "cards")) == (row is long)


def test_a_command_is_text_of_fixed_width() -> None:
    parsed = Parsed(Page("t").code(HOSTILE).html())
    assert parsed.all("pre", "scroll")[0]["text"] == parsed.all("code")[0]["text"] == HOSTILE


def test_table_errors_name_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="row 1 has 1 cells where 2 were expected"):
        Page("t").table(["a", "b"], [[1, 2], [3]])
    with pytest.raises(ValueError, match=r"formats names \['c'\]"):
        Page("t").table(["a", "b"], [], formats={"c": ".1f"})


def test_figure_is_inside_the_page(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(5, 4))
    for source in (png(5, 4), path, str(path)):
        image = Parsed(Page("t").figure(source, caption="c", alt="what it shows").html()).all("img")[0][
            "attributes"
        ]
        assert (image["width"], image["height"], image["alt"]) == ("5", "4", "what it shows")
        assert base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) == png(5, 4)


def test_only_a_drawing_may_swap_light_and_dark() -> None:
    page = Page("t").figure(png(), caption="c", alt="a").figure(png(), caption="c", alt="a", drawing=True)
    assert [image["attributes"].get("class") for image in Parsed(page.html()).all("img")] == [None, "drawing"]


def test_figure_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a PNG image"):
        Page("t").figure(b"GIF89a", caption="c", alt="a")
    with pytest.raises(FileNotFoundError):
        Page("t").figure(tmp_path / "none.png", caption="c", alt="a")


def test_chart_data_round_trip_with_gaps() -> None:
    x, y = np.arange(5), np.array([1.0, np.nan, np.inf, 0.1, -2.0])
    content = Parsed(
        Page("t").chart({"a": (x, y), "b": ([0.5], [3])}, caption="c", x_label="x", y_label="y").html()
    ).json()[0]
    assert content == {
        "series": [
            {"name": "a", "x": [0.0, 1.0, 2.0, 3.0, 4.0], "y": [1.0, None, None, 0.1, -2.0]},
            {"name": "b", "x": [0.5], "y": [3.0]},
        ],
        "x_label": "x",
        "y_label": "y",
        "log_y": False,
        "from_zero": False,
    }
    logarithmic = Page("t").chart({"a": (x, y)}, caption="c", x_label="x", y_label="y", log_y=True)
    assert Parsed(logarithmic.html()).json()[0]["series"][0]["y"] == [1.0, None, None, 0.1, None]


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True)))
def test_chart_numbers_round_trip_exactly(values: list[float]) -> None:
    page = Page("t").chart({"a": (range(len(values)), values)}, caption="c", x_label="x", y_label="y")
    expected = [value if math.isfinite(value) else None for value in values]
    assert Parsed(page.html()).json()[0]["series"][0]["y"] == expected


def test_chart_refuses_unequal_lengths() -> None:
    with pytest.raises(ValueError, match=r"series 'a'.*x is \(2,\) and y is \(3,\)"):
        Page("t").chart({"a": ([1, 2], [1, 2, 3])}, caption="c", x_label="x", y_label="y")


def test_write_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    assert full_page("first").write(path) == path
    full_page("second").write(str(path))
    assert path.read_text(encoding="utf-8") == full_page("second").html()
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_a_write_that_fails_keeps_the_older_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = full_page("first").write(tmp_path / "report.html")
    before = path.read_bytes()

    def half(handle: int, content: memoryview) -> int:
        write(handle, content[:10])
        raise OSError("disk full")

    write = os.write
    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="disk full"):
        full_page("second").write(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_same_calls_give_the_same_page() -> None:
    assert full_page().html() == full_page().html()


def test_names_that_are_no_text_are_shown_escaped(tmp_path: Path) -> None:
    Page("run \udcff", subtitle="of a path that is no UTF-8").write(tmp_path / "page.html")
    assert "run \\udcff" in (tmp_path / "page.html").read_text("utf-8")
