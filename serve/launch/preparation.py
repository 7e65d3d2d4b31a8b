"""What is checked and chosen before vLLM starts: model, keys, port, and what the registry needs."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from harness.core.errors import AdapterError, ServerError
from serve.keys import Keys
from serve.launch.command import Command, command_line
from serve.launch.extra_options import option_value
from serve.launch.machine import Machine, detect_machine
from serve.launch.serve_config import RegistryNeeds, ServeConfig
from serve.registry.adapter_files import read_config
from serve.registry.base_model import BaseModel
from serve.registry.store import Registry


def prepare(config: ServeConfig, port: int | None, machine: Machine | None = None) -> tuple[int, Command]:
    """Check what can be checked before vLLM starts, and return port and command (same errors as ``serving``)."""
    base = BaseModel.open(config.model, option_value(config.extra, "--revision"))
    base.refuse_pickles()
    Keys.from_environment(os.environ).check_bind(config.host)
    machine = machine or detect_machine()
    port = free_port(config.host, port)
    needs = registry_needs(config.adapters) if config.adapters is not None else RegistryNeeds()
    return port, command_line(config, base, machine, needs, port, os.environ)


def registry_needs(root: Path) -> RegistryNeeds:
    """Return how many names and versions a registry holds, and the largest rank in readable configurations."""
    registry = Registry(root)
    root.mkdir(parents=True, exist_ok=True)
    names = registry.names()
    versions = [v for name in names for v in registry.versions(name)]
    return RegistryNeeds(len(names), len(versions), max((_rank(v.folder) for v in versions), default=0))


def _rank(folder: Path) -> int:
    """Return an adapter's largest rank by its configuration; 0 if that cannot be read."""
    try:
        config = read_config(folder)
    except AdapterError:
        return 0
    pattern = config.get("rank_pattern")
    ranks = [config.get("r"), *(pattern.values() if isinstance(pattern, dict) else ())]
    return max((r for r in ranks if isinstance(r, int)), default=0)


def free_port(host: str, port: int | None) -> int:
    """Return ``port`` if it is free, or any free port for None.

    Raises:
        ServerError: the port is taken, or the host is not an address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port or 0))
        except OSError as error:
            what = f"port {port}" if port else "a free port"
            hint = (
                "choose another with --port, or leave --port out to have a free one chosen" if port else "check --host"
            )
            raise ServerError(f"cannot listen on {what} of {host}: {error.strerror}; {hint}") from error
        return int(probe.getsockname()[1])
