"""The command ``bench report``."""

from __future__ import annotations

from pathlib import Path

import click

from harness.core.cli_options import RenamedOption

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("runs", nargs=-1, required=True, type=_FOLDER)
@click.option(
    "-o",
    "--out",
    "output",
    cls=RenamedOption,
    old_names=("--output",),
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("report.md"),
    show_default=True,
)
@click.option("--html", is_flag=True, help="Also one self-contained HTML file; -o FILE.html writes that alone.")
@click.option("--title", default="arc-bench report", show_default=True)
@click.option("--tasks", metavar="ID,...", help="Tasks of the gallery. Default: the ten most instructive.")
@click.option(
    "--training", multiple=True, type=_FOLDER, help="A folder of trained adapters, for their time and loss; repeat it."
)
@click.option("--baseline", metavar="MODEL", help="Compare every model with this one only. Default: every pair.")
@click.option("--reference", metavar="NAME", help="Published figures to set beside the runs: iteration48.")
@click.option("--sweep", type=_FILE, help="sweep.json of a sweep, for its table.")
@click.option("--closing", type=_FILE, help="Markdown to end with.")
def report(runs: tuple[Path, ...], output: Path, tasks: str | None, closing: Path | None, **options: object) -> None:
    """Write the report of one or more runs: tables with intervals, paired comparisons, pictures.

    \b
    bench report runs/mine -o report.md --html
    bench report runs/a runs/b -o runs/both.md --title "Does BARC help?" --training trained
    bench report runs/mine -o report.md --tasks 00576224,4acc7107
    """
    from reports.report import ReportOptions, write_report

    chosen = tuple(name.strip() for name in (tasks or "").split(",") if name.strip())
    try:
        ending = closing.read_text(encoding="utf-8") if closing else ""
    except UnicodeDecodeError as error:
        raise click.BadParameter(f"{closing} is not text in UTF-8 ({error.reason})", param_hint="--closing") from None
    made = ReportOptions(tasks=chosen, closing=ending, **options)  # type: ignore[arg-type]
    for page in write_report(runs, output, made):
        click.echo(f"wrote {page}")
