"""The command ``bench``: a lazy group, so that ``bench --help`` imports none of the heavy packages."""

from __future__ import annotations

from collections.abc import Callable

import click

from harness import __version__
from harness.cli.entry import run_cli


def _demo() -> click.Command:
    from harness.cli.workflows.demo import demo

    return demo


def _train() -> click.Command:
    from harness.cli.workflows.parity import train

    return train


def _preview() -> click.Command:
    from trainers.commands.cli import preview

    return preview


def _merge() -> click.Command:
    from trainers.commands.cli import merge

    return merge


def _parity() -> click.Command:
    from harness.cli.workflows.parity import parity

    return parity


def _tiny_base() -> click.Command:
    from trainers.commands.tiny_cli import tiny_base

    return tiny_base


def _serve() -> click.Command:
    from serve.cli import serve

    return serve


def _adapters() -> click.Command:
    from serve.cli import adapters

    return adapters


def _run() -> click.Command:
    from harness.cli.run import run

    return run


def _reproduce() -> click.Command:
    from harness.cli.run import reproduce

    return reproduce


def _score() -> click.Command:
    from harness.cli.score import score

    return score


def _compare() -> click.Command:
    from harness.cli.compare import compare

    return compare


def _gate() -> click.Command:
    from harness.cli.gate import gate

    return gate


def _sweep() -> click.Command:
    from harness.cli.workflows.sweep import sweep

    return sweep


def _submit() -> click.Command:
    from harness.cli.submit import submit

    return submit


def _report() -> click.Command:
    from reports.cli import report

    return report


def _doctor() -> click.Command:
    from harness.cli.diagnosis.command import doctor

    return doctor


def _data() -> click.Command:
    from harness.cli.data import data

    return data


COMMANDS: dict[str, tuple[Callable[[], click.Command], str]] = {
    "demo": (_demo, "The whole loop on the tiny base: train, serve, hot-swap, bench, compare, report."),
    "train": (_train, "Train an adapter from a recipe."),
    "preview": (_preview, "Show what the trainer will see."),
    "parity": (_parity, "Check that a server has the adapter that was trained."),
    "merge": (_merge, "Write base and adapter as one full model."),
    "tiny-base": (_tiny_base, "Make the embedded tiny model, or print where it is."),
    "serve": (_serve, "Serve a model and any number of adapters from one vLLM."),
    "adapters": (_adapters, "Manage the adapter registry and running servers."),
    "run": (_run, "Sample augmented predictions from a server, vote and score."),
    "reproduce": (_reproduce, "Sample a run again from its manifest, and say whether the same came out."),
    "score": (_score, "Re-vote and re-score saved predictions."),
    "compare": (_compare, "Paired comparison of models, with a verdict in words."),
    "gate": (_gate, "Pass or fail a run against a threshold or another run."),
    "submit": (_submit, "Write or check Kaggle's submission.json."),
    "sweep": (_sweep, "Train mixtures, serve and bench them all, and set them in one table."),
    "report": (_report, "Write the report of one or more runs."),
    "doctor": (_doctor, "Check this machine and its packages, and say what to do."),
    "data": (_data, "Look into datasets."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, and whose help knows them without importing."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return COMMANDS[name][0]() if name in COMMANDS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=LazyGroup, epilog="Begin with: bench demo. Every command explains itself: bench COMMAND --help.")
@click.version_option(__version__, prog_name="arc-bench")
def cli() -> None:
    """Train LoRA adapters on ARC-style data, serve them from one vLLM, and bench them with honest error bars.

    --debug anywhere on the line shows the traceback of an error.
    """


def main() -> None:
    """Entry point of the console script ``bench``."""
    raise SystemExit(run_cli(cli))
