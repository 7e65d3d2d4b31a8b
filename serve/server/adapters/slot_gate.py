"""Share the engine's adapter slots fairly when more adapters are requested than it has slots.

vLLM serves waiting requests of a loaded adapter first: with ``--max-loras`` busy adapters, a further one waits as long
as they are busy (over 20 s was measured). Here an adapter holds a slot for a quantum of time. Once the quantum is over
and k adapters wait, the k adapters that have held a slot longest admit no new requests; those in flight finish, and
the slots go to the adapters that have waited longest. For each turn before its own, an adapter waits the quantum plus
the longest answer in flight.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class _Turn:
    """An adapter's time with a slot: when it started (seconds of the gate's clock), and its requests in flight."""

    started: float
    requests: int = 0


class SlotGate:
    """Admits requests of at most ``slots`` adapters at a time.

    Args:
        slots: the engine's --max-loras; with several data-parallel engines, that of each.
        quantum: seconds for which an adapter may admit requests while others wait.
        clock: the current time in seconds.
    """

    def __init__(self, slots: int, quantum: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        if slots < 1:
            raise ValueError(f"slots must be positive, not {slots}")
        self.slots = slots
        self._quantum = quantum
        self._clock = clock
        self._turns: dict[str, _Turn] = {}
        self._queues: dict[str, list[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def hold_slot(self, adapter: str) -> AsyncIterator[float]:
        """Wait for a slot for ``adapter`` and hold it while the block runs; yields the seconds waited."""
        start = self._clock()
        if not self._admit(adapter):
            future = asyncio.get_running_loop().create_future()
            self._queues.setdefault(adapter, []).append(future)
            try:
                await future
            except asyncio.CancelledError:
                self._leave_queue(adapter, future)
                raise
        try:
            yield self._clock() - start
        finally:
            self._turns[adapter].requests -= 1
            self._pass_slots_on()

    # Invariant between calls: if requests wait, one of their adapters has no slot, and no slot is free or idle.

    def _admit(self, adapter: str) -> bool:
        """Admit and count a request if its adapter may admit one now; return whether it was admitted."""
        turn = self._turns.get(adapter)
        if turn is None:
            if not self._has_free_slot():
                return False
            turn = self._turns[adapter] = _Turn(self._clock())
        elif adapter in self._queues or (self._clock() - turn.started >= self._quantum and self._must_yield(adapter)):
            return False
        turn.requests += 1
        return True

    def _must_yield(self, adapter: str) -> bool:
        """Return whether an adapter is among the k that have held a slot longest, if k adapters wait for one."""
        newcomers = sum(name not in self._turns for name in self._queues)
        return adapter in sorted(self._turns, key=lambda name: self._turns[name].started)[:newcomers]

    def _has_free_slot(self) -> bool:
        """Return whether a slot is free, taking one from an adapter without requests if necessary."""
        if len(self._turns) < self.slots:
            return True
        idle = next((name for name, turn in self._turns.items() if turn.requests == 0), None)
        if idle is not None:
            del self._turns[idle]
        return idle is not None

    def _pass_slots_on(self) -> None:
        """Give free slots to the adapters that have waited longest.

        If none waits for a slot any more, the adapters whose turn was over start a new one.
        """
        while newcomer := next((a for a in self._queues if a not in self._turns), None):
            if not self._has_free_slot():
                return
            self._grant(newcomer, _Turn(self._clock()))
        for adapter in list(self._queues):
            self._grant(adapter, _Turn(self._clock(), self._turns[adapter].requests))

    def _grant(self, adapter: str, turn: _Turn) -> None:
        """Give an adapter a slot and admit its waiting requests."""
        self._turns[adapter] = turn
        for future in self._queues.pop(adapter):
            if not future.done():
                turn.requests += 1
                future.set_result(None)

    def _leave_queue(self, adapter: str, future: asyncio.Future[None]) -> None:
        """Remove a cancelled request from its adapter's queue."""
        if future.done() and not future.cancelled():
            self._turns[adapter].requests -= 1  # it was granted a slot at the same moment
        elif future in self._queues.get(adapter, ()):  # otherwise its queue was admitted meanwhile
            self._queues[adapter].remove(future)
            if not self._queues[adapter]:
                del self._queues[adapter]
        self._pass_slots_on()
