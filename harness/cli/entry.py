"""Run a command: exit statuses, error messages and interruption, the same for all commands."""

from __future__ import annotations

import codecs
import io
import json
import sys
from collections.abc import Callable, Iterable

import click

from harness.core.errors import ArcBenchError

INTERRUPTED = 130
EXTRAS = dict.fromkeys(("torch", "transformers", "tokenizers", "trl", "peft", "datasets", "accelerate"), "train")
"""By package, the optional extra that installs it; vLLM has its own message."""


def run_cli(command: click.Command, argv: list[str] | None = None) -> int:
    """Run a click command and return its exit status: 0 done, 1 failed, 2 wrong use, 130 interrupted.

    Errors are printed to stderr as one line; ``--debug`` shows the traceback instead.

    Args:
        argv: the words after ``bench``; None takes the process's own.
    """
    _escape_unencodable_characters()
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    if debug:
        arguments.remove("--debug")
    return _run_guarded(lambda: command.main(arguments, prog_name="bench", standalone_mode=False), debug)


def _escape_unencodable_characters() -> None:
    """Let stdout and stderr write characters that their encoding lacks, e.g. in Latin-1, as JSON escapes."""
    codecs.register_error("json_escape", _as_json_escape)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="json_escape")


def _as_json_escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def _unexpected_end(error: EOFError) -> str:
    """Return an explanation of an EOFError: most often a compiled Python file was truncated when a disk was full."""
    if "marshal" in str(error):
        return (
            f"a compiled Python file is damaged ({error}), as after a full disk; delete them, Python makes them again: "
            f"find {sys.prefix} -name '*.pyc' -delete"
        )
    return f"a file or stream ended too early: {error or 'no more data'} (--debug shows where)"


def _run_guarded(action: Callable[[], object], debug: bool) -> int:
    """Run an action and return its exit status; turn expected errors into a message, or raise them if ``debug``."""
    try:
        status = action()
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt) as stop:
        if isinstance(stop.__cause__, EOFError):  # click turns EOFError into Abort too
            if debug:
                raise
            click.echo(f"error: {_unexpected_end(stop.__cause__)}", err=True)
            return 1
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if debug or extra is None:
            raise
        click.echo(f'error: {error.name} is not installed here: pip install -e ".[{extra}]"', err=True)
        return 1
    except (ArcBenchError, OSError) as error:
        if debug:
            raise
        click.echo(f"error: {error}", err=True)
        return error.exit_code if isinstance(error, ArcBenchError) else 1
    return status if isinstance(status, int) else 0


def print_warnings(warnings: Iterable[str]) -> None:
    """Print warnings to stderr, one per line."""
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
