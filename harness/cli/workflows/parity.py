"""``bench parity`` checks that a server has the adapter that was trained; ``bench train`` can do so at its end."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli_options import json_option, print_result
from harness.core.errors import AdapterError
from trainers.commands.cli import train as plain_train

if TYPE_CHECKING:
    from trainers.commands.parity import Parity


@click.command()
@click.argument("adapter", type=click.Path(path_type=Path))
@click.option("--server", required=True, help="URL of a running server.")
@click.option("--model", required=True, help="The adapter's name on the server.")
@click.option("--samples", default=8, show_default=True, type=click.IntRange(1), help="Training samples to compare.")
@click.option("--base", help="The base model, if it has moved since training.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="The dtype in which the server computes.  [default: as our server says, else float32]",
)
@json_option("the figures")
def parity(
    adapter: Path,
    server: str,
    model: str,
    samples: int,
    base: str | None,
    dtype: str | None,
    json_file: Path | None,
) -> None:
    """Compare the log-probabilities of a trained adapter in PEFT with those of a server.

    The exit status is 1 if they differ by more than rounding in the server's dtype explains, or if base and adapter
    hardly differ, so that the check could not fail. The figures are also written to parity.json in ADAPTER.

    \b
    bench parity runs/demo/trained/cross --server http://127.0.0.1:8000 --model cross
    """
    result = _check_and_save(adapter, server, model, samples=samples, base=base, dtype=dtype)
    print_result(result.as_text(), json.dumps(asdict(result)), json_file)
    _raise_if_failed(result)


def _train_and_check(server: str | None, adapters: Path | None, **options: Any) -> None:
    """Run ``bench train``; then, with ``--server``, load the adapter there and check parity."""
    if server is not None and adapters is None:
        raise click.UsageError("--server needs --adapters, the registry on which that server runs")
    assert plain_train.callback is not None
    output: Path | None = plain_train.callback(**options)
    if output is None or int(os.environ.get("RANK", "0")) != 0:
        return
    click.echo(_load_and_check(output, server, adapters), err=True)


def _load_and_check(output: Path, server: str | None, adapters: Path | None) -> str:
    """Register a trained adapter, load it on the server and check parity; return the result in a line.

    Without a server, or if the server cannot load the adapter, the line says why parity was not checked.

    Raises:
        AdapterError: the check failed.
    """
    from serve.client import admin
    from serve.launch.operations import add_adapter
    from serve.launch.process import is_responding
    from trainers.store.manifest import read_manifest

    if server is None or adapters is None:
        return "no server given, parity not checked"
    manifest = read_manifest(output)
    if manifest is None or manifest.kind != "adapter" or not manifest.serveable:
        return "not an adapter that a server loads, parity not checked"
    if not is_responding(f"{server.rstrip('/').removesuffix('/v1')}/health"):
        return f"no server at {server}, parity not checked"
    version = add_adapter(adapters, output.name, output, None).id
    admin.load(server, version)
    result = _check_and_save(output, server, version)
    _raise_if_failed(result)
    return f"{version} loaded at {server}; {result.as_text()}"


def _check_and_save(adapter: Path, server: str, model: str, **options: Any) -> Parity:
    """Check parity, write the result to the adapter's folder, and return it."""
    from serve.keys import USER_KEY, key_from_environment
    from trainers.commands.parity import check_parity
    from trainers.store.manifest import PARITY, write_json

    result = check_parity(adapter, server, model, key=key_from_environment(USER_KEY), **options)
    write_json(adapter / PARITY, {"server": server, "model": model, **asdict(result), "holds": result.holds})
    return result


def _raise_if_failed(result: Parity) -> None:
    """Raise an AdapterError if the check failed."""
    if not result.holds:
        hint = "another adapter or base may be loaded there"
        if result.odds is None:
            hint = f"{hint}, or the server computes in 16 bits (then give bench parity its --dtype)"
        raise AdapterError(f"{result.as_text()}; {hint}")


train = click.Command(
    "train",
    context_settings=plain_train.context_settings,
    callback=_train_and_check,
    help=plain_train.help,
    params=[
        *plain_train.params,
        click.Option(
            ["--server"], help="URL of a running server: load the adapter there after training and check parity."
        ),
        click.Option(["--adapters"], type=click.Path(path_type=Path), help="The registry of that server."),
    ],
)
