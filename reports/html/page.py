"""The report as one self-contained HTML file: pictures inside it, nothing fetched, readable without script."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from reports.html.markup import anchor, inline, to_html
from reports.html.task_table import STATES, TaskCell, TaskTable

Part = str | TaskTable
"""Of a report: a piece of markdown, or a table that only the HTML page has."""

_FOLDER = Path(__file__).parent
_KINDS = {"png": "image/png", "svg": "image/svg+xml"}


def html_page(title: str, parts: Sequence[Part], pictures: Mapping[str, bytes]) -> str:
    """The whole page.

    Args:
        parts: in order; pictures of markdown parts are embedded, as SVG where there is one of the same name.
        pictures: the files by name.
    """
    taken: set[str] = set()
    body, chapters = [], []

    def embed(name: str) -> str:
        vector = name.removesuffix(".png") + ".svg"
        chosen = vector if vector in pictures else name
        if chosen not in pictures:  # a picture that the closing text names
            return ""
        kind = _KINDS[chosen.rpartition(".")[2]]
        return f"data:{kind};base64,{b64encode(pictures[chosen]).decode()}"

    for part in parts:
        if isinstance(part, TaskTable):
            body.append(_task_table(part, taken))
            continue
        if part.startswith("## "):
            heading = part.splitlines()[0].removeprefix("## ")
            chapters.append((anchor(heading, set(taken)), heading))
        body.append(to_html(part, embed, taken))
    return _document(title, chapters, "\n".join(body))


def _document(title: str, chapters: Sequence[tuple[str, str]], body: str) -> str:
    style, script = ((_FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    # Only this style and this script run, whatever stands in a run's files; nothing is fetched.
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
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _task_table(table: TaskTable, taken: set[str]) -> str:
    name = f"tasks-{table.number}"
    heads = '<th scope="col">task</th><th scope="col" data-kind="number" class="number">outputs</th>'
    heads += "".join(f'<th scope="col" data-kind="number">{escape(model)}</th>' for model in table.models)
    rows = []
    for place, row in enumerate(table.rows):
        task = escape(row.task)
        label = f'<a href="#{task_anchor(table.number, row.task)}">{task}</a>' if row.shown else task
        cells = "".join(map(_cell, row.cells))
        rows.append(
            f'<tr data-state="{row.state}" data-place="{place}"><th scope="row" data-value="{task}">{label}</th>'
            f'<td class="number">{row.outputs}</td>{cells}</tr>'
        )
    counts = ", ".join(f"{table.count(state)} {state}" for state in STATES)
    return (
        f'<h3 id="{anchor(f"every task {table.number}", taken)}">Every task</h3>\n'
        f"<p>Per model whether its two attempts solve the task (✓ or ✗), and the share of exact predictions. "
        f"{counts}: by every model, by none, by some only.</p>\n"
        f'<div id="filter-{name}"></div>\n'
        f'<div class="wide tasks" tabindex="0" role="region" aria-label="Every task of {escape(table.heading)}">'
        f'<table id="{name}" data-tasks><thead><tr>{heads}</tr></thead><tbody>\n{chr(10).join(rows)}\n'
        f"</tbody></table></div>"
    )


def _cell(cell: TaskCell) -> str:
    mark, word = ("✓", "solved") if cell.solved else ("✗", "not solved")
    return f'<td data-value="{cell.order:g}"><span role="img" aria-label="{word}">{mark}</span> {cell.text}</td>'


def task_anchor(number: int, task: str) -> str:
    """The anchor of a task of the gallery, as its heading gives it."""
    return anchor(task_heading(number, task), set())


def task_heading(number: int, task: str) -> str:
    """The heading of a task in the gallery of dataset ``number``; unique in a report."""
    return f"Task {task}" + (f" ({number})" if number > 1 else "")
