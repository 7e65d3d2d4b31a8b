"""The report: what stands in it, in which order, and the files it is written to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.core.errors import ConfigError, RunError
from harness.core.files import write_atomically
from harness.results.summary_table import summary_table
from harness.runs.schema import SweepRecord
from reports.gallery.choose import Shown, choose_tasks, named_tasks
from reports.html.page import Part, html_page, task_heading
from reports.html.task_table import task_table
from reports.loading.runs import Section, load_sections
from reports.loading.training import Training, find_training
from reports.pictures import Pictures, draw_pictures, task_kind
from reports.sections.overview import beside_published, overview, sweep_tables
from reports.sections.provenance import provenance, warnings
from reports.sections.sweep import read_sweep
from reports.sections.tables import cost, differences, failures, losses
from reports.sections.verdict import unfinished, verdict


@dataclass(frozen=True)
class ReportOptions:
    """What a report is to hold beyond its runs."""

    title: str = "arc-bench report"
    html: bool = False
    """Also as one self-contained HTML file, named like the markdown; an output that ends in .html is that alone."""
    tasks: tuple[str, ...] = ()
    """Ids for the gallery; empty chooses the most instructive."""
    training: tuple[Path, ...] = ()
    """Folders of trained adapters, for training time and loss curves."""
    baseline: str | None = None
    """The model that all others are compared with; None compares every pair."""
    reference: str | None = None
    """Published figures to set beside the runs."""
    sweep: Path | None = None
    """The record of the sweep that made the runs."""
    closing: str = ""
    """Markdown to end with."""


def write_report(runs: Sequence[Path], output: Path, options: ReportOptions | None = None) -> list[Path]:
    """Write the report of these runs to ``output``, and its pictures into the same folder.

    The same run folders give the same bytes.

    Returns:
        The pages that were written.

    Raises:
        RunError, DataError: a run is missing or broken. ConfigError: the output is neither .md nor .html.
    """
    options = options or ReportOptions()
    if output.suffix not in (".md", ".html"):
        raise ConfigError(f"{output}: a report ends in .md, or in .html for one self-contained file")
    if not runs:
        raise RunError("no run was named")
    record = None if options.sweep is None else read_sweep(options.sweep)
    first = None if record is None else record.rows[0].models[0]
    sections = load_sections(runs, options.baseline or first)
    trained = find_training(options.training, sections)
    shown = named_tasks(sections, options.tasks) if options.tasks else choose_tasks(sections)
    pictures = draw_pictures(output.stem, sections, shown, trained)
    parts = compose(sections, pictures, shown, trained, options, record)
    output.parent.mkdir(parents=True, exist_ok=True)
    pages: dict[Path, str] = {}
    if output.suffix == ".md":
        for name, data in pictures.files.items():
            write_atomically(output.parent / name, data)
        pages[output] = "\n\n".join(part for part in parts if isinstance(part, str)).rstrip() + "\n"
    if options.html or output.suffix == ".html":
        pages[output.with_suffix(".html")] = html_page(options.title, parts, pictures.files)
    for path, text in pages.items():
        write_atomically(path, text.encode())
    return list(pages)


def compose(
    sections: Sequence[Section],
    pictures: Pictures,
    shown: Sequence[Shown],
    trained: Mapping[str, Training],
    options: ReportOptions,
    record: SweepRecord | None,
) -> list[Part]:
    """The parts of the report in order; those of a sweep begin with its own verdict and table."""
    parts: list[Part] = [f"# {options.title}"]
    if record is None:
        parts.append(verdict(sections))
    else:
        parts += [*unfinished(sections), *sweep_tables(sections, record)]
    if options.reference is not None:
        parts += beside_published(sections, options.reference, record)
    if len(sections) > 1:
        parts += ["## All datasets", *(overview(sections, metric) for metric in ("vote_2", "accuracy"))]
    parts.append(pictures.markdown("intervals", "Every metric of every model with its interval"))
    for number, section in enumerate(sections, 1):
        parts += _section(section, trained)
        own = [entry.task.id for entry in shown if entry.section is section]
        parts.append(task_table(number, section, own))
    parts += _pictures(sections, pictures)
    parts += _gallery(sections, shown, pictures)
    parts += ["## How it was made", *provenance([run for section in sections for run in section.runs])]
    return [*parts, options.closing] if options.closing else parts


def _section(section: Section, trained: Mapping[str, Training]) -> list[str]:
    parts = [f"## {section.heading}", summary_table(section.results)]
    if told := warnings(section):
        parts += ["### Warnings", "\n".join(f"- {warning}" for warning in told)]
    if compared := differences(section):
        parts += ["### Differences", *compared]
    parts += ["### Coverage and selection", losses(section), "### Failures", failures(section)]
    return [*parts, "### Cost", *cost(section, trained)]


_ABOUT = {
    "curves": (
        "More predictions",
        "Accuracy, pass and vote against the number of predictions",
        "What a random part of the predictions would have given, computed exactly; bands: intervals over tasks. "
        "Accuracy does not depend on their number. Between pass@k and vote@k lies what voting loses.",
    ),
    "differences": (
        "Differences",
        "Paired differences with their intervals against zero",
        "Filled marks: better or worse after Holm's correction; hollow ones: not resolved. A mark without an interval "
        "has too few tasks that differ for one.",
    ),
    "rates": (
        "Task by task",
        "Solve rate of every task, one model against another",
        "Each circle is the tasks at one place (its area grows with their number): the share of exact predictions of "
        "two models. Above the diagonal the model at the left axis is better.",
    ),
    "reliability": (
        "Can the vote be trusted?",
        "Share of the votes won against how often the winner is right",
        "Test outputs by the share of all predictions that the most frequent grid has; how often that grid is right, "
        "with Wilson's interval; grey bars: the share of the test outputs. On the dashed line a winner is right as "
        "often as its share says.",
    ),
    "losses": (
        "Training",
        "Loss of the benched adapters during training",
        "Running mean of the loss of each step; single marks: validation.",
    ),
}
"""By kind of picture: heading, what it shows, and how to read it."""


def _pictures(sections: Sequence[Section], pictures: Pictures) -> list[str]:
    parts = ["## Pictures"]
    for kind, (heading, words, about) in _ABOUT.items():
        if pictures.has(kind):
            parts += [f"### {heading}", pictures.markdown(kind, words), about]
    return parts


def _gallery(sections: Sequence[Section], shown: Sequence[Shown], pictures: Pictures) -> list[str]:
    if not shown:
        return []
    parts = [
        "## Tasks worth a look",
        "Examples, then for each test the input, the truth, and the grids with the most votes of each model: votes of "
        "all predictions, ✓ exact (heavy frame), ✗ with the number of cells that differ (outlined) or its shape "
        "where that differs (dashed frame).",
    ]
    for entry in shown:
        number = next(i for i, section in enumerate(sections, 1) if section is entry.section)
        of = f" (`{entry.section.heading}`)" if len(sections) > 1 else ""
        parts += [f"### {task_heading(number, entry.task.id)}", f"{entry.why[0].upper()}{entry.why[1:]}{of}."]
        parts.append(pictures.markdown(task_kind(sections, entry), f"Task {entry.task.id} with predictions"))
    return parts
