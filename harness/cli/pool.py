"""The command ``bench pool``."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.entry import print_warnings
from harness.cli_options import json_option, print_result


@click.command()
@click.argument("members", nargs=-1, required=True, metavar="RUN[@MODEL]|FILE …")
@click.option(
    "-o", "--out", "output", required=True, type=click.Path(path_type=Path), help="Folder of the pool, not there yet."
)
@click.option("--dataset", help="The dataset of the tasks, e.g. arc1/evaluation; default: that of the runs.")
@click.option("--rules", help="Selection rules to compare with the best member: all (the default), or names.")
@json_option("the table", was_flag=False)
def pool(
    members: tuple[str, ...], output: Path, dataset: str | None, rules: str | None, json_file: Path | None
) -> None:
    """Merge the candidates of several runs, models of runs, pools, and files in any format that bench score reads.

    The folder is scored, submitted and rescored like a run: bench score POOL, bench submit POOL, bench rescore POOL.
    The table compares what selection rules choose from all candidates with the best member.

    \b
    bench pool runs/a runs/b@adapter -o runs/pool
    bench pool runs/a submission.json --dataset arc1/evaluation -o runs/pool
    """
    from harness.candidates.pool_folder import PoolFolder
    from harness.core.errors import ConfigError, UnknownOutputError
    from harness.pools.pool_building import build_pool
    from harness.pools.pool_scores import compare_with_members
    from harness.results.pool_table import pool_table
    from harness.scoring.prediction_loader import open_predictions
    from harness.scoring.rule_scores import parse_rules

    named = parse_rules(rules or "all")  # refuses unknown ones before anything is written
    if rules not in (None, "all") and (late := [rule.name for rule in named if rule.needs_rescores]):
        raise ConfigError(
            f"--rules: {', '.join(late)} cannot be applied to a new pool, which has no rescores: make it without, then "
            f"bench rescore {output} and bench score {output} --rules {','.join(late)}"
        )
    folder = PoolFolder(output)
    folder.check_free()
    new = build_pool(members, dataset)
    manifest = folder.write(new.manifest, new.candidates())
    saved = open_predictions(output)
    print_warnings([*new.notes, *saved.warnings])
    click.echo(f"{output}: {manifest.candidates} candidates of {len(manifest.members)} members", err=True)
    try:
        scores = compare_with_members(saved, rules)
    except UnknownOutputError as error:
        print_warnings([f"no table: {error}"])
        return
    print_result(pool_table(scores), scores.result.model_dump_json(indent=2), json_file)
