"""HTML pages as a parser sees them."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

VOID = {"meta", "link", "img", "br", "hr"}
URL_ATTRIBUTES = {
    "src",
    "href",
    "srcset",
    "action",
    "data",
    "poster",
    "background",
    "formaction",
    "xlink:href",
}


class Parsed(HTMLParser):
    """What a browser would see: every element with its attributes and text, all closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[dict[str, Any]] = []
        self.open: list[dict[str, Any]] = []
        self.feed(page)
        self.close()
        assert not self.open, f"left open: {[e['tag'] for e in self.open]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = {"tag": tag, "attributes": {k: v or "" for k, v in attrs}, "text": ""}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert [e["tag"] for e in self.open[-1:]] == [tag], f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element["text"] += data

    def all(self, tag: str, kind: str | None = None) -> list[dict[str, Any]]:
        found = [e for e in self.elements if e["tag"] == tag]
        return [e for e in found if kind is None or kind in e["attributes"].get("class", "").split()]

    def json(self) -> list[Any]:
        scripts = [e for e in self.all("script") if e["attributes"].get("type") == "application/json"]
        return [json.loads(e["text"]) for e in scripts]

    def external(self) -> list[str]:
        """Return every reference that is neither inside the page nor a data URI."""
        found = [
            value
            for e in self.elements
            for name, value in e["attributes"].items()
            if name in URL_ATTRIBUTES and not value.startswith(("#", "data:"))
        ]
        for code in self.all("style") + [e for e in self.all("script") if "type" not in e["attributes"]]:
            found += re.findall(r"https?:|url\(|fetch\(|XMLHttpRequest|WebSocket|\bimport\b", code["text"])
        return found


def tables(parsed: Parsed) -> list[dict[str, list[str]]]:
    """Return each table's cells by column."""
    found: list[dict[str, list[str]]] = []
    names: list[str] = []
    column = 0
    for element in parsed.elements:
        if element["tag"] == "table":
            found.append({})
            names = []
        elif element["tag"] == "th":
            names.append(element["text"])
            found[-1][element["text"]] = []
        elif element["tag"] == "tr":
            column = 0
        elif element["tag"] == "td":
            found[-1][names[column]].append(element["text"])
            column += 1
    return found


def headings(parsed: Parsed) -> list[str]:
    return [element["text"] for element in parsed.all("h2")]
