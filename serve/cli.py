"""The commands ``bench serve`` and ``bench adapters``."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from harness.core.cli_options import json_option, print_result

_FOLDER = click.Path(path_type=Path)
_ADAPTERS = click.option(
    "--adapters", type=_FOLDER, help="The adapter registry (a folder, made at the first addition)."
)


@click.command("serve")
@click.argument("model", required=False)
@_ADAPTERS
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Where to listen; a free port is chosen where it is left out."
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Other than this machine only with ARC_BENCH_API_KEY set."
)
@click.option(
    "--dtype",
    help="vLLM's --dtype; exact is float32 (the same answers at any concurrency), and auto for adapters on a GPU.",
)
@click.option("--max-model-len", type=click.IntRange(1), help="Longest prompt and answer together, in tokens.")
@click.option("--max-loras", type=click.IntRange(1), help="Adapters computed in one batch; more take turns.")
@click.option("--max-cpu-loras", type=click.IntRange(1), help="Adapter versions that may be loaded at all.")
@click.option("--max-lora-rank", type=click.IntRange(1), help="Largest rank to be loaded.")
@click.option("--kv-cache-gib", type=click.FloatRange(0, min_open=True), help="Memory for the KV cache, in GiB.")
@click.option(
    "--gpu-memory", type=click.FloatRange(0, 1, min_open=True), default=0.9, help="Share of GPU memory to use."
)
@click.option("--data-parallel-size", type=click.IntRange(1), default=1, help="Engines behind the one address.")
@click.option("--shutdown-seconds", type=click.IntRange(0), default=30, help="How long requests in flight may finish.")
@click.option(
    "--log", type=_FOLDER, help="vLLM's output  [default: serve.log, or .servers/serve-PORT.log in the registry]"
)
@click.option("--detach", is_flag=True, help="Return when the server is ready and leave it running.")
@click.option("--stop", "stop_it", is_flag=True, help="Stop the servers of --adapters (of --port only, if given).")
@click.argument("extra", nargs=-1, type=click.UNPROCESSED)
def serve(
    model: str | None,
    adapters: Path | None,
    port: int | None,
    log: Path | None,
    detach: bool,
    stop_it: bool,
    extra: tuple[str, ...],
    **options: Any,
) -> None:
    """Serve MODEL (a folder or a Hugging Face id) and the live adapters of a registry with vLLM.

    Whatever follows -- goes to vLLM and wins over the options chosen here. Keys come from ARC_BENCH_API_KEY and
    ARC_BENCH_ADMIN_KEY, or from files named by the same with _FILE.

    Example: bench serve models/base --adapters adapters --port 8000 -- --max-num-seqs 64
    """
    from serve.launch import operations
    from serve.launch.process import free_port

    if stop_it:
        if adapters is None:
            raise click.UsageError("--stop needs --adapters, which knows the servers that run on it")
        for url in operations.stop_servers(adapters, port):
            click.echo(f"stopped {url}")
        return
    if model is None:
        raise click.UsageError("Missing argument 'MODEL'.")
    if detach and adapters is None:
        raise click.UsageError("--detach needs --adapters, where --stop finds the server again")
    port = free_port(options["host"], port)
    log = log or (adapters / ".servers" / f"serve-{port}.log" if adapters else Path("serve.log"))
    run = operations.serve_detached if detach else operations.serve_until_stopped
    signal.signal(signal.SIGTERM, _interrupt)
    run(model, adapters, port, log, _say, extra=extra, **options)


@click.group("adapters")
def adapters() -> None:
    """Register LoRA adapters, and load, swap and unload them on running servers.

    \b
    bench adapters add cross runs/demo/trained/cross --adapters adapters
    bench adapters load cross --server http://127.0.0.1:8000
    """


@adapters.command("add")
@click.argument("name")
@click.argument("folder", type=_FOLDER)
@_ADAPTERS
@click.option(
    "--base", help="The model it must fit  [default: the one that adapter_config.json names, if it is on this machine]"
)
@click.option(
    "--accept-base", is_flag=True, help="Register it for --base though it names another model: you know that it fits."
)
@click.option("--prompt", help="The prompt that it was trained with, where its manifest does not say.")
@click.option("--grid-encoder", "encoder", help="The encoder that it was trained with, likewise.")
def add_command(
    name: str,
    folder: Path,
    adapters: Path | None,
    base: str | None,
    accept_base: bool,
    prompt: str | None,
    encoder: str | None,
) -> None:
    """Validate the adapter in FOLDER and register it under NAME; prints NAME@VERSION.

    Example: bench adapters add flips runs/flips/adapter --adapters adapters
    """
    from serve.launch import operations

    if accept_base and base is None:
        raise click.UsageError("--accept-base needs --base, the model that it is for")
    root = _registry(adapters)
    version = operations.add_adapter(
        root, name, folder, base, _say, accept_base=accept_base, prompt=prompt, encoder=encoder
    )
    click.echo(version.id)


@adapters.command("remove")
@click.argument("adapter")
@_ADAPTERS
def remove_command(adapter: str, adapters: Path | None) -> None:
    """Delete NAME@VERSION, or all of NAME; refused while it is live or a running server knows it.

    Example: bench adapters remove flips@1a2b3c4d5e6f --adapters adapters
    """
    from serve.registry.store import Registry

    for removed in Registry(_registry(adapters)).remove(adapter):
        click.echo(f"removed {removed}")


@adapters.command("gc")
@_ADAPTERS
@click.option(
    "--keep", type=click.IntRange(0), default=1, show_default=True, help="Newest spare versions to keep of a name."
)
def gc_command(adapters: Path | None, keep: int) -> None:
    """Delete old versions that are neither live nor known to a running server.

    Example: bench adapters gc --adapters adapters --keep 2
    """
    from serve.registry.store import Registry

    removed = Registry(_registry(adapters)).gc(keep)
    for version in removed:
        click.echo(f"removed {version}")
    if not removed:
        click.echo("nothing to remove")


def _server_options(command: Callable[..., None]) -> Callable[..., None]:
    command = click.option("--server", "servers", multiple=True, help="Address of a running server; may be repeated.")(
        command
    )
    command = json_option("the answers")(command)
    return _ADAPTERS(command)


@adapters.command("list")
@_server_options
def list_command(servers: tuple[str, ...], adapters: Path | None, json_file: Path | None) -> None:
    """What servers have loaded (--server), or what a registry holds (--adapters).

    Example: bench adapters list --server http://127.0.0.1:8000
    """
    from serve.client import admin
    from serve.launch import operations

    if servers:
        found = {url: admin.list_adapters(url) for url in servers}
    else:
        found = {str(adapters): operations.list_registry(_registry(adapters))}
    lines = []
    for where, listing in found.items():
        lines.append(f"{where}" + (f"  base {listing['base']}" if "base" in listing else ""))
        for adapter in listing["adapters"]:
            for version in adapter["versions"]:
                more = "".join(f"  {key} {version[key]}" for key in ("rank", "requests", "served") if key in version)
                lines.append(f"  {version['id']}  {version['state']}{more}")
    print_result("\n".join(lines), json.dumps(found), json_file)


@adapters.command("load")
@click.argument("adapter")
@_server_options
def load_command(adapter: str, servers: tuple[str, ...], adapters: Path | None, json_file: Path | None) -> None:
    """Load the newest version of NAME and make it live, or load NAME@VERSION (live only where NAME had no live one).

    Example: bench adapters load flips --server http://127.0.0.1:8000
    """
    _change("load", adapter, servers, adapters, json_file)


@adapters.command("unload")
@click.argument("adapter")
@_server_options
def unload_command(adapter: str, servers: tuple[str, ...], adapters: Path | None, json_file: Path | None) -> None:
    """Unload NAME@VERSION, or all of NAME, when its requests in flight are done.

    Example: bench adapters unload flips --server http://127.0.0.1:8000
    """
    _change("unload", adapter, servers, adapters, json_file)


@adapters.command("promote")
@click.argument("adapter")
@_server_options
def promote_command(adapter: str, servers: tuple[str, ...], adapters: Path | None, json_file: Path | None) -> None:
    """Make NAME@VERSION the live one: on several servers it is loaded on all before any of them switches.

    Example: bench adapters promote flips@1a2b3c4d5e6f --server http://127.0.0.1:8000
    """
    _change("promote", adapter, servers, adapters, json_file)


@adapters.command("rollback")
@click.argument("name")
@_server_options
def rollback_command(name: str, servers: tuple[str, ...], adapters: Path | None, json_file: Path | None) -> None:
    """Make the version of NAME live again that was live before.

    Example: bench adapters rollback flips --server http://127.0.0.1:8000
    """
    _change("rollback", name, servers, adapters, json_file)


def _change(action: str, adapter: str, servers: tuple[str, ...], adapters: Path | None, json_file: Path | None) -> None:
    from serve.launch import operations

    if not servers and adapters is None:
        raise click.UsageError("give --server URL (or --adapters DIR, for the servers that run on that registry)")
    records: list[str] = []
    for url, answer in operations.change_adapters(action, adapter, servers, adapters):
        text = f"{url}  {action} {', '.join(answer['adapters'])}  {answer['seconds']:.2f} s"
        records.append(json.dumps({"server": url, **answer}))
        click.echo(records[-1] if str(json_file) == "-" else text)
        for warning in answer.get("warnings", ()):
            _say(f"warning: {warning}")
    if str(json_file) != "-":
        print_result("", "\n".join(records), json_file)


def _registry(adapters: Path | None) -> Path:
    if adapters is None:
        raise click.UsageError("Missing option '--adapters'.")
    return adapters


def _say(line: str) -> None:
    click.echo(line, err=True)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
