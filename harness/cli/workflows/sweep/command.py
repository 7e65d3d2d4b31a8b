"""The command ``bench sweep``: train an adapter on every mixture, serve them all, bench them, and write one report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.report_to import report_sweep, report_to_option
from harness.cli.workflows.cluster.connection import require_ray
from harness.cli.workflows.cluster.options import Placement, cluster_options, take_placement
from harness.cli.workflows.existing_run import (
    ExpectedRun,
    adapter_hashes,
    base_hashes,
    is_finished,
    resume_or_move_aside,
)
from harness.cli.workflows.steps import print_command, run_bench, sigterm_as_interrupt
from harness.cli_options import OutputBesideSettings, schema_option, settings_option
from harness.core.errors import ConfigError

if TYPE_CHECKING:
    from harness.cli.workflows.sweep.sweep_file import Sweep


@click.command()
@click.argument("sweep_file", metavar="SWEEP.yaml", type=click.Path(path_type=Path))
@settings_option("Override a key of the sweep file, e.g. evaluation.n=8; repeat it.")
@click.option(
    "-o",
    "--out",
    cls=OutputBesideSettings,
    type=click.Path(file_okay=False, path_type=Path),
    help="The sweep's folder, instead of the file's out.",
)
@schema_option(lambda: _schema())
@click.option("--dry-run", is_flag=True, help="Print what would be trained and benched, and stop.")
@click.option(
    "--row", type=click.IntRange(0), help="Only train adapter I, from 0 as --dry-run lists them.", metavar="I"
)
@click.option("--rows", is_flag=True, help="Print the number of adapters, and stop.")
@cluster_options
@report_to_option
def sweep(
    sweep_file: Path,
    overrides: tuple[str, ...],
    out: Path | None,
    dry_run: bool,
    row: int | None,
    rows: bool,
    report_to: tuple[str, ...],
    **others: Any,
) -> None:
    """Train an adapter on each mixture of SWEEP.yaml, serve all from one server, bench them on equal samples, and
    write one report.

    Finished steps are skipped: if the command is killed, run it again to resume.

    \b
    bench sweep examples/iteration48-tiny.yaml
    bench sweep examples/iteration48.yaml --set seeds=[0,1,2] --set processes=8
    bench sweep examples/iteration48.yaml --out /shared/sweep --on ray:HEAD:6379
    bench sweep --schema > sweep.schema.json
    """
    from harness.cli.workflows.sweep.sweep_dry_run import describe_sweep
    from harness.cli.workflows.sweep.sweep_file import load_sweep
    from harness.cli.workflows.sweep.sweep_report import RESULTS, write_sweep_report

    placement = take_placement(others)
    if row is not None and placement is not None:
        raise ConfigError("--row trains one adapter on this machine; leave --on out")
    plan = load_sweep(sweep_file, overrides, out)
    if rows:
        click.echo(sum(1 for _ in plan.trainings()))
        return
    if row is not None and not dry_run:  # on a node that trains, the evaluation's dataset may be missing
        _train_row(plan, row)
        return
    _check_evaluation(plan)
    if dry_run:
        describe_sweep(plan)
    else:
        with sigterm_as_interrupt():
            runs = _run(plan, placement, report_to)
            write_sweep_report(plan, runs)
            report_sweep(report_to, plan.out, plan.title, plan.out / RESULTS, runs)


def _check_evaluation(plan: Sweep) -> None:
    """Check, before hours of training, that the evaluation's dataset is there and has enough tasks.

    Raises:
        ConfigError, DataError: it is not, or has one task for several training seeds.
    """
    from harness.data.spec import open_dataset

    tasks = min(len(open_dataset(plan.evaluation.dataset).ids), plan.evaluation.limit or sys.maxsize)
    if tasks < 2 <= len(plan.seeds):
        raise ConfigError(
            f"evaluation: {tasks} task; intervals over training seeds need at least 2: name another dataset or limit, "
            "or train with one seed"
        )


def _schema() -> dict[str, Any]:
    from harness.cli.workflows.sweep.sweep_schema import sweep_schema

    return sweep_schema()


def _train_row(plan: Sweep, row: int) -> None:
    """Train one adapter, and do nothing else: other commands, such as those of a job array, train the others."""
    from harness.cli.workflows.sweep.sweep_evaluation import record_evaluation
    from harness.cli.workflows.sweep.sweep_training import choose_row, train_here

    training = choose_row(plan, row)
    record_evaluation(plan)
    with sigterm_as_interrupt():
        train_here(plan, training)


def _run(plan: Sweep, placement: Placement | None, report_to: tuple[str, ...]) -> list[Path]:
    """Train what is not trained, here or on a cluster, bench what is not benched; return all run folders."""
    from harness.cli.workflows.sweep.sweep_evaluation import record_evaluation
    from harness.cli.workflows.sweep.sweep_training import train_here, train_on_cluster

    if placement is not None:
        require_ray()
    _check_server(plan)
    record_evaluation(plan)
    if placement is None:
        for training in plan.trainings():
            train_here(plan, training)
    else:
        train_on_cluster(plan, placement)
    return _bench(plan, report_to)


def _check_server(plan: Sweep) -> None:
    """Check before training that the adapters can be served afterwards.

    Raises:
        MissingExtraError, ServerError: vLLM is not installed, or its build does not fit the machine.
        ConfigError: the server does not know an option, does not serve adapters in the dtype, or could not load the
            adapters of a recipe.
    """
    from serve.launch.dtypes import served_dtype
    from serve.launch.extra_options import refuse_reserved_options
    from serve.launch.machine import detect_machine
    from serve.registry.base_model import BaseModel
    from trainers.model.base_model import find_base
    from trainers.model.lora import check_lora

    if _is_done(plan):
        return
    for training in plan.trainings():
        try:
            check_lora(training.recipe)
        except ConfigError as error:
            raise ConfigError(f"{training.name}: {error}") from None
    refuse_reserved_options(plan.serve.extra)
    model = BaseModel.open(find_base(str(plan.recipe["model"]))).config
    served_dtype(plan.serve.dtype, detect_machine(), model, plan.serve.extra, with_adapters=True)


def _bench(plan: Sweep, report_to: tuple[str, ...]) -> list[Path]:
    """Return the run folder of every model; start a server only if some runs are not finished."""
    from harness.cli.workflows.sweep.sweep_evaluation import record_evaluation
    from trainers.model.base_model import find_base

    base, folders = find_base(str(plan.recipe["model"])), _folders(plan)
    open_runs = {name: f for name, f in folders.items() if not is_finished(f, _expected_run(plan, name, base))}
    if open_runs:
        record_evaluation(plan)  # again: until now another command could change it
        _serve_and_run(plan, base, open_runs, report_to)
    return list(folders.values())


def _is_done(plan: Sweep) -> bool:
    """Return whether everything is trained and benched; with ``resume: false`` nothing counts as trained."""
    from trainers.model.base_model import find_base

    base, recipe = find_base(str(plan.recipe["model"])), next(plan.trainings()).recipe
    trained = all((plan.out / "trained" / name / "manifest.json").exists() for name in _names(plan))
    if not (recipe.resume and trained):
        return False
    return all(is_finished(folder, _expected_run(plan, name, base)) for name, folder in _folders(plan).items())


def _folders(plan: Sweep) -> dict[str, Path]:
    """Return the run folder of each model, including the base if it is benched."""
    from trainers.model.base_model import find_base

    folders = {name: plan.out / "bench" / name for name in _names(plan)}
    if plan.evaluation.base:
        base = find_base(str(plan.recipe["model"]))
        folders[base.name if isinstance(base, Path) else base] = plan.out / "bench-base"
    return folders


def _names(plan: Sweep) -> list[str]:
    """Return the names of all adapters."""
    return [model for row in plan.record().rows for model in row.models]


def _expected_run(plan: Sweep, name: str, base: Path | str) -> ExpectedRun:
    """Return the run that is expected of a model, with the weights that were trained last."""
    e, trained = plan.evaluation, plan.out / "trained" / name
    hashes = adapter_hashes(trained) if trained.is_dir() else base_hashes(base)
    return ExpectedRun({name: hashes}, e.dataset, e.n, e.seed, plan.inference_prompt(), plan.encoder, e.max_tokens)


def _serve_and_run(plan: Sweep, base: Path | str, folders: dict[str, Path], report_to: tuple[str, ...]) -> None:
    """Serve all adapters, and sample the runs.

    Args:
        folders: by model, the run folder.
        report_to: experiment trackers to which every run reports.
    """
    from serve.launch.operations import add_adapter
    from serve.launch.process import serving

    names, registry = _names(plan), plan.out / "adapters"
    versions = {}
    for name in names:
        folder = plan.out / "trained" / name
        print_command("adapters", "add", name, str(folder), "--adapters", str(registry))
        versions[name] = add_adapter(registry, name, folder, None).id
        click.echo(versions[name])
    options = {**plan.serve.model_dump(exclude={"extra"}), "extra": tuple(plan.serve.extra)}
    print_command("serve", str(base), "--adapters", str(registry))
    with serving(base, registry, log=plan.out / "server.log", progress=click.echo, **options) as server:
        click.echo(f"serving at {server.url}")
        for name in names:
            run_bench("adapters", "promote", versions[name], "--server", server.url)
        for name, folder in folders.items():
            resume = ["--resume"] if resume_or_move_aside(folder, _expected_run(plan, name, base)) else []
            where = ["--out", str(folder), *resume, *(["--report-to", ",".join(report_to)] if report_to else [])]
            run_bench("run", "--server", server.url, "--model", name, *plan.run_options(), *where)
