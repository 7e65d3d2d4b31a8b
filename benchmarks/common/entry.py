"""Options, page and summary of one benchmark."""

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
    """Return a parser with the options that every benchmark has."""
    options = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{entry}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--quick", action="store_true", help="small sizes, once; the page is printed, not written")
    options.add_argument("--repeats", type=int, default=repeats, help=f"paired repetitions (default {repeats})")
    options.add_argument("--minutes", type=float, default=1e9, help="start no measurement after this time")
    options.add_argument("--work", type=Path, default=WORK, help=f"folder of the measurements (default {WORK})")
    options.set_defaults(entry=entry)
    return options


def work_folder(options: argparse.Namespace) -> Path:
    """Return the folder for an entry's measurements; quick runs have another one."""
    folder: Path = options.work / ("quick" if options.quick else "") / options.entry
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def repetitions(options: argparse.Namespace) -> int:
    """Return the requested number of repetitions."""
    return 1 if options.quick else int(options.repeats)


def open_store(options: argparse.Namespace) -> Store:
    """Open the measurements of an entry."""
    return Store(work_folder(options), options.minutes)


def finish(
    options: argparse.Namespace,
    page: str,
    findings: Sequence[Finding],
    growths: Sequence[Growth] = (),
    goals: Sequence[str] = (),
    versions: Sequence[str] = (),
) -> int:
    """Print and write the page and the summary.

    Args:
        goals: missed goals that no finding covers, in words.
        versions: commits that were measured.

    Returns:
        Exit status: 1 if a goal is missed.
    """
    missed = [*goals, *(goal for finding in findings if (goal := finding.missed()))]
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
    """Return a page that consists of the two tables."""
    parts = [f"# {title}", text.strip(), findings_table(findings)]
    if growths:
        parts += ["How the cost grows:", growth_table(growths)]
    return "\n\n".join([*parts, *([more.strip()] if more else [])]) + "\n"
