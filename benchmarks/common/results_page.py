"""The page with the results of all benchmarks, RESULTS.md."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from benchmarks.common.findings import findings_table, from_json, growth_table
from benchmarks.common.machine import describe_machine

GROWTH, BEHIND, MISSED = "How cost grows with size", "Where this project is behind, and why", "Goals missed"


def results_page(entries: Mapping[str, str], summaries: Mapping[str, dict[str, Any]], before: str = "") -> str:
    """Return the page in markdown.

    Args:
        entries: titles by the benchmarks' names, in the order of the page.
        summaries: what the benchmarks that were measured here wrote.
        before: the page as it was, from which the results of all other benchmarks are kept.
    """
    old = _sections(before)
    kept = [title for entry, title in entries.items() if entry not in summaries and title in old]
    machines = [describe_machine(), *(_machines(before) if kept else [])]
    old_growth = dict(re.findall(r"^\*\*(.+?)\*\*\n\n(.+?)(?:\n\n|\Z)", old.get(GROWTH, ""), re.DOTALL | re.MULTILINE))
    parts = ["# Benchmarks: results", _HEAD.format(machines="\n\nEarlier results: ".join(dict.fromkeys(machines)))]
    growth, behind, missed = [], [], []
    for entry, title in entries.items():
        if entry in summaries:
            summary = summaries[entry]
            findings, growths = from_json(summary)
            versions = ", ".join(summary["versions"])
            text = f"[{entry}.md]({entry}.md), measured {summary['measured']}" + (f" at {versions}" if versions else "")
            parts += [f"## {title}", f"{text}.", findings_table(findings)]
            growth += [f"**{title}**\n\n{growth_table(growths)}"] if growths else []
            reasons: dict[str, list[str]] = {}
            for finding in findings:
                if state := finding.behind():
                    reasons.setdefault(finding.why or "not explained yet", []).append(state)
            behind += [f"- {title}: {why}. {'; '.join(states)}." for why, states in reasons.items()]
            missed += [f"- {title}: {goal}" for goal in summary["missed"]]
        elif title in kept:
            parts += [f"## {title}", old[title]]
            growth += [f"**{title}**\n\n{old_growth[title]}"] if title in old_growth else []
            behind += _lines_of(title, old.get(BEHIND, ""))
            missed += _lines_of(title, old.get(MISSED, ""))
    parts += [f"## {GROWTH}", _GROWTH, *growth]
    parts += [f"## {BEHIND}", "\n".join(behind) or "Nowhere."]
    parts += [f"## {MISSED}", "\n".join(missed) or "None."]
    return "\n\n".join(parts) + "\n"


def _sections(page: str) -> dict[str, str]:
    """Return the text below each heading of the second level."""
    _, *texts = re.split(r"^## ", page, flags=re.MULTILINE)
    return {heading: body.strip() for heading, _, body in (text.partition("\n") for text in texts)}


def _machines(page: str) -> list[str]:
    """Return the descriptions of the machines in the head of a page, newest first."""
    return re.findall(rf"^(?:{re.escape(_BY)} |Earlier results: )(.+)$", page, re.MULTILINE)


def _lines_of(title: str, text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(f"- {title}: ")]


_BY = "Written by `python -m benchmarks` (`make bench`)."
_HEAD = f"""\
{_BY} {{machines}}

All sides of a row run in the same run, in turns (offline generation after the server's); *times ahead* is the median
over the repetitions of this project's figure against the other's in the same repetition, so that above 1 is better for
this project, with the least and the most. Figures are medians. Peak memory is of this project's process / of the
other's."""
_GROWTH = "Least squares over the sizes shown: the exponent in logarithms, the line by relative errors."
