"""The frame of one benchmark: its options, its page, and the summary that the runner gathers."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common.findings import Finding, Growth, findings_table, growth_table, to_json
from benchmarks.common.store import Store

FOLDER = Path(__file__).parent.parent
WORK = Path("runs/benchmarks")
SUMMARY = "summary.json"


def parser(description: str | None, entry: str, repeats: int = 5) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    made = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{entry}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--quick", action="store_true", help="small and once; the page is printed, not written")
    made.add_argument("--repeats", type=int, default=repeats, help=f"paired repetitions (default {repeats})")
    made.add_argument("--minutes", type=float, default=1e9, help="begin no measurement after this time")
    made.add_argument("--work", type=Path, default=WORK, help=f"where measurements are kept (default {WORK})")
    made.set_defaults(entry=entry)
    return made


def work_folder(options: argparse.Namespace) -> Path:
    """Where an entry keeps what it measures; a quick run does so elsewhere."""
    folder: Path = options.work / ("quick" if options.quick else "") / options.entry
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def repetitions(options: argparse.Namespace) -> int:
    """How many repetitions are asked for."""
    return 1 if options.quick else int(options.repeats)


def open_store(options: argparse.Namespace) -> Store:
    """The measurements of an entry."""
    return Store(work_folder(options), options.minutes)


def finish(
    options: argparse.Namespace,
    page: str,
    findings: Sequence[Finding],
    growths: Sequence[Growth] = (),
    goals: Sequence[str] = (),
    versions: Sequence[str] = (),
) -> int:
    """Print and write the page and the summary; 1 where a goal is missed.

    Args:
        goals: the goals missed that no finding tells, in words.
        versions: the commits that were measured.
    """
    missed = [*goals, *(said for finding in findings if (said := finding.missed()))]
    summary = {
        "entry": options.entry,
        "repetitions": repetitions(options),
        "measured": time.strftime("%Y-%m-%d"),
        "versions": list(versions),
        "missed": missed,
        **to_json(findings, growths),
    }
    (work_folder(options) / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    print(page)
    if not options.quick:
        (FOLDER / f"{options.entry}.md").write_text(page, encoding="utf-8")
    for goal in missed:
        print(f"missed: {goal}", file=sys.stderr)
    return 1 if missed and not options.quick else 0


def plain_page(title: str, text: str, findings: Sequence[Finding], growths: Sequence[Growth], more: str = "") -> str:
    """A page of nothing but the two tables."""
    parts = [f"# {title}", text.strip(), findings_table(findings)]
    if growths:
        parts += ["How the cost grows:", growth_table(growths)]
    return "\n\n".join([*parts, *([more.strip()] if more else [])]) + "\n"
