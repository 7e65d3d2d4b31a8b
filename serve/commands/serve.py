"""The command ``bench serve``."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path
from typing import Any

import click

from harness.cli_options import FloatRange
from serve.commands.registry_option import FOLDER, adapters_option


@click.command("serve")
@click.argument("model", required=False)
@adapters_option
@click.option("--port", type=click.IntRange(1, 65535), help="Port to listen on  [default: a free one]")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; one beyond this machine needs ARC_BENCH_API_KEY.",
)
@click.option(
    "--dtype",
    help="vLLM's --dtype, or exact: float32 (the same answers at any concurrency), but auto for adapters on a GPU.",
)
@click.option("--max-model-len", type=click.IntRange(1), help="Longest prompt and answer together, in tokens.")
@click.option("--max-loras", type=click.IntRange(1), help="Adapters in one batch; further ones take turns.")
@click.option("--max-cpu-loras", type=click.IntRange(1), help="Adapter versions that may be loaded.")
@click.option("--max-lora-rank", type=click.IntRange(1), help="Largest rank of an adapter.")
@click.option("--kv-cache-gib", type=FloatRange(0, min_open=True), help="Memory for the KV cache, in GiB.")
@click.option("--gpu-memory", type=FloatRange(0, 1, min_open=True), default=0.9, help="Share of GPU memory to use.")
@click.option("--data-parallel-size", type=click.IntRange(1), default=1, help="Engines behind one address.")
@click.option("--shutdown-seconds", type=click.IntRange(0), default=30, help="Time for requests in flight at a stop.")
@click.option(
    "--log",
    type=FOLDER,
    help="vLLM's output file  [default: serve-PORT.log, here or in .servers of the registry]",
)
@click.option("--detach", is_flag=True, help="Return when the server is ready and leave it running.")
@click.option("--stop", "stop_servers", is_flag=True, help="Stop the servers of --adapters (of --port only, if given).")
@click.argument("extra", nargs=-1, type=click.UNPROCESSED)
def serve(
    model: str | None,
    adapters: Path | None,
    port: int | None,
    log: Path | None,
    detach: bool,
    stop_servers: bool,
    extra: tuple[str, ...],
    **options: Any,
) -> None:
    """Serve MODEL (a folder or a Hugging Face id) and the live adapters of a registry with vLLM.

    Options after -- go to vLLM and take precedence over those chosen here. Keys come from ARC_BENCH_API_KEY and
    ARC_BENCH_ADMIN_KEY, or from the files that the same names with _FILE appended give.

    Example: bench serve models/base --adapters adapters --port 8000 -- --max-num-seqs 64
    """
    from serve.launch import operations
    from serve.launch.preparation import free_port

    if stop_servers:
        if adapters is None:
            raise click.UsageError("--stop needs --adapters, which knows the servers that run on it")
        for url in operations.stop_servers(adapters, port):
            click.echo(f"stopped {url}")
        return
    if model is None:
        raise click.UsageError("Missing argument 'MODEL'.")
    if detach and adapters is None:
        raise click.UsageError("--detach needs --adapters, so that --stop can find the server")
    port = free_port(options["host"], port)
    log = log or (adapters / ".servers" / f"serve-{port}.log" if adapters else Path(f"serve-{port}.log"))
    run = operations.serve_detached if detach else operations.serve_until_stopped
    signal.signal(signal.SIGTERM, _interrupt)
    run(model, adapters, port, log, partial(click.echo, err=True), extra=extra, **options)


def _interrupt(number: int, frame: object) -> None:
    """Treat SIGTERM like Ctrl-C."""
    raise KeyboardInterrupt
