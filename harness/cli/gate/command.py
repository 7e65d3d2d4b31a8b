"""The command ``bench gate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.gate.gate_requirement import Requirement
from harness.cli.gate.model_gate import ScoringChoices, gate_difference, gate_minimum
from harness.cli.gate.recipe_gate import gate_recipes
from harness.cli.parameters import dataset_of_files_option
from harness.cli.recipe_selection import recipe_options
from harness.cli_options import FloatRange, rule_option, scorer_option

if TYPE_CHECKING:
    from harness.stats.gate import Gate


@click.command()
@click.argument("runs", nargs=-1, metavar="RUN[@MODEL] …")
@click.option("--metric", default="vote_2", show_default=True, help="The metric to test.")
@click.option("--min", "minimum", type=FloatRange(0, 1), help="The share that the metric must reach.")
@click.option(
    "--baseline",
    "baselines",
    multiple=True,
    metavar="RUN[@MODEL]",
    help="The model, or with several the training runs of the recipe, to compare with, for --margin or --min-gain.",
)
@click.option("--margin", type=FloatRange(0, 1), help="It must not lose more than this share.")
@click.option("--min-gain", "gain", type=FloatRange(0, 1, min_open=True), help="It must gain this share or more.")
@recipe_options
@click.option(
    "--common", is_flag=True, help="With --baseline: if the runs' tasks differ, use the tasks that both have."
)
@rule_option()
@scorer_option()
@dataset_of_files_option
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path), help="Also write JUnit XML here.")
def gate(
    runs: tuple[str, ...],
    metric: str,
    minimum: float | None,
    baselines: tuple[str, ...],
    margin: float | None,
    gain: float | None,
    recipes: tuple[str, ...],
    training: tuple[Path, ...],
    paired_seeds: bool,
    common: bool,
    rule: str | None,
    scorer: str | None,
    dataset: str | None,
    junit: Path | None,
) -> int:
    """PASS (exit 0) if the whole interval meets the requirement, FAIL (1) if none of it does, else INCONCLUSIVE (3).

    The exit status is 4 if the metric cannot be computed, and 2 for wrong use. Several runs are training runs of
    one recipe; with --recipe the first recipe is tested, with --margin or --min-gain against the second. Their
    intervals are over tasks and training runs.

    \b
    bench gate runs/mine@adapter --metric vote_2 --min 0.20
    bench gate runs/new --baseline runs/old --metric accuracy --margin 0.01 --junit gate.xml
    bench gate runs/ttt --baseline runs/adapter --min-gain 0.5
    bench gate runs/new-s0 runs/new-s1 --baseline runs/old-s0 --baseline runs/old-s1 --margin 0.01
    bench gate --recipe new=runs/new-s0,runs/new-s1 --metric accuracy --min 0.10
    """
    from harness.core.errors import ArcBenchError, ConfigError, NotComputableError
    from harness.results.junit_xml import write_junit

    requirement, choices = Requirement(metric, minimum, margin, gain), ScoringChoices(common, rule, scorer, dataset)
    _check_usage(requirement, runs, baselines, recipes, paired_seeds)
    name = requirement.in_words(", ".join(runs or recipes[:1]), ", ".join(baselines or recipes[1:]))
    try:
        _check_metric(metric)
        if recipes or len(runs) > 1 or len(baselines) > 1:
            verdict, text = gate_recipes(runs, baselines, recipes, requirement, choices, training, paired_seeds)
        else:
            verdict, text = _gate_model(runs[0], baselines, requirement, choices)
    except (ArcBenchError, OSError) as error:
        if junit is not None:
            write_junit(junit, name, None, str(error))
        if isinstance(error, ConfigError):
            raise
        raise NotComputableError(str(error)) from error
    click.echo(f"{verdict.name}: {text}")
    if junit is not None:
        write_junit(junit, name, verdict, text)
    return verdict.value


def _gate_model(
    run: str, baselines: Sequence[str], requirement: Requirement, choices: ScoringChoices
) -> tuple[Gate, str]:
    """Test a single model, without a baseline or against one; return the verdict and its reason."""
    if requirement.minimum is not None:
        verdict, text = gate_minimum(run, requirement, choices)
    else:
        verdict, text = gate_difference(run, baselines[0], requirement, choices)
    return verdict, f"{text} (this model alone, not other training runs of its recipe)"


def _check_usage(
    requirement: Requirement, runs: Sequence[str], baselines: Sequence[str], recipes: Sequence[str], paired: bool
) -> None:
    """Raise UsageError unless the options say what is tested, and against what."""
    asked = [value for value in (requirement.minimum, requirement.margin, requirement.gain) if value is not None]
    compared = requirement.minimum is None
    if bool(runs) == bool(recipes):
        raise click.UsageError("name the run to test, or recipes with --recipe NAME=RUN@MODEL,RUN@MODEL")
    if recipes:
        if baselines:
            raise click.UsageError("with --recipe, the baseline is a second --recipe, not --baseline")
        if len(asked) != 1 or len(recipes) != (2 if compared else 1):
            raise click.UsageError(
                "give one --recipe with --min, or two with --margin or --min-gain: the second is the baseline"
            )
    elif len(asked) != 1 or bool(baselines) != compared:
        raise click.UsageError("give either --min, or --baseline with --margin or --min-gain")
    if paired and not recipes and max(len(runs), len(baselines)) == 1:
        raise click.UsageError("--paired-seeds needs two recipes with several training runs each")


def _check_metric(metric: str) -> None:
    from harness.core.errors import ConfigError
    from harness.voting.metrics import ENUMERATED_METRICS

    if metric not in ENUMERATED_METRICS:
        raise ConfigError(f"there is no metric {metric!r}; choose one of {', '.join(ENUMERATED_METRICS)}")
