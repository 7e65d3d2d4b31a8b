"""The servers of a run together: connecting, watching those that stopped answering, and giving up if none returns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from time import monotonic

from harness.client.pool.retry import RetryPolicy
from harness.client.pool.server_health import ServerHealth
from harness.core.deadline import Deadline, duration_text
from harness.core.errors import DeadlineError, RunError, ServerError

_CHECK_SECONDS = 0.2


async def connect_servers(servers: Sequence[ServerHealth]) -> None:
    """Ask each server for its models. Some may be down, and join when they recover.

    Raises:
        ServerError: none answers.
    """
    results = await asyncio.gather(*(server.connect() for server in servers), return_exceptions=True)
    errors = [result for result in results if isinstance(result, BaseException)]
    for error in errors:
        if not isinstance(error, ServerError):
            raise error
    if len(errors) == len(servers):
        raise ServerError("; ".join(map(str, errors)))
    for server, result in zip(servers, results, strict=True):
        if isinstance(result, BaseException):
            server.reason = str(result)


@asynccontextmanager
async def before_deadline(deadline: Deadline | None, what: str) -> AsyncIterator[None]:
    """End the block at the deadline; None sets no limit.

    Args:
        what: what the block does, for the message, such as ``the servers were ready``.

    Raises:
        DeadlineError: the deadline passed first.
    """
    if deadline is None:
        yield
        return
    try:
        async with asyncio.timeout(max(0.0, deadline.seconds_left)) as scope:
            yield
    except TimeoutError:
        if not scope.expired():
            raise
        raise DeadlineError(
            f"--deadline {duration_text(deadline.seconds)} passed before {what}: nothing was asked; set a later one"
        ) from None


class ServerPool:
    """Watches the servers of a run; each one that is down is probed until it recovers.

    Args:
        spawn: starts a task that lives as long as the run.
        notice: prints a line when a server goes down and when it recovers.
    """

    def __init__(
        self,
        servers: Sequence[ServerHealth],
        policy: RetryPolicy,
        spawn: Callable[[Coroutine[object, object, None]], object],
        notice: Callable[[str], None],
    ) -> None:
        self._servers = tuple(servers)
        self._policy = policy
        self._spawn = spawn
        self._notice = notice
        for server in servers:
            server.on_down = self._start_recovery
            if not server.up.is_set():
                self._start_recovery(server, None)
        spawn(self._check_deadline())

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the run gives up waiting for a server; None while one answers."""
        if any(server.up.is_set() for server in self._servers):
            return None
        return max(server.down_since for server in self._servers) + self._policy.wait - monotonic()

    def _start_recovery(self, server: ServerHealth, model: str | None) -> None:
        """Report that a server is down and start probing it."""
        self._notice(f"{server.client.url} does not answer: {server.explain_downtime()}")
        self._spawn(self._wait_for(server, model))

    async def _wait_for(self, server: ServerHealth, model: str | None) -> None:
        """Wait until a server has recovered, and report it."""
        await server.wait_until_recovered(model)
        self._notice(f"{server.client.url} answers again")

    async def _check_deadline(self) -> None:
        """Raise once no server has answered for ``policy.wait`` seconds; otherwise runs until cancelled.

        Raises:
            RunError: no server answers; the message gives each one's reason.
        """
        while True:
            left = self.seconds_left
            if left is not None and left <= 0:
                reasons = "; ".join(server.explain_downtime() for server in self._servers)
                raise RunError(f"no server answered for {self._policy.wait:g} s ({reasons})")
            await asyncio.sleep(_CHECK_SECONDS)
