"""The manifest of a run, as it begins and as a session leaves it."""

from __future__ import annotations

from collections.abc import Sequence

from harness.client.server import Server
from harness.core.errors import ConfigError
from harness.core.grid import Task
from harness.data.dataset import content_digest
from harness.runs.environment import describe_environment, now
from harness.runs.folder import RunFolder
from harness.runs.schema import Manifest, RunConfig, ServedModel
from harness.sampling.engine import Engine


def served_models(servers: Sequence[Server]) -> dict[str, ServedModel]:
    """The run's models as the servers name them.

    Raises:
        ConfigError: servers give a model other weights, so that they must not share a run.
    """
    found: dict[str, ServedModel] = {}
    for server in servers:
        for name, model in server.served.items():
            first = found.setdefault(name, model)
            if first.hash != model.hash:
                raise ConfigError(f"the servers hold different versions of {name}: {first.hash} and {model.hash}")
    return found


def begun(config: RunConfig, tasks: Sequence[Task], servers: Sequence[Server], warnings: Sequence[str]) -> Manifest:
    """The manifest before anything is asked."""
    served = served_models(servers)
    models = [served[model.name] for model in config.models if model.name in served]
    bases = {model.parent: served[model.parent] for model in models if model.parent in served}
    return Manifest(
        format=1,
        config=config,
        environment=describe_environment(),
        servers=[server.client.url for server in servers],
        served=[*models, *(base for base in bases.values() if base not in models)],
        server_versions=_versions(servers),
        warnings=list(warnings),
        without=_without(servers),
        answered_as={},
        started=now(),
        resumed=[],
        finished=None,
        task_digests=[content_digest(task) for task in tasks],
    )


class ManifestWriter:
    """Keeps what a session learns in its manifest on disk, so that a kill does not lose it."""

    def __init__(self, folder: RunFolder, manifest: Manifest, engine: Engine, servers: Sequence[Server]) -> None:
        self._folder, self._manifest = folder, manifest
        self._engine, self._endpoints = engine, servers

    def save(self) -> None:
        """Write the manifest if something new turned up."""
        self._write(_learned(self._manifest, self._engine, self._endpoints))

    def close(self) -> None:
        """The same at the end of a session; ``finished`` only when every prediction is there."""
        end: dict[str, str | None] = {"finished": None}
        if self._engine.board.complete:
            end = {"finished": now(), "predictions_sha256": self._folder.predictions_sha256()}
        self._write(_learned(self._manifest, self._engine, self._endpoints).model_copy(update=end))

    def _write(self, manifest: Manifest) -> None:
        if manifest != self._manifest:
            self._folder.write_manifest(manifest)
            self._manifest = manifest


def _learned(manifest: Manifest, engine: Engine, servers: Sequence[Server]) -> Manifest:
    answered = {
        name: sorted({*manifest.answered_as.get(name, []), *names})
        for name, names in engine.answered_as.items()
        if names
    }
    limits = [warning for server in servers for warning in server.limiter.warnings]
    changes = {
        "warnings": list(dict.fromkeys([*manifest.warnings, *engine.warnings, *limits])),
        "without": sorted({*manifest.without, *_without(servers)}),
        "answered_as": manifest.answered_as | answered,
        "server_versions": manifest.server_versions | _versions(servers),
    }
    return manifest.model_copy(update=changes)


def _versions(servers: Sequence[Server]) -> dict[str, str]:
    return {server.client.url: server.version for server in servers if server.version is not None}


def _without(servers: Sequence[Server]) -> list[str]:
    return sorted({name for server in servers for name in server.client.omitted})
