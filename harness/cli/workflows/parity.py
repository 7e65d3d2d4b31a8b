"""``bench parity``, and ``bench train`` with the same check at its end: does the server have what was trained?"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.core.cli_options import json_option, print_result
from harness.core.errors import AdapterError
from trainers.commands.cli import train as plain_train

if TYPE_CHECKING:
    from trainers.commands.parity import Parity


@click.command()
@click.argument("adapter", type=click.Path(path_type=Path))
@click.option("--server", required=True, help="Address of a running server.")
@click.option("--model", required=True, help="What the server calls the adapter.")
@click.option("--samples", default=8, show_default=True, type=click.IntRange(1), help="Training samples to compare.")
@click.option("--base", help="The base model, where it has moved since training.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="In which the server computes  [default: as our server says, else float32]",
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
    """Compare the log-probabilities of a trained adapter through PEFT with those that a server gives.

    Exit status 1 where they differ by more than the arithmetic of the server's dtype explains, or where base and
    adapter hardly differ, so that nothing could be told. The figures are also written to parity.json in ADAPTER.

    \b
    bench parity runs/demo/trained/cross --server http://127.0.0.1:8000 --model cross
    """
    found = _check(adapter, server, model, samples=samples, base=base, dtype=dtype)
    print_result(found.as_text(), json.dumps(asdict(found)), json_file)
    _fail_unless_it_holds(found, server)


def _train_and_check(server: str | None, adapters: Path | None, **options: Any) -> None:
    if server is not None and adapters is None:
        raise click.UsageError("--server needs --adapters, the registry on which that server runs")
    assert plain_train.callback is not None
    output: Path | None = plain_train.callback(**options)
    if output is None or int(os.environ.get("RANK", "0")) != 0:
        return
    click.echo(_parity_of_new(output, server, adapters), err=True)


def _parity_of_new(output: Path, server: str | None, adapters: Path | None) -> str:
    """Register, load and check what was trained; a line that says what came out, or why there is nothing to check."""
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
    found = _check(output, server, version)
    _fail_unless_it_holds(found, server)
    return f"{version} loaded at {server}; {found.as_text()}"


def _check(adapter: Path, server: str, model: str, **options: Any) -> Parity:
    from serve.keys import USER_KEY, key_from_environment
    from trainers.commands.parity import check_parity
    from trainers.store.manifest import PARITY, write_json

    found = check_parity(adapter, server, model, key=key_from_environment(USER_KEY), **options)
    write_json(adapter / PARITY, {"server": server, "model": model, **asdict(found), "holds": found.holds})
    return found


def _fail_unless_it_holds(found: Parity, server: str) -> None:
    """Raises AdapterError where the check failed."""
    if not found.holds:
        hint = "another adapter or base may be loaded there"
        if found.odds is None:
            hint = f"{hint}, or the server computes in 16 bits (then give bench parity its --dtype)"
        raise AdapterError(f"{found.as_text()}; {hint}")


train = click.Command(
    "train",
    context_settings=plain_train.context_settings,
    callback=_train_and_check,
    help=plain_train.help,
    params=[
        *plain_train.params,
        click.Option(["--server"], help="A running server: afterwards load the adapter there and check parity."),
        click.Option(["--adapters"], type=click.Path(path_type=Path), help="The registry on which that server runs."),
    ],
)
