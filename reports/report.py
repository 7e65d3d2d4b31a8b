"""Write a report: load its data, draw its pictures, compose its sections, and write the files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.candidates.pool_folder import is_pool
from harness.core.errors import ConfigError, RunError
from harness.core.files import write_atomically
from harness.results.recipe_table import ADAPTERS_ONLY
from harness.results.sequential_text import sequential_text
from harness.results.summary_table import summary_table
from reports.gallery.choose import GalleryTask, choose_tasks, named_tasks
from reports.html.page import html_page
from reports.html.task_table import TaskTable, task_table
from reports.loading.runs import Section, load_sections
from reports.loading.sweep import SweepTable, read_sweep, sweep_tables
from reports.loading.training import Training, find_training
from reports.pictures import Pictures, draw_pictures
from reports.sections.candidates import lost_grids
from reports.sections.figures import gallery_section, plots_section
from reports.sections.gains import gains_section
from reports.sections.pools import pool_sections
from reports.sections.provenance import provenance, warnings
from reports.sections.reference import Reference, load_reference, published_section
from reports.sections.sweep import sweep_section
from reports.sections.tables import cost, differences, failures, losses, overview
from reports.sections.test_time_training import test_time_training
from reports.sections.verdict import unfinished_warnings, verdict


@dataclass(frozen=True)
class ReportOptions:
    """What a report contains besides its runs."""

    title: str = "arc-bench report"
    html: bool = False
    """Also write one self-contained HTML file beside the markdown. An output that ends in .html is that file alone."""
    tasks: tuple[str, ...] = ()
    """Ids of the tasks in the gallery; empty chooses the most instructive ones."""
    training: tuple[Path, ...] = ()
    """Folders of trained adapters, for training times and loss curves."""
    baseline: str | None = None
    """Model to compare every other model with; None compares every pair."""
    rule: str | None = None
    """The rule that gives vote_1 and vote_2 of all runs; None takes each run's own, else the vote."""
    scorer: str | None = None
    """Whose rescores the rules that need them use, where several models rescored."""
    reference: str | None = None
    """Name of published results to compare with."""
    sweep: Path | None = None
    """sweep.json of the sweep that made the runs."""
    closing: str = ""
    """Markdown to append."""


@dataclass(frozen=True)
class ReportData:
    """Everything that the sections of a report show."""

    sections: list[Section]
    trained: Mapping[str, Training]
    """Training runs by model name."""
    gallery: list[GalleryTask]
    sweep: list[SweepTable] | None
    reference: Reference | None
    pools: list[str]
    """The markdown of the pools."""


def write_report(runs: Sequence[Path], output: Path, options: ReportOptions | None = None) -> list[Path]:
    """Write the report of these runs and pools to ``output`` and its pictures into the same folder.

    The same run folders give the same bytes.

    Returns:
        The markdown and HTML files that were written.

    Raises:
        RunError, DataError: a run is missing or broken.
        ConfigError: the output is neither .md nor .html, or only pools were named and an option is of runs.
    """
    options = options or ReportOptions()
    if output.suffix not in (".md", ".html"):
        raise ConfigError(f"{output}: a report ends in .md, or in .html for one self-contained file")
    data = load_report(runs, options)
    pictures = Pictures({}, output.stem)
    if data.sections:
        pictures = draw_pictures(output.stem, data.sections, data.gallery, data.trained)
    with_html = options.html or output.suffix == ".html"
    parts = compose(data, pictures, options, with_html)
    output.parent.mkdir(parents=True, exist_ok=True)
    pages: dict[Path, str] = {}
    if output.suffix == ".md":
        for name, content in pictures.files.items():
            write_atomically(output.parent / name, content)
        pages[output] = "\n\n".join(part for part in parts if isinstance(part, str)).rstrip() + "\n"
    if with_html:
        pages[output.with_suffix(".html")] = html_page(options.title, parts, pictures.files)
    for path, text in pages.items():
        write_atomically(path, text.encode())
    return list(pages)


def load_report(runs: Sequence[Path], options: ReportOptions) -> ReportData:
    """Read the run folders, the pools and all that the options name, and compute what the sections show."""
    if not runs:
        raise RunError("no run was named")
    pools = [path for path in runs if is_pool(path)]
    pool_parts = pool_sections(pools, options.rule, options.scorer)
    runs = [path for path in runs if path not in pools]
    if not runs:
        _refuse_options_of_runs(options)
        return ReportData([], {}, [], None, None, pool_parts)
    reference = None if options.reference is None else load_reference(options.reference)
    record = None if options.sweep is None else read_sweep(options.sweep)
    sections = load_sections(
        runs, options.baseline or (record.rows[0].models[0] if record else None), options.rule, options.scorer
    )
    return ReportData(
        sections=sections,
        trained=find_training(options.training, sections),
        gallery=named_tasks(sections, options.tasks) if options.tasks else choose_tasks(sections),
        sweep=None if record is None else sweep_tables(sections, record),
        reference=reference,
        pools=pool_parts,
    )


def _refuse_options_of_runs(options: ReportOptions) -> None:
    """Raise ConfigError if an option is given that needs a run."""
    of_runs = ("tasks", "training", "baseline", "reference", "sweep")
    if given := [f"--{name}" for name in of_runs if getattr(options, name)]:
        raise ConfigError(f"{', '.join(given)} needs a run beside the pools")


def compose(
    data: ReportData, pictures: Pictures, options: ReportOptions, with_html: bool = False
) -> list[str | TaskTable]:
    """Return the parts of the report in order: markdown, and task tables, which only the HTML page shows."""
    sections = data.sections
    parts: list[str | TaskTable] = [f"# {options.title}"]
    if not sections:
        return [*parts, *data.pools, *([options.closing] if options.closing else [])]
    if data.sweep is None:
        parts += [verdict(sections), *unfinished_warnings(sections)]
    else:
        parts += [*unfinished_warnings(sections), *(part for table in data.sweep for part in sweep_section(table))]
    if data.reference is not None:
        parts += published_section(data.reference, sections, data.sweep or [])
    if len(sections) > 1:
        parts += ["## All datasets", *(overview(sections, metric) for metric in ("vote_2", "accuracy"))]
    parts.append(pictures.markdown("intervals", "Every metric of every model with its interval"))
    for section in sections:
        parts += _dataset_section(section, data.trained)
        if with_html:
            headings = {entry.task.id: entry.heading for entry in data.gallery if entry.section is section}
            parts.append(task_table(section, headings))
    parts += [*gains_section(sections), *data.pools]
    parts += plots_section(pictures)
    parts += gallery_section(data.gallery, pictures, several_datasets=len(sections) > 1)
    parts += ["## How it was made", *provenance([run for section in sections for run in section.runs])]
    return [*parts, options.closing] if options.closing else parts


def _dataset_section(section: Section, trained: Mapping[str, Training]) -> list[str]:
    """Return the markdown tables of one dataset."""
    parts = [f"## {section.heading}", summary_table(section.results)]
    parts += [sequential_text(run.sequential) for run in section.runs if run.sequential is not None]
    if warning_texts := warnings(section):
        parts += ["### Warnings", "\n".join(f"- {text}" for text in warning_texts)]
    if comparisons := differences(section):
        parts += ["### Differences", *comparisons, ADAPTERS_ONLY]
    parts += test_time_training(section)
    parts += ["### Coverage and selection", losses(section), *lost_grids(section), "### Failures", failures(section)]
    return [*parts, "### Cost", *cost(section, trained)]
