"""The servers of a run together: watching over those that went away, and stopping when none comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from time import monotonic

from harness.client.retry import Policy
from harness.client.server_health import Presence
from harness.core.errors import RunError


class Servers:
    """The endpoints of a run; watches over those that are away.

    Args:
        spawn: starts a task that ends with the run.
        notice: told when a server goes and comes back.
    """

    def __init__(
        self,
        endpoints: Sequence[Presence],
        policy: Policy,
        spawn: Callable[[Coroutine[object, object, None]], object],
        notice: Callable[[str], None],
    ) -> None:
        self.endpoints = tuple(endpoints)
        self._policy = policy
        self._spawn = spawn
        self._notice = notice
        for endpoint in endpoints:
            endpoint.on_down = self._lost
            if not endpoint.up.is_set():
                self._lost(endpoint, None)
        spawn(self._watch())

    def _lost(self, endpoint: Presence, model: str | None) -> None:
        self._notice(f"{endpoint.client.url} does not answer: {endpoint.explain()}")
        self._spawn(self._bring_back(endpoint, model))

    async def _bring_back(self, endpoint: Presence, model: str | None) -> None:
        await endpoint.recover(model)
        self._notice(f"{endpoint.client.url} answers again")

    @property
    def seconds_left(self) -> float | None:
        """Until waiting for a server ends; None while one answers."""
        if any(endpoint.up.is_set() for endpoint in self.endpoints):
            return None
        return max(e.down_since for e in self.endpoints) + self._policy.wait - monotonic()

    async def _watch(self) -> None:
        while True:
            left = self.seconds_left
            if left is not None and left <= 0:
                reasons = "; ".join(endpoint.explain() for endpoint in self.endpoints)
                raise RunError(f"no server answered for {self._policy.wait:g} s ({reasons})")
            await asyncio.sleep(0.2)
