"""Turns for more adapters than the engine has slots.

vLLM serves waiting requests of a loaded adapter first, so that with ``--max-loras`` busy adapters a further one waits
for as long as they stay busy (over 20 s was measured). Here each adapter holds a slot for a quantum; once others wait
and the quantum of who has held one longest is over, its new requests queue, those in flight finish, and the slot goes
to who has waited longest. Only as many adapters stop as others wait. A wait takes the quantum and the longest answer
in flight for each turn before it, however long that answer is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class _Turn:
    started: float
    requests: int = 0


class SlotGate:
    """Admits requests of at most ``slots`` adapters at a time.

    Args:
        slots: the engine's --max-loras; of several data-parallel engines, what each of them has.
        quantum: seconds for which an adapter may keep admitting requests while others wait.
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
    async def turn(self, adapter: str) -> AsyncIterator[float]:
        """Wait for a slot and hold it while the block runs; gives the seconds waited."""
        start = self._clock()
        if not self._admit(adapter):
            future = asyncio.get_running_loop().create_future()
            self._queues.setdefault(adapter, []).append(future)
            try:
                await future
            except asyncio.CancelledError:
                self._abandon(adapter, future)
                raise
        try:
            yield self._clock() - start
        finally:
            self._turns[adapter].requests -= 1
            self._hand_on()

    @property
    def waiting(self) -> int:
        """How many requests wait for a slot."""
        return sum(map(len, self._queues.values()))

    # Between calls: where anybody waits, some waiting adapter has no slot, and no slot is free or idle.

    def _admit(self, adapter: str) -> bool:
        turn = self._turns.get(adapter)
        if turn is None:
            if not self._free_slot():
                return False
            turn = self._turns[adapter] = _Turn(self._clock())
        elif adapter in self._queues or (self._clock() - turn.started >= self._quantum and self._must_yield(adapter)):
            return False
        turn.requests += 1
        return True

    def _must_yield(self, adapter: str) -> bool:
        """Whether it is among those that have held a slot longest, as many as others wait for one."""
        newcomers = sum(name not in self._turns for name in self._queues)
        return adapter in sorted(self._turns, key=lambda name: self._turns[name].started)[:newcomers]

    def _free_slot(self) -> bool:
        """Make room: an adapter without requests gives its slot away."""
        if len(self._turns) < self.slots:
            return True
        idle = next((name for name, turn in self._turns.items() if turn.requests == 0), None)
        if idle is not None:
            del self._turns[idle]
        return idle is not None

    def _hand_on(self) -> None:
        while newcomer := next(
            (a for a in self._queues if a not in self._turns), None
        ):  # in the order of their waiting
            if not self._free_slot():
                return
            self._grant(newcomer, _Turn(self._clock()))
        for adapter in list(self._queues):  # nobody needs a slot any more: those whose turn was over go on
            self._grant(adapter, _Turn(self._clock(), self._turns[adapter].requests))

    def _grant(self, adapter: str, turn: _Turn) -> None:
        self._turns[adapter] = turn
        for future in self._queues.pop(adapter):
            if not future.done():
                turn.requests += 1
                future.set_result(None)

    def _abandon(self, adapter: str, future: asyncio.Future[None]) -> None:
        if future.done() and not future.cancelled():
            self._turns[adapter].requests -= 1  # granted in the same moment
        elif future in self._queues.get(adapter, ()):  # else its queue was let in between the cancelling and this
            self._queues[adapter].remove(future)
            if not self._queues[adapter]:
                del self._queues[adapter]
        self._hand_on()
