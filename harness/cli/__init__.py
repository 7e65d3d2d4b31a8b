"""The command ``bench``: a group that imports a command's module only when the command is called."""

from __future__ import annotations

from importlib import import_module

import click

from harness import __version__
from harness.cli.entry import run_cli

COMMANDS = {
    "demo": (
        "harness.cli.workflows.demo:demo",
        "Run the whole loop on the tiny base: train, serve, hot-swap, bench, compare, report.",
    ),
    "train": ("harness.cli.workflows.parity:train", "Train an adapter from a recipe."),
    "preview": ("trainers.commands.cli:preview", "Show what the trainer will see."),
    "parity": ("harness.cli.workflows.parity:parity", "Check that a server has the adapter that was trained."),
    "merge": ("trainers.commands.cli:merge", "Write base and adapter as one full model."),
    "tiny-base": ("trainers.commands.cli:tiny_base", "Make the embedded tiny model, or print where it is."),
    "serve": ("serve.commands.serve:serve", "Serve a model and any number of adapters from one vLLM."),
    "adapters": ("serve.commands.adapters:adapters", "Manage the adapter registry and running servers."),
    "run": ("harness.cli.run:run", "Sample augmented predictions from a server, vote and score."),
    "reproduce": (
        "harness.cli.reproduce:reproduce",
        "Repeat a run from its manifest, and compare predictions and results.",
    ),
    "rescore": (
        "harness.cli.rescore:rescore",
        "Score the candidates of a run under the same views, for the rules poe and kgmon.",
    ),
    "score": ("harness.cli.score:score", "Vote on and score saved predictions."),
    "export": ("harness.cli.export:export", "Write predictions as a table: Parquet, CSV or JSON lines."),
    "pool": ("harness.cli.pool:pool", "Merge the candidates of several runs and files."),
    "compare": ("harness.cli.compare:compare", "Compare models in pairs, with a verdict in words."),
    "gate": ("harness.cli.gate.command:gate", "Pass or fail a run against a threshold or another run."),
    "plan": (
        "harness.cli.plan:plan",
        "Say how many tasks, training runs and predictions resolve a difference of recipes.",
    ),
    "submit": ("harness.cli.submit:submit", "Write or check Kaggle's submission.json."),
    "sweep": (
        "harness.cli.workflows.sweep.command:sweep",
        "Train adapters on mixtures, serve and bench them all, and compare them in one table.",
    ),
    "ttt": (
        "harness.cli.workflows.ttt.command:ttt",
        "Train an adapter for every task at test time, serve and bench it.",
    ),
    "report": ("reports.cli:report", "Write a report of one or more runs."),
    "doctor": ("harness.cli.diagnosis.command:doctor", "Check this machine and its packages, and say what to do."),
    "data": ("harness.cli.data.command:data", "Inspect, audit, index and export datasets."),
}
"""By command: ``module:name`` of the click command, and its line in ``bench --help``."""


class LazyGroup(click.Group):
    """A group that lists its commands without importing their modules, so that ``bench --help`` is fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=LazyGroup, epilog="Begin with: bench demo. Every command explains itself: bench COMMAND --help.")
@click.version_option(__version__, prog_name="arc-bench")
def cli() -> None:
    """Train LoRA adapters on ARC-style data, serve them from one vLLM, and bench them with honest error bars.

    With --debug, anywhere on the command line, an error is shown with its traceback.
    """


def main() -> None:
    """Run the command line and exit with its status; the entry point of the console script ``bench``."""
    raise SystemExit(run_cli(cli))
