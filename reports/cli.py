"""The command ``bench report``."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli_options import FloatRange, output_option, rule_option, scorer_option

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("runs", nargs=-1, required=True, type=_FOLDER)
@output_option(type=click.Path(dir_okay=False, path_type=Path), default=Path("report.md"), show_default=True)
@click.option("--html", is_flag=True, help="Also write one self-contained HTML file; -o FILE.html writes only that.")
@click.option("--title", default="arc-bench report", show_default=True)
@click.option("--tasks", metavar="ID,...", help="Tasks to show in the gallery. Default: the ten most instructive.")
@click.option(
    "--training",
    multiple=True,
    type=_FOLDER,
    help="Folder of trained adapters, for their time and loss; repeatable.",
)
@click.option("--baseline", metavar="MODEL", help="Compare all models with this one only. Default: compare every pair.")
@rule_option()
@scorer_option()
@click.option("--reference", metavar="NAME", help="Published results to compare with: iteration48.")
@click.option("--sweep", type=_FILE, help="sweep.json of a sweep, for the table of its mixtures.")
@click.option(
    "--gpu-hour-price",
    type=FloatRange(0, min_open=True),
    metavar="DOLLARS",
    help="Price of an hour of one GPU; adds the cost of a task, and a plot of scores against it.",
)
@click.option("--gpus", type=click.IntRange(1), help="GPUs of each run. Default: one per server.")
@click.option("--closing", type=_FILE, help="Markdown file to append.")
def report(runs: tuple[Path, ...], output: Path, tasks: str | None, closing: Path | None, **options: object) -> None:
    """Write a report of one or more runs and pools: tables with intervals, paired comparisons and pictures.

    \b
    bench report runs/mine -o report.md --html
    bench report runs/a runs/b -o runs/both.md --title "Does BARC help?" --training trained
    bench report runs/mine -o report.md --tasks 00576224,4acc7107
    """
    from reports.report import ReportOptions, write_report

    task_ids = tuple(name.strip() for name in (tasks or "").split(",") if name.strip())
    try:
        closing_text = closing.read_text(encoding="utf-8") if closing else ""
    except UnicodeDecodeError as error:
        raise click.BadParameter(f"{closing} is not text in UTF-8 ({error.reason})", param_hint="--closing") from None
    report_options = ReportOptions(tasks=task_ids, closing=closing_text, **options)  # type: ignore[arg-type]
    for page in write_report(runs, output, report_options):
        click.echo(f"wrote {page}")
