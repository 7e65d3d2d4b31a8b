"""The commands ``bench adapters``."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from harness.cli_options import json_option, print_result
from serve.commands.registry_option import FOLDER, adapters_option

_print_to_stderr = partial(click.echo, err=True)


@click.group("adapters")
def adapters() -> None:
    """Register LoRA adapters, and load, swap and unload them on running servers.

    \b
    bench adapters add cross runs/demo/trained/cross --adapters adapters
    bench adapters load cross --server http://127.0.0.1:8000
    """


@adapters.command("add")
@click.argument("name")
@click.argument("folder", type=FOLDER)
@adapters_option
@click.option(
    "--base", help="The model that it must fit  [default: the one in adapter_config.json, if it is on this machine]"
)
@click.option(
    "--accept-base",
    is_flag=True,
    help="Register it for --base even if it names another model; you know that it fits.",
)
@click.option("--prompt", help="The prompt that it was trained with, if the manifest lacks it.")
@click.option("--grid-encoder", "encoder", help="The grid encoder that it was trained with, if the manifest lacks it.")
def add_command(
    name: str,
    folder: Path,
    adapters: Path | None,
    base: str | None,
    accept_base: bool,
    prompt: str | None,
    encoder: str | None,
) -> None:
    """Validate the adapter in FOLDER, register it under NAME, and print NAME@VERSION.

    Example: bench adapters add flips runs/flips/adapter --adapters adapters
    """
    from serve.launch import operations

    if accept_base and base is None:
        raise click.UsageError("--accept-base needs --base, the model that it is for")
    root = _require_registry(adapters)
    version = operations.add_adapter(
        root, name, folder, base, _print_to_stderr, accept_base=accept_base, prompt=prompt, encoder=encoder
    )
    click.echo(version.id)


@adapters.command("remove")
@click.argument("adapter")
@adapters_option
def remove_command(adapter: str, adapters: Path | None) -> None:
    """Delete NAME@VERSION, or all of NAME; refused while a version is live or a running server uses it.

    Example: bench adapters remove flips@1a2b3c4d5e6f --adapters adapters
    """
    from serve.registry.store import Registry

    for removed in Registry(_require_registry(adapters)).remove(adapter):
        click.echo(f"removed {removed}")


@adapters.command("gc")
@adapters_option
@click.option(
    "--keep", type=click.IntRange(0), default=1, show_default=True, help="Newest unused versions to keep of each name."
)
def gc_command(adapters: Path | None, keep: int) -> None:
    """Delete old versions that are neither live nor used by a running server.

    Example: bench adapters gc --adapters adapters --keep 2
    """
    from serve.registry.store import Registry

    removed = Registry(_require_registry(adapters)).gc(keep)
    for version in removed:
        click.echo(f"removed {version}")
    if not removed:
        click.echo("nothing to remove")


def _server_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of commands that talk to running servers."""
    command = click.option("--server", "servers", multiple=True, help="Address of a running server; may be repeated.")(
        command
    )
    command = json_option("the answers")(command)
    return adapters_option(command)


@adapters.command("list")
@_server_options
def list_command(servers: tuple[str, ...], adapters: Path | None, json_file: Path | None) -> None:
    """List what servers have loaded (--server), or what a registry holds (--adapters).

    Example: bench adapters list --server http://127.0.0.1:8000
    """
    from serve.client import admin
    from serve.launch import operations

    if servers:
        listings = {url: admin.list_adapters(url) for url in servers}
    else:
        listings = {str(adapters): operations.list_registry(_require_registry(adapters))}
    lines = []
    for source, listing in listings.items():
        lines.append(f"{source}" + (f"  base {listing['base']}" if "base" in listing else ""))
        for adapter in listing["adapters"]:
            for version in adapter["versions"]:
                more = "".join(f"  {key} {version[key]}" for key in ("rank", "requests", "served") if key in version)
                lines.append(f"  {version['id']}  {version['state']}{more}")
    print_result("\n".join(lines), json.dumps(listings), json_file)


_CHANGES = {
    "load": (
        "Load the newest version of NAME and make it live, or load NAME@VERSION, which becomes live only if NAME has "
        "no live version.",
        "flips",
    ),
    "unload": ("Unload NAME@VERSION, or all of NAME, when its requests in flight are done.", "flips"),
    "promote": (
        "Make NAME@VERSION live. Of several servers, all load it before any of them switches.",
        "flips@1a2b3c4d5e6f",
    ),
    "rollback": ("Make the previously live version of NAME live again.", "flips"),
}
"""Commands that change running servers: help text, and the adapter in its example."""


def _add_change_command(action: str, text: str, example: str) -> None:
    """Add the command ``bench adapters ACTION``.

    Args:
        text: the help text.
        example: an argument of the command, for the example in the help text.
    """

    @adapters.command(
        action, help=f"{text}\n\nExample: bench adapters {action} {example} --server http://127.0.0.1:8000"
    )
    @click.argument("adapter", metavar="NAME" if action == "rollback" else "ADAPTER")
    @_server_options
    def change_command(adapter: str, servers: tuple[str, ...], adapters: Path | None, json_file: Path | None) -> None:
        _change(action, adapter, servers, adapters, json_file)


for _action, (_text, _example) in _CHANGES.items():
    _add_change_command(_action, _text, _example)


def _change(action: str, adapter: str, servers: tuple[str, ...], adapters: Path | None, json_file: Path | None) -> None:
    """Change adapters on servers and print each answer."""
    from serve.launch import operations

    if not servers and adapters is None:
        raise click.UsageError("give --server URL (or --adapters DIR, for the servers that run on that registry)")
    records: list[str] = []
    for url, answer in operations.change_adapters(action, adapter, servers, adapters):
        text = f"{url}  {action} {', '.join(answer['adapters'])}  {answer['seconds']:.2f} s"
        records.append(json.dumps({"server": url, **answer}))
        click.echo(records[-1] if str(json_file) == "-" else text)
        for warning in answer.get("warnings", ()):
            _print_to_stderr(f"warning: {warning}")
    if str(json_file) != "-":
        print_result("", "\n".join(records), json_file)


def _require_registry(adapters: Path | None) -> Path:
    """Return the registry folder, or raise the usage error for a missing --adapters."""
    if adapters is None:
        raise click.UsageError("Missing option '--adapters'.")
    return adapters
