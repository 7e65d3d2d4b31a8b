"""The manifest of a run, as it begins and as a session leaves it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from harness.endpoint import Endpoint
from harness.engine import Engine
from harness.environment import describe_environment
from harness.errors import ConfigError
from harness.records import Manifest, RunConfig, ServedModel


def served_models(endpoints: Sequence[Endpoint]) -> dict[str, ServedModel]:
    """The run's models as the servers name them.

    Raises:
        ConfigError: servers give a model other weights, so that they must not share a run.
    """
    found: dict[str, ServedModel] = {}
    for endpoint in endpoints:
        for name, model in endpoint.served.items():
            first = found.setdefault(name, model)
            if first.hash != model.hash:
                raise ConfigError(f"the servers hold different versions of {name}: {first.hash} and {model.hash}")
    return found


def begun(config: RunConfig, endpoints: Sequence[Endpoint], warnings: Sequence[str]) -> Manifest:
    """The manifest before anything is asked."""
    served = served_models(endpoints)
    return Manifest(
        format=1,
        config=config,
        environment=describe_environment(),
        servers=[endpoint.client.url for endpoint in endpoints],
        served=[served[model.name] for model in config.models if model.name in served],
        warnings=list(warnings),
        without=_without(endpoints),
        answered_as={},
        started=now(),
        resumed=[],
        finished=None,
    )


def closed(manifest: Manifest, engine: Engine, endpoints: Sequence[Endpoint]) -> Manifest:
    """The manifest after a session; ``finished`` only when every prediction is there."""
    answered = {
        name: sorted({*manifest.answered_as.get(name, []), *names}) for name, names in engine.answered_as.items()
    }
    changes = {
        "warnings": list(dict.fromkeys([*manifest.warnings, *engine.warnings])),
        "without": sorted({*manifest.without, *_without(endpoints)}),
        "answered_as": answered,
        "finished": now() if engine.board.complete else None,
    }
    return manifest.model_copy(update=changes)


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _without(endpoints: Sequence[Endpoint]) -> list[str]:
    return sorted({name for endpoint in endpoints for name in endpoint.client.without})
