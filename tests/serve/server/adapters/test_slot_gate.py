"""Sharing the engine's slots between more adapters than slots."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serve.server.adapters.slot_gate import SlotGate


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_cold_adapter_gets_its_turn_after_the_quantum() -> None:
    async def scenario() -> None:
        clock = Clock()
        gate = SlotGate(1, quantum=1.0, clock=clock)
        order: list[str] = []

        async def request(name: str, done: asyncio.Event) -> None:
            async with gate.hold_slot(name):
                order.append(name)
                await done.wait()

        first, rest = asyncio.Event(), asyncio.Event()
        rest.set()
        tasks = [asyncio.create_task(request("hot", first))]
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(request("cold", rest)))
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(request("hot", rest)))  # within its quantum: at once
        await asyncio.sleep(0)
        clock.now = 2.0
        tasks.append(asyncio.create_task(request("hot", rest)))  # its turn is over: behind the cold one
        await asyncio.sleep(0)
        assert order == ["hot", "hot"]
        first.set()
        await asyncio.gather(*tasks)
        assert order == ["hot", "hot", "cold", "hot"]

    asyncio.run(scenario())


@pytest.mark.parametrize("start", ["a free slot", "a slot that another gave up", "the end of the others' waiting"])
def test_a_turn_lasts_the_quantum_from_its_own_start(start: str) -> None:
    """The clock starts late, so that a turn dated 0 would be over at once."""

    async def scenario() -> None:
        clock = Clock()
        clock.now = 100.0
        gate = SlotGate(1, quantum=1.0, clock=clock)
        async with AsyncExitStack() as stack:
            if start != "a free slot":
                first = "hot" if start == "the end of the others' waiting" else "other"
                async with gate.hold_slot(first):
                    clock.now = 200.0
                    other = asyncio.create_task(gate.hold_slot("cold").__aenter__())
                    await asyncio.sleep(0)
                    waiting = asyncio.create_task(stack.enter_async_context(gate.hold_slot("hot")))
                    await asyncio.sleep(0)
                    other.cancel()
                    await asyncio.sleep(0)
                await waiting
            else:
                await stack.enter_async_context(gate.hold_slot("hot"))
            clock.now += 0.5
            cold = asyncio.create_task(gate.hold_slot("cold").__aenter__())
            await asyncio.sleep(0)
            async with asyncio.timeout(5), gate.hold_slot("hot") as waited:  # within the quantum: at once
                assert waited == 0
            clock.now += 0.5
            late = asyncio.create_task(gate.hold_slot("hot").__aenter__())
            await asyncio.sleep(0)
            assert not late.done()
            cold.cancel()
            late.cancel()
            await asyncio.gather(cold, late, return_exceptions=True)

    asyncio.run(scenario())


def test_one_waiting_adapter_stops_one_of_two_busy_ones() -> None:
    async def scenario() -> None:
        clock = Clock()
        gate = SlotGate(2, quantum=1.0, clock=clock)
        order: list[str] = []
        done = {name: asyncio.Event() for name in ("old", "young", "cold", "late")}

        async def request(name: str) -> None:
            async with gate.hold_slot(name):
                order.append(name)
                await done[name].wait()

        tasks = []

        async def ask(name: str, seconds: float) -> None:
            clock.now = seconds
            tasks.append(asyncio.create_task(request(name)))
            await asyncio.sleep(0)

        for name, seconds in (("old", 0.0), ("young", 0.5), ("cold", 1.0)):
            await ask(name, seconds)
        await ask("old", 2.0)  # both turns are over, one slot is wanted: the older turn ends
        await ask("young", 2.0)
        assert order == ["old", "young", "young"]
        await ask("late", 2.0)  # a second slot is wanted
        await ask("young", 2.0)
        assert order == ["old", "young", "young"]
        for event in done.values():
            event.set()
        await asyncio.gather(*tasks)
        assert order[3] == "cold"
        assert sorted(order) == ["cold", "late", "old", "old", "young", "young", "young"]

    asyncio.run(scenario())


def test_no_adapter_waits_with_enough_slots() -> None:
    async def scenario() -> None:
        gate = SlotGate(3)
        async with (
            gate.hold_slot("a") as a,
            gate.hold_slot("b") as b,
            gate.hold_slot("c") as c,
            gate.hold_slot("a") as again,
        ):
            assert max(a, b, c, again) < 0.1

    asyncio.run(scenario())


@settings(deadline=None)
@given(
    st.integers(1, 3),
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 5), st.booleans()), max_size=40),
)
@example(1, [(0, 0, 4, False), (1, 0, 0, True), (0, 0, 0, False), (1, 4, 0, False)])  # left while its queue moved on
def test_turns_never_exceed_the_slots_and_every_request_is_admitted(
    slots: int, requests: list[tuple[int, int, int, bool]]
) -> None:
    async def scenario() -> None:
        gate = SlotGate(slots, quantum=0.0)
        inside: dict[str, int] = {}
        finished = 0

        async def request(adapter: str, before: int, during: int) -> None:
            nonlocal finished
            for _ in range(before):
                await asyncio.sleep(0)
            async with gate.hold_slot(adapter):
                inside[adapter] = inside.get(adapter, 0) + 1
                assert sum(count > 0 for count in inside.values()) <= slots
                try:
                    for _ in range(during):
                        await asyncio.sleep(0)
                finally:
                    inside[adapter] -= 1
                finished += 1

        tasks = [asyncio.create_task(request(str(a), before, during)) for a, before, during, _ in requests]
        for _ in range(4):
            await asyncio.sleep(0)
        left = [task for task, (*_, leaves) in zip(tasks, requests, strict=True) if leaves and not task.done()]
        for task in left:
            task.cancel()
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert finished >= len(requests) - len(left)
        assert all(r is None or isinstance(r, asyncio.CancelledError) for r in results)
        async with gate.hold_slot("another") as waited:  # no slot is held and nobody is queued for one
            assert waited < 1

    asyncio.run(scenario())
