"""The command ``bench report``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), default=Path("report.md"), show_default=True
)
@click.option("--title", default="arc-bench report", show_default=True)
@click.option("--closing", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Markdown to end with.")
def report(runs: tuple[Path, ...], output: Path, title: str, closing: Path | None) -> None:
    """Write the report of one or more runs: tables with intervals, paired comparisons, pictures.

    \b
    bench report runs/mine -o report.md
    bench report runs/a runs/b -o runs/both.md --title "Does BARC help?"
    """
    from reports.markdown import write_report

    write_report(runs, output, title, closing.read_text() if closing else "")
    click.echo(f"wrote {output}")
