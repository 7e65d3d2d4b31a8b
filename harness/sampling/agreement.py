"""How a run asks: what the user wishes and the servers say, tried out before anything is recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.client.request import Request
from harness.client.server import Endpoint
from harness.client.server_health import NoSystemRole
from harness.core.errors import RunError, ServerError
from harness.core.grid import Task
from harness.data.dataset import Dataset
from harness.runs.schema import RunConfig
from harness.sampling.api_selection import Settled, settle
from harness.sampling.manifest_writer import served_models
from harness.sampling.options import ApiChoice, RunOptions, complete


@dataclass(frozen=True)
class Wish:
    """What decides how a run asks, beside what the servers say."""

    options: RunOptions
    dataset: Dataset
    tasks: list[Task]
    repeat: RunConfig | None
    begun: RunConfig | None
    """The configuration of the run that is resumed."""

    @property
    def api(self) -> ApiChoice:
        """A run that is repeated or resumed keeps its own, unless the user says otherwise."""
        if self.repeat is not None:
            return self.repeat.api
        return self.begun.api if self.options.api == "auto" and self.begun is not None else self.options.api

    def complete(self, endpoints: Sequence[Endpoint], no_system: bool) -> tuple[RunConfig, list[str]]:
        """The configuration, and warnings about it."""
        served = served_models(endpoints)
        return complete(
            self.options, self.dataset, self.tasks, served, self.repeat, begun=self.begun, no_system=no_system
        )


async def agree(wish: Wish, endpoints: Sequence[Endpoint]) -> Settled:
    """How the run asks, tried out with one of its own requests for each model; without system messages where need be.

    Raises:
        ServerError: no server takes the run's requests.
    """
    try:
        return await _settle(wish, endpoints, no_system=False)
    except NoSystemRole as error:
        config, again = (wish.complete(endpoints, no_system)[0] for no_system in (False, True))
        if wish.repeat is not None:
            raise RunError(f"the run cannot be repeated: {error}") from None
        if again == config:
            names = ", ".join(sorted({model.prompt for model in config.models}))
            raise ServerError(
                f"{error}; there is no prompt that asks the same as {names} without one: choose another with --prompt"
            ) from None
        settled = await _settle(wish, endpoints, no_system=True)
        settled.warnings.insert(0, f"{error}: asking with {_prompts(again)} instead of {_prompts(config)}")
        return settled


def _prompts(config: RunConfig) -> str:
    return " and ".join(dict.fromkeys(model.prompt for model in config.models))


async def _settle(wish: Wish, endpoints: Sequence[Endpoint], *, no_system: bool) -> Settled:
    config, warnings = wish.complete(endpoints, no_system)
    for endpoint in endpoints:
        endpoint.hashes = {model.name: model.hash for model in config.models if model.hash is not None}
    kept = wish.repeat is not None or wish.begun is not None
    settled = await settle(wish.api, wish.tasks, config, endpoints, kept=kept)
    plan = settled.plan
    firsts = [plan.draw(place * plan.per_model) for place in range(len(config.models))]
    await _try_out(endpoints, [settled.asking.request([draw]) for draw in firsts])
    unstopped = [warning for endpoint in endpoints if (warning := _unstopped(endpoint, settled)) is not None]
    return replace(settled, warnings=[*warnings, *settled.warnings, *unstopped])


async def _try_out(endpoints: Sequence[Endpoint], trials: Sequence[Request]) -> None:
    """Ask the servers that are there one request of the run for each model; the others are asked when they come.

    Raises:
        NoSystemRole: one takes no system message. ServerError: none answers.
    """
    for endpoint in endpoints:
        endpoint.trials = tuple(trials)
    present = [endpoint for endpoint in endpoints if endpoint.up.is_set()]
    results = await asyncio.gather(*(endpoint.try_out() for endpoint in present), return_exceptions=True)
    errors = [result for result in results if result is not None]
    for error in errors:
        if isinstance(error, NoSystemRole) or not isinstance(error, ServerError):
            raise error
    if len(errors) == len(present):
        raise ServerError("; ".join(map(str, errors)))
    for endpoint, result in zip(present, results, strict=True):
        if result is not None:
            endpoint.fall(str(result), None)


def _unstopped(endpoint: Endpoint, settled: Settled) -> str | None:
    """A warning where a server refuses the token that ends answers, which it may not know by itself."""
    names = [m.name for m in settled.config.models if set(m.stop_token_ids or ()) - (settled.eos or set())]
    if "stop_token_ids" not in endpoint.client.without or not names:
        return None
    return (
        f"{endpoint.client.url} does not take stop_token_ids: answers of {', '.join(names)} that do not end by "
        "themselves are truncated"
    )
