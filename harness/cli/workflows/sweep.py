"""The command ``bench sweep``: train an adapter on every mixture, serve them all, bench them, and write one report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.report_to import report_sweep, report_to_option
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
    from harness.cli.workflows.sweep_file import Sweep

EVALUATION = "evaluation.json"
"""The evaluation settings of the sweep in its folder; another evaluation in the same folder is refused."""


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
@report_to_option
def sweep(
    sweep_file: Path, overrides: tuple[str, ...], out: Path | None, dry_run: bool, report_to: tuple[str, ...]
) -> None:
    """Train an adapter on each mixture of SWEEP.yaml, serve all from one server, bench them on equal samples, and
    write one report.

    Finished steps are skipped: if the command is killed, run it again to resume.

    \b
    bench sweep examples/iteration48-tiny.yaml
    bench sweep examples/iteration48.yaml --set seeds=[0,1,2] --set processes=8
    bench sweep --schema > sweep.schema.json
    """
    from harness.cli.workflows.sweep_file import load_sweep
    from harness.cli.workflows.sweep_report import RESULTS, write_sweep_report

    plan = load_sweep(sweep_file, overrides, out)
    if dry_run:
        _describe(plan)
        return
    _check_server(plan)
    _record_evaluation(plan)
    with sigterm_as_interrupt():
        for training in plan.trainings():
            _train(plan, training.name, training.data)
        runs = _bench(plan, report_to)
        write_sweep_report(plan, runs, sweep_file)
        report_sweep(report_to, plan.out, plan.title, plan.out / RESULTS, runs)


def _schema() -> dict[str, Any]:
    from harness.cli.workflows.sweep_schema import sweep_schema

    return sweep_schema()


def _describe(plan: Sweep) -> None:
    """Print what the sweep trains and benches, and how much of it is done."""
    trainings, trained = list(plan.trainings()), 0
    settings = {name: row.label for row in plan.record().rows for name in row.models}
    for training in trainings:
        recipe = training.recipe
        total = sum(part.weight or 0 for part in recipe.datasets)
        parts = ", ".join(f"{(part.weight or 0) / (total or 1):.1%} {part.spec}" for part in recipe.datasets)
        is_trained = recipe.resume and (Path(recipe.output_dir) / "manifest.json").exists()
        trained += is_trained
        done = "trained" if is_trained else f"{recipe.max_steps} steps"
        label = f" ({settings[training.name]})" if plan.axes or plan.cells else ""
        click.echo(f"{training.name}{label}: {parts}; seed {recipe.seed}; {done}")
    click.echo(f"each benched with {plan.evaluation.n} predictions an output on {plan.evaluation.dataset}")
    rows, seeds = len(plan.table_rows()), len(plan.seeds)
    click.echo(
        f"{rows} row{'s' * (rows != 1)} with {seeds} seed{'s' * (seeds != 1)} each: {len(trainings)} to train, "
        f"{trained} of them trained"
    )


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
    from trainers.model.inputs import find_base
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


def _record_evaluation(plan: Sweep) -> None:
    """Write the evaluation settings to the sweep's folder: rows of one table must be benched in the same way.

    Raises:
        ConfigError: the folder holds a sweep with other evaluation settings, or its settings are damaged.
    """
    from harness.core.files import write_atomically
    from trainers.recipe.schema import changed_keys, flatten

    path = plan.out / EVALUATION
    now = flatten(plan.evaluation.model_dump(mode="json", exclude={"base", "prompt"}))
    if plan.evaluation.prompt is not None:
        now["prompt"] = plan.evaluation.prompt
    if path.exists():
        try:
            before = json.loads(path.read_bytes())
        except ValueError as error:
            raise ConfigError(
                f"{path} is damaged ({error}); give another out, or remove it where the evaluation is the same"
            ) from error
        if changed := changed_keys(before, now):
            raise ConfigError(
                f"{plan.out} holds a sweep with another evaluation; changed: {', '.join(changed)}. "
                "Give another out, or the same evaluation"
            )
    plan.out.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(now, indent=2) + "\n").encode())


def _train(plan: Sweep, name: str, data: dict[str, object]) -> None:
    """Write the recipe of an adapter and train it, with torchrun if the sweep uses several processes."""
    import yaml

    from harness.cli.workflows.sweep_names import recipe_path
    from harness.core.files import write_atomically

    path = recipe_path(plan.out, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, yaml.safe_dump(data, sort_keys=False).encode())
    launcher: list[str] = []
    if plan.processes > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(plan.processes)]
    run_bench("train", str(path), launcher=launcher)


def _bench(plan: Sweep, report_to: tuple[str, ...]) -> list[Path]:
    """Return the run folder of every model; start a server only if some runs are not finished."""
    from trainers.model.inputs import find_base

    base, folders = find_base(str(plan.recipe["model"])), _folders(plan)
    open_runs = {name: f for name, f in folders.items() if not is_finished(f, _expected_run(plan, name, base))}
    if open_runs:
        _serve_and_run(plan, base, open_runs, report_to)
    return list(folders.values())


def _is_done(plan: Sweep) -> bool:
    """Return whether everything is trained and benched; with ``resume: false`` nothing counts as trained."""
    from trainers.model.inputs import find_base

    base, recipe = find_base(str(plan.recipe["model"])), next(plan.trainings()).recipe
    trained = all((plan.out / "trained" / name / "manifest.json").exists() for name in _names(plan))
    if not (recipe.resume and trained):
        return False
    return all(is_finished(folder, _expected_run(plan, name, base)) for name, folder in _folders(plan).items())


def _folders(plan: Sweep) -> dict[str, Path]:
    """Return the run folder of each model, including the base if it is benched."""
    from trainers.model.inputs import find_base

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
