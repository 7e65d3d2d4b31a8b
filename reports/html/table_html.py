"""Write the table of all tasks as HTML; the page's script adds sorting, filters and the panel that shows one task."""

from __future__ import annotations

import json
import re
from html import escape

from harness.inspection.terminal_picture import PALETTE
from harness.results.table_format import percent
from reports.html.markdown import anchor
from reports.html.task_table import STATES, TaskCell, TaskRow, TaskTable

_WORDS = {"solved": "solved", "lost": "not solved, but proposed", "never": "not solved, never proposed"}


def table_html(table: TaskTable, anchors: set[str]) -> str:
    """Return the table with places for its controls and its panel, and the grids as JSON.

    Args:
        anchors: anchors of the page so far, to which those of the table and of its tasks are added.
    """
    name = f"tasks-{table.number}"
    heads = '<th scope="col">task</th><th scope="col" data-kind="number" class="number">outputs</th>'
    heads += "".join(f'<th scope="col" data-kind="number">{escape(model)}</th>' for model in table.models)
    heading = anchor(f"every task {table.number}", anchors)
    rows = [_row(row, place, table.number, anchors) for place, row in enumerate(table.rows)]
    of_views = " (of enumerated views, the probability of the exact grid)" if table.has_views else ""
    counts = ", ".join(f"{sum(row.state == state for row in table.rows)} {state}" for state in STATES)
    return (
        f'<h3 id="{heading}">Every task</h3>\n'
        f"<p>For each model, whether its two attempts solve the task (✓), lost an exact grid that was proposed (○), or "
        f"never proposed it (✗), and the share of exact predictions{of_views}. "
        f"{counts}: by every model, by none, by some only.</p>\n"
        f'<div id="controls-{name}"></div>\n'
        f'<div class="wide tasks" tabindex="0" role="region" aria-label="Every task of {escape(table.heading)}">'
        f'<table id="{name}" data-tasks data-rule="{"vote" if table.by_vote else "rule"}">'
        f"<thead><tr>{heads}</tr></thead><tbody>\n{chr(10).join(rows)}\n</tbody></table></div>\n"
        f'<div id="panel-{name}"></div>\n'
        f'<script type="application/json" id="grids-{name}">{_json(table)}</script>'
    )


def _row(row: TaskRow, place: int, number: int, anchors: set[str]) -> str:
    """Return a row, whose id is the anchor that links to the task."""
    task = escape(row.task)
    label = f'<a href="#{anchor(row.gallery_heading, set())}">{task}</a>' if row.gallery_heading else task
    name = anchor(f"tasks {number} {re.sub('[^A-Za-z0-9]+', ' ', row.task)}", anchors)
    link = f'<a class="permalink" href="#{name}" aria-label="Link to task {task}"></a>'
    return (
        f'<tr id="{name}" data-place="{place}"><th scope="row" data-value="{task}">{label}{link}</th>'
        f'<td class="number">{row.outputs}</td>{"".join(map(_cell, row.cells))}</tr>'
    )


def _cell(cell: TaskCell) -> str:
    mark = {"solved": "✓", "lost": "○", "never": "✗"}[cell.state]
    share = "" if cell.accuracy is None else percent(cell.accuracy)
    word = _WORDS[cell.state]
    return (
        f'<td data-state="{cell.state}" data-value="{cell.sort_key:g}">'
        f'<span role="img" aria-label="{word}" title="{word}">{mark}</span> {share}</td>'
    )


def _json(table: TaskTable) -> str:
    """Return the data of the panel, as text that cannot end the script element that holds it."""
    colours = [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in PALETTE]
    data = {"models": table.models, "colours": colours, "tasks": list(table.grids)}
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
