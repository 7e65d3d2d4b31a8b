"""The option ``--report-to``, and what each command reports to experiment trackers once its result is complete."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from harness.runs.schemas.results_schema import Results
    from harness.trackers.report import TrackerReport


def _parse(ctx: click.Context, option: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Return the trackers of the option; refuse an unknown one, and one whose package is not installed."""
    if value is None:
        return ()
    from harness.trackers.choice import parse_trackers, require_trackers

    try:
        trackers = parse_trackers(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, option) from None
    require_trackers(trackers)
    return trackers


report_to_option = click.option(
    "--report-to",
    metavar="TRACKER,…",
    callback=_parse,
    help="At the end, also report to these experiment trackers: wandb, mlflow, trackio, tensorboard.",
)
"""The option ``--report-to``, whose value is the parameter ``report_to``: a tuple of trackers, empty without it."""


def report_scores(
    trackers: Sequence[str],
    command: str,
    path: Path,
    results: Results | None,
    session: Mapping[str, float] | None = None,
    dataset: str | None = None,
) -> None:
    """Report every model of a run folder, or of a pool or file with predictions.

    Args:
        dataset: that the user named for scoring.
        results: None for a run that cannot be scored, of which counts and costs are reported.
        session: counts and seconds of the command itself, by name.
    """

    def build() -> list[TrackerReport]:
        from harness.candidates.pool_folder import is_pool
        from harness.results.tracker_reports import ScoredSource, model_reports
        from harness.runs.folder import RunFolder
        from harness.scoring.prediction_loader import open_predictions
        from reports.plots.intervals import results_figure

        folder = RunFolder(path)
        manifest = folder.manifest() if folder.manifest_path.is_file() and not is_pool(path) else None
        costs = None if results is None else results.cost
        if manifest is not None and costs is None:
            costs = open_predictions(path).costs
        pictures = {} if results is None else _pictures({"intervals": lambda: results_figure(results)})
        return model_reports(ScoredSource(path, command, manifest, costs, session or {}, pictures, dataset), results)

    again = f"bench score {shlex.quote(str(path))}" if path.is_dir() else "the same command"
    report_to_trackers(trackers, build, again)


def report_comparisons(trackers: Sequence[str], runs: Sequence[str], content: str, seed: int) -> None:
    """Report comparisons as one run of each tracker.

    Args:
        runs: the ``RUN[@MODEL]`` words of the command.
        content: its JSON.
    """

    def build() -> list[TrackerReport]:
        from harness.results.tracker_reports import compared_name, comparison_frame, comparison_metrics
        from harness.trackers.redaction import without_secrets
        from harness.trackers.report import TrackerReport
        from harness.trackers.sent_file import read_links

        rows = json.loads(content)
        links: dict[str, str] = {}
        for run in dict.fromkeys(word.partition("@")[0] for word in runs):
            links |= read_links(Path(run))
        models = dict.fromkeys(name for row in rows for name in (row["baseline"], compared_name(row)))
        metrics = list(dict.fromkeys(row["metric"] for row in rows))
        report = TrackerReport(
            name=f"compare {', '.join(models)}",
            command="compare",
            config=without_secrets({"runs": list(runs), "models": list(models), "metrics": metrics, "seed": seed}),
            metrics=comparison_metrics(rows),
            tables={"comparisons": comparison_frame(rows)},
            pictures=_pictures({"differences": lambda: _differences_figure([""], [rows])}),
            links=links,
        )
        return [report]

    report_to_trackers(trackers, build, "the same command")


def report_sweep(trackers: Sequence[str], out: Path, title: str, tables: Path, runs: Sequence[Path]) -> None:
    """Report the table of a sweep as one run of each tracker, with links to its runs and trainings.

    Args:
        out: the sweep's folder, with the pictures of its report.
        tables: the JSON of the table.
        runs: the run folders.
    """

    def build() -> list[TrackerReport]:
        from harness.results.tracker_reports import sweep_report
        from harness.trackers.sent_file import read_links

        links: dict[str, str] = {}
        for run in runs:
            links |= read_links(run)
        for path in sorted((out / "trained").glob("*/manifest.json")):
            trackers_of = json.loads(path.read_bytes()).get("tracker_runs") or {}
            links |= {f"training {path.parent.name} {name}": _link(run) for name, run in trackers_of.items()}
        pictures = {
            path.stem.removeprefix("report-"): path.read_bytes()
            for path in sorted(out.glob("report-*.png"))
            if not path.stem.startswith("report-task-")
        }
        return [sweep_report(out, title, json.loads(tables.read_bytes()), pictures, links)]

    report_to_trackers(trackers, build, "the same command")


def _link(run: Mapping[str, Any]) -> str:
    from harness.runs.schemas.tracker_run import TrackerRun

    return TrackerRun.model_validate(run).as_link()


def report_to_trackers(trackers: Sequence[str], build: Callable[[], Sequence[TrackerReport]], again: str) -> None:
    """Build reports, send them, and print what became of them to stderr; the one place where trackers' errors end.

    Whatever fails, Ctrl-C included, is a warning: the command's result is complete and its exit status stays.

    Args:
        build: returns the reports; called only if a tracker was chosen.
        again: the command that reports the same once more.
    """
    if not trackers:
        return
    from harness.trackers.delivery import deliver, describe_error
    from harness.trackers.sent_file import append_deliveries

    try:
        reports = build()
        deliveries = deliver(reports, trackers)
        for delivery in deliveries:
            if delivery.error is not None:
                _warn(delivery.tracker, delivery.error, again)
            for run in delivery.runs:
                click.echo(f"reported to {delivery.tracker}: {run.name or run.id} ({run.as_link()})", err=True)
        for folder in {report.folder for report in reports if report.folder is not None}:
            append_deliveries(folder, reports[0].command, deliveries)
    except KeyboardInterrupt:
        _warn(", ".join(trackers), "interrupted", again)
    except Exception as error:  # noqa: BLE001  # a report must never cost the result
        _warn(", ".join(trackers), describe_error(error), again)


def _warn(tracker: str, reason: str, again: str) -> None:
    text = f"warning: not reported to {tracker}: {reason}; the result is complete, report it again with {again}"
    click.echo(f"{text} --report-to {tracker.replace(', ', ',')}", err=True)


def _differences_figure(headings: Sequence[str], groups: Sequence[Sequence[Mapping[str, Any]]]) -> Figure:
    """Draw comparisons as JSON, each group under its heading."""
    from harness.results.tracker_reports import compared_name
    from reports.plots.differences import DrawnDifference, drawn_differences_figure

    return drawn_differences_figure(
        headings,
        [
            [
                DrawnDifference(
                    metric=row["metric"],
                    label=f"{compared_name(row)} − {row['baseline']}",
                    **{key: row["comparison"][key] for key in ("delta", "low", "high", "verdict")},
                )
                for row in rows
            ]
            for rows in groups
        ],
    )


def _pictures(figures: Mapping[str, Callable[[], Figure]]) -> dict[str, bytes]:
    """Return figures as PNG files by name, in the style of reports."""
    from reports.plots.style import render, styled

    with styled():
        return {name: render(draw(), name, vector=False)[f"{name}.png"] for name, draw in figures.items()}
