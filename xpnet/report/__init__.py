"""One self-contained HTML page: text, sortable tables, figures and interactive line charts.

The page opens offline in any browser: its style (``_page.css``), its behaviour (``_page.js``), its data and
its pictures are all inside the one file, and a content security policy forbids it to ask the network for
anything.
"""

from .page import Page

__all__ = ["Page"]
