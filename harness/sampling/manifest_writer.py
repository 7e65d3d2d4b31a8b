"""The manifest of a run: as it is before the first request, and with what the session learns."""

from __future__ import annotations

from collections.abc import Sequence

from harness.client.pool.server import Server
from harness.core.deadline import Deadline
from harness.core.grid import Task
from harness.data.dataset import content_digest
from harness.runs.environment import describe_environment, now
from harness.runs.folder import RunFolder
from harness.runs.schemas.deadline_record import RunDeadline
from harness.runs.schemas.manifest_schema import Manifest, RunConfig
from harness.sampling.options.config_draft import served_models
from harness.sampling.options.task_part import TaskPart
from harness.sampling.recording import Recorder


def initial_manifest(
    config: RunConfig,
    tasks: Sequence[Task],
    servers: Sequence[Server],
    warnings: Sequence[str],
    part: TaskPart | None = None,
    deadline: Deadline | None = None,
) -> Manifest:
    """Return the manifest of a run before its first request.

    With test-time training the served model is listed without hash and place, which are those of one task's adapter.

    Args:
        part: the tasks that this session answers; None for all.
        deadline: of this session.
    """
    served = served_models(servers)
    if config.ttt is not None:
        served |= {m.name: served[m.name].model_copy(update={"hash": None, "root": None}) for m in config.models}
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
        without=_omitted_parameters(servers),
        answered_as={},
        started=now() if part is None else part.started,
        resumed=[],
        finished=None,
        task_digests=[content_digest(task) for task in tasks],
        protocol=None if part is None else part.protocol,
        deadline=None if deadline is None else RunDeadline(seconds=deadline.seconds),
    )


class ManifestWriter:
    """Writes warnings, model names and versions to the manifest during a session, which may be killed."""

    def __init__(self, folder: RunFolder, manifest: Manifest, recorder: Recorder, servers: Sequence[Server]) -> None:
        self._folder, self._manifest = folder, manifest
        self._recorder, self._servers = recorder, servers

    def save(self) -> None:
        """Write the manifest if its content has changed."""
        self._write(self._updated())

    def close(self, *, is_cut: bool = False) -> None:
        """Write the manifest at the end of a session; with the time and a checksum if every prediction is there.

        Args:
            is_cut: whether the deadline ended the session before; then with what is missing.
        """
        end: dict[str, object] = {"finished": None}
        if self._recorder.board.complete:
            end = {"finished": now(), "predictions_sha256": self._folder.predictions_sha256()}
        elif is_cut and (deadline := self._manifest.deadline) is not None:
            tallies = self._recorder.board.tallies.values()
            missing = {tally.model: tally.total - tally.done for tally in tallies}
            requested = {tally.model: tally.total for tally in tallies}
            changes = {"passed": now(), "missing": missing, "requested": requested}
            end["deadline"] = deadline.model_copy(update=changes)
        self._write(self._updated().model_copy(update=end))

    def _write(self, manifest: Manifest) -> None:
        """Replace the manifest on disk unless it is equal."""
        if manifest != self._manifest:
            self._folder.write_manifest(manifest)
            self._manifest = manifest

    def _updated(self) -> Manifest:
        """Return the manifest with the warnings, names, versions and omitted parameters of this session."""
        before = self._manifest
        answered = {
            name: sorted({*before.answered_as.get(name, []), *names})
            for name, names in self._recorder.answered_as.items()
            if names
        }
        limits = [warning for server in self._servers for warning in server.limiter.warnings]
        changes = {
            "warnings": list(dict.fromkeys([*before.warnings, *self._recorder.warnings, *limits])),
            "without": sorted({*before.without, *_omitted_parameters(self._servers)}),
            "answered_as": before.answered_as | answered,
            "server_versions": before.server_versions | _versions(self._servers),
        }
        return before.model_copy(update=changes)


def _versions(servers: Sequence[Server]) -> dict[str, str]:
    """Return the version of each server's software by URL, for those that report one."""
    return {server.client.url: server.version for server in servers if server.version is not None}


def _omitted_parameters(servers: Sequence[Server]) -> list[str]:
    """Return the parameters that some server refused."""
    return sorted({name for server in servers for name in server.client.omitted})
