"""What every command shares: how errors, interruption and progress look."""

from __future__ import annotations

import codecs
import io
import json
import sys
from collections.abc import Callable

import click

from harness.core.errors import ArcBenchError

INTERRUPTED = 130
EXTRAS = dict.fromkeys(("torch", "transformers", "tokenizers", "trl", "peft", "datasets", "accelerate"), "train")
"""Which optional extra brings a package that a command may miss; vLLM has a message of its own."""


def run_cli(command: click.Command, argv: list[str] | None = None) -> int:
    """Run a click command and return its exit status; errors go to stderr, without a traceback unless ``--debug``.

    0 done, 1 failed, 2 wrong use, 130 interrupted.
    """
    _take_every_character()
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    if debug:
        arguments.remove("--debug")
    return _guarded(lambda: command.main(arguments, prog_name="bench", standalone_mode=False), debug)


def _take_every_character() -> None:
    """Let outputs in Latin-1 and the like take every character: what they lack is written as JSON escapes it."""
    codecs.register_error("json_escape", _as_json_escape)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="json_escape")


def _as_json_escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def _unexpected_end(error: EOFError) -> str:
    """Say what an EOFError means: most often a compiled module that was cut short when a disk was full."""
    if "marshal" in str(error):
        return (
            f"a compiled Python file is damaged ({error}), as after a full disk; delete them, Python makes them again: "
            f"find {sys.prefix} -name '*.pyc' -delete"
        )
    return f"a file or stream ended too early: {error or 'no more data'} (--debug shows where)"


def _guarded(action: Callable[[], object], debug: bool) -> int:
    try:
        status = action()
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt) as stop:
        if isinstance(stop.__cause__, EOFError):  # click makes Abort of it too; it is no interrupt
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
