"""Write the report as one self-contained HTML file with embedded pictures, readable without script or network."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from harness.results.markdown_html import anchor, inline, to_html
from harness.results.table_format import percent
from reports.html.task_table import STATES, TaskCell, TaskTable

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
            body.append(_task_table(part, anchors))
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
    style, script = ((_FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
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


def _task_table(table: TaskTable, anchors: set[str]) -> str:
    """Return a table that page.js makes sortable, with a place for its filter."""
    name = f"tasks-{table.number}"
    heads = '<th scope="col">task</th><th scope="col" data-kind="number" class="number">outputs</th>'
    heads += "".join(f'<th scope="col" data-kind="number">{escape(model)}</th>' for model in table.models)
    rows = []
    for place, row in enumerate(table.rows):
        task = escape(row.task)
        label = f'<a href="#{anchor(row.gallery_heading, set())}">{task}</a>' if row.gallery_heading else task
        cells = "".join(map(_cell, row.cells))
        rows.append(
            f'<tr data-state="{row.state}" data-place="{place}"><th scope="row" data-value="{task}">{label}</th>'
            f'<td class="number">{row.outputs}</td>{cells}</tr>'
        )
    of_views = " (of enumerated views, the probability of the exact grid)" if table.has_views else ""
    counts = ", ".join(f"{sum(row.state == state for row in table.rows)} {state}" for state in STATES)
    return (
        f'<h3 id="{anchor(f"every task {table.number}", anchors)}">Every task</h3>\n'
        f"<p>For each model, whether its two attempts solve the task (✓ or ✗), and the share of exact predictions"
        f"{of_views}. {counts}: by every model, by none, by some only.</p>\n"
        f'<div id="filter-{name}"></div>\n'
        f'<div class="wide tasks" tabindex="0" role="region" aria-label="Every task of {escape(table.heading)}">'
        f'<table id="{name}" data-tasks><thead><tr>{heads}</tr></thead><tbody>\n{chr(10).join(rows)}\n'
        f"</tbody></table></div>"
    )


def _cell(cell: TaskCell) -> str:
    mark, word = ("✓", "solved") if cell.solved else ("✗", "not solved")
    share = "" if cell.accuracy is None else percent(cell.accuracy)
    return f'<td data-value="{cell.sort_key:g}"><span role="img" aria-label="{word}">{mark}</span> {share}</td>'
