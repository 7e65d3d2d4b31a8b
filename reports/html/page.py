"""Write the report as one self-contained HTML file with embedded pictures, readable without script or network."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from reports.html.markdown import anchor, inline, to_html
from reports.html.table_html import table_html
from reports.html.task_table import TaskTable

SCRIPTS = ("grids.js", "panel.js", "page.js")
"""The files of the page's script, in the order in which they are joined."""
_FOLDER = Path(__file__).parent
_MEDIA_TYPES = {"png": "image/png", "svg": "image/svg+xml"}


def html_page(title: str, parts: Sequence[str | TaskTable], pictures: Mapping[str, bytes]) -> str:
    """Return the whole page.

    Args:
        parts: markdown and task tables, in order.
        pictures: picture files by name. A PNG is replaced by the SVG of the same name if there is one.
    """
    anchors: set[str] = set()
    body, chapters = [], []

    def picture_url(name: str) -> str:
        vector = name.removesuffix(".png") + ".svg"
        file = vector if vector in pictures else name
        if file not in pictures:
            return ""
        return f"data:{_MEDIA_TYPES[file.rpartition('.')[2]]};base64,{b64encode(pictures[file]).decode()}"

    for part in parts:
        if isinstance(part, TaskTable):
            body.append(table_html(part, anchors))
            continue
        if part.startswith("## "):
            heading = part.splitlines()[0].removeprefix("## ")
            chapters.append((anchor(heading, set(anchors)), heading))
        body.append(to_html(part, picture_url, anchors))
    return _document(title, chapters, "\n".join(body))


def _document(title: str, chapters: Sequence[tuple[str, str]], body: str) -> str:
    """Return the HTML document.

    Args:
        chapters: anchor and heading of each entry of the table of contents.
        body: HTML.
    """
    style = (_FOLDER / "page.css").read_text(encoding="utf-8")
    script = "".join((_FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS)
    # Whatever a run's files contain, the browser applies only this style and script, and fetches nothing.
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    links = "".join(f'<li><a href="#{name}">{inline(heading)}</a></li>' for name, heading in chapters)
    contents = f'<nav aria-label="Contents"><ul>{links}</ul></nav>' if len(chapters) > 1 else ""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n"
        f"<body>\n{contents}\n<main>\n{body}\n</main>\n<script>{script}</script>\n</body>\n</html>\n"
    )


def _digest(text: str) -> str:
    """Return the hash by which a content security policy allows an inline style or script."""
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
