"""What the commands ``bench serve`` and ``bench adapters`` do, apart from reading their options."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.core.errors import ServerError
from harness.prompts.grid_encoder import parse_encoder
from harness.prompts.prompt_template import load_prompt
from serve.client.many_servers import Answers, change_all_servers
from serve.launch.process import Server, death_notice, not_restored, start_server, stop_server, wait_until_ready
from serve.launch.serve_config import ServeConfig
from serve.registry.adapter_files import read_config
from serve.registry.adapter_version import AdapterVersion
from serve.registry.base_model import BaseModel
from serve.registry.leases import file_lock, running_servers
from serve.registry.store import Registry

Say = Callable[[str], None]


def serve_until_stopped(
    model: str, adapters: Path | None, port: int | None, log: Path, say: Say, **options: Any
) -> None:
    """Serve in the foreground until the server ends or this process is interrupted (same errors as ``serving``)."""
    config = ServeConfig(model=model, adapters=adapters, **options)
    process, server = start_server(config, port, log, owned=True, show=say, notice=say)
    try:
        wait_until_ready(process, server, progress=say)
        _warn_not_restored(server, say)
        say(f"ready at {server.url}  (log: {log}; Ctrl-C stops it)")
        status = process.wait()
        raise ServerError(death_notice(status, log, "while it served"))
    finally:
        stop_server(process.pid, config.shutdown_seconds, process)


def serve_detached(model: str, adapters: Path | None, port: int | None, log: Path, say: Say, **options: Any) -> None:
    """Start a server, wait until it is ready, and leave it running (same errors as ``serving``)."""
    config = ServeConfig(model=model, adapters=adapters, **options)
    process, server = start_server(config, port, log, owned=False, show=say, notice=say)
    try:
        wait_until_ready(process, server, progress=say)
    except BaseException:
        stop_server(process.pid, 0, process)
        raise
    _warn_not_restored(server, say)
    say(
        f"ready at {server.url}  (process {server.pid}, log: {log}; "
        f"stop it with: bench serve --stop --adapters {adapters})"
    )


def _warn_not_restored(server: Server, say: Say) -> None:
    """Show a warning for each live adapter that the server could not load at its start."""
    for reason in not_restored(server.log):
        say(f"warning: live in the registry, but not loaded: {reason}")


def stop_servers(adapters: Path, port: int | None, patience: float = 600.0) -> list[str]:
    """Stop the servers that run on a registry, or the one on ``port``, and return their addresses.

    Args:
        patience: seconds that requests in flight may take.

    Raises:
        ServerError: no such server runs.
    """
    leases = [s for s in _leases(adapters) if port is None or s.url.endswith(f":{port}")]
    if not leases:
        place = f"{adapters} on port {port}" if port else str(adapters)
        raise ServerError(f"{place}: no server runs on this registry")
    for lease in leases:
        try:
            group = os.getpgid(lease.pid)
        except ProcessLookupError:
            continue  # it has ended meanwhile
        if group != lease.pid:
            raise ServerError(
                f"{lease.url}: process {lease.pid} leads no group of its own; it was not started by bench serve"
            )
        stop_server(lease.pid, patience)
    return [lease.url for lease in leases]


def add_adapter(
    root: Path,
    name: str,
    folder: Path,
    base: str | None,
    say: Say | None = None,
    *,
    accept_base: bool = False,
    prompt: str | None = None,
    encoder: str | None = None,
) -> AdapterVersion:
    """Validate an adapter against its base and register it.

    Args:
        root: the registry folder.
        base: a model folder or a hub id; None for the model that the adapter names, if it is on this machine.
        say: called with each warning, for example if the base is not on this machine, so that layers and shapes are
            checked only when a server loads the adapter.
        accept_base: register the adapter for ``base`` even if it names another base.
        prompt: the prompt that it was trained with, if its manifest does not say; takes precedence over the manifest.
        encoder: the grid encoder, likewise.

    Raises:
        AdapterError: the adapter cannot be served.
        SpecError: an unknown prompt or encoder.
        ServerError: ``base`` is no model.
    """
    if prompt is not None:
        load_prompt(prompt)
    if encoder is not None:
        parse_encoder(encoder)
    model = BaseModel.open(base) if base is not None else _named_base(folder)
    if say and (model is None or model.folder is None):
        say("the base is not on this machine: layers and shapes will be checked when a server loads it")
    settings = {key: value for key, value in (("prompt", prompt), ("encoder", encoder)) if value is not None}
    warn = say or (lambda line: None)
    return Registry(root).add(
        name,
        folder,
        model,
        accept=accept_base,
        prompt_settings=settings,
        warn=lambda line: warn(f"warning: {name}: {line}"),
    )


def _named_base(folder: Path) -> BaseModel | None:
    """Return the base that an adapter's configuration names; None if it is no model on this machine."""
    name = read_config(folder).get("base_model_name_or_path")
    try:
        return BaseModel.open(name) if isinstance(name, str) else None
    except ServerError:  # a folder of the machine that trained it
        return None


def list_registry(root: Path) -> dict[str, Any]:
    """Return the names and versions in a registry, in the form of ``admin.list_adapters``."""
    registry = Registry(root)
    adapters = []
    for name in registry.names():
        live = registry.live(name).version
        rows = [{"id": v.id, "state": "live" if v.version == live else "registered"} for v in registry.versions(name)]
        adapters.append({"name": name, "live": live and f"{name}@{live}", "versions": rows})
    return {"adapters": adapters}


def change_adapters(action: str, adapter: str, servers: Sequence[str], adapters: Path | None) -> Answers:
    """Apply ``change_all_servers`` to the given servers, or to those that run on the registry if none is given.

    Raises:
        AdapterError: a server refused.
        ServerError: a server cannot be reached, or none runs.
    """
    urls = list(dict.fromkeys(url.rstrip("/") for url in servers))
    urls = urls or [lease.url for lease in (_leases(adapters) if adapters else [])]
    if not urls:
        raise ServerError(f"{adapters}: no server runs on this registry")
    return change_all_servers(action, adapter, urls)


def _leases(adapters: Path) -> list[Any]:
    """Return the leases of the servers that run on a registry.

    Raises:
        ServerError: there is no such registry.
    """
    if not adapters.is_dir():
        raise ServerError(f"{adapters}: no such registry")
    with file_lock(adapters / ".lock"):
        return running_servers(adapters)
