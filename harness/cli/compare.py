"""The commands ``bench compare`` and ``bench gate``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN[@MODEL] …")
@click.option("--baseline", is_flag=True, help="Compare each with the first only, not every pair.")
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Also write the comparisons here."
)
def compare(runs: tuple[str, ...], baseline: bool, json_file: Path | None) -> None:
    """Compare models pair by pair on the same tasks: difference, interval, p, and a verdict in words.

    \b
    bench compare runs/mine
    bench compare runs/mine@base runs/mine@adapter
    """
    import json
    from dataclasses import asdict

    from harness.pairs import against_first, all_pairs, compare_pairs
    from harness.selection import select_models
    from harness.verdicts import comparison_table

    selected = select_models(runs)
    for warning in selected.warnings:
        click.echo(f"warning: {warning}", err=True)
    pairs = against_first(selected.scored) if baseline else all_pairs(selected.scored)
    if not pairs:
        raise click.UsageError("one model alone has nothing to be compared with; name a second one")
    found = compare_pairs(pairs, selected.seed)
    click.echo(comparison_table(found))
    for row in found:
        if row.comparison.differing:
            click.echo(f"{row.metric}: {row.model} wins {_ids(row.won)}; {row.baseline} wins {_ids(row.lost)}")
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(row) for row in found], indent=2) + "\n")


def _ids(ids: tuple[str, ...]) -> str:
    shown = ", ".join(ids[:8])
    return f"{len(ids)}: {shown}{' …' if len(ids) > 8 else ''}" if ids else "none"


@click.command()
@click.argument("run", metavar="RUN[@MODEL]")
@click.option(
    "--metric", type=click.Choice(["accuracy", "pass_n", "vote_2", "vote_1"]), default="vote_2", show_default=True
)
@click.option("--min", "minimum", type=click.FloatRange(0, 1), required=True, help="The share to be reached.")
def gate(run: str, metric: str, minimum: float) -> int:
    """PASS (exit 0) if the whole interval reaches the minimum, FAIL (1) if it lies below, else INCONCLUSIVE (3).

    \b
    bench gate runs/mine@adapter --metric vote_2 --min 0.20
    """
    from harness.gate import gate_interval
    from harness.scoring import score_intervals
    from harness.selection import select_models
    from harness.tables import percent, with_interval

    selected = select_models((run,))
    if len(selected.scored) != 1:
        names = ", ".join(scores.model for scores in selected.scored)
        raise click.UsageError(f"{run} holds several models; name one with RUN@MODEL: {names}")
    found = score_intervals(selected.scored, selected.seed)[0][metric]
    verdict = gate_interval(found, minimum)
    click.echo(f"{verdict.name}: {metric} is {with_interval(found)}, asked for is at least {percent(minimum)}")
    return verdict.value
