"""Retries and the queue of jobs: pauses, server losses, isolation of jobs that may crash servers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from harness.client.pool.job_queue import JobQueue, ServerSlots
from harness.client.pool.retry import Divide, GivenUp, Job, Lost, RetryPolicy
from harness.client.protocol.request import TokenRequest


def make_job(*numbers: int, server_losses: int = 0) -> Job:
    prompts = tuple([number] for number in numbers)
    return Job(numbers, TokenRequest("model", prompts, 9, None), server_losses=server_losses)


def loss(job: Job) -> type[Exception]:
    """Return what is raised when a server stops answering while it has a job."""
    with pytest.raises((Lost, Divide, GivenUp)) as caught:
        job.record_server_loss(lambda: "it crashed")
    return caught.type


def test_pauses_double_up_to_half_a_minute_with_a_jitter_between_a_quarter_and_one() -> None:
    policy, jobs = RetryPolicy(backoff=0.5), [make_job(number) for number in range(200)]
    for attempt, longest in ((1, 0.5), (2, 1.0), (3, 2.0), (6, 16.0), (7, 30.0), (10**6, 30.0)):
        pauses = [policy.pause(job, attempt) for job in jobs]
        assert longest / 4 <= min(pauses) < longest * 0.3
        assert longest * 0.95 < max(pauses) <= longest


def test_a_job_is_isolated_after_two_losses_and_given_up_after_four() -> None:
    job = make_job(0)
    history = [(loss(job), job.is_isolated) for _ in range(4)]
    assert history == [(Lost, False), (Lost, True), (Lost, True), (GivenUp, True)]
    with pytest.raises(GivenUp, match="servers went away 5 times while they had this request: it crashed"):
        job.record_server_loss(lambda: "it crashed")


def test_a_job_of_several_prompts_is_split_after_three_losses_and_each_part_keeps_its_losses() -> None:
    job = make_job(0, 1, 2)
    assert [loss(job) for _ in range(3)] == [Lost, Lost, Divide]
    part = job.select_prompt(1)
    assert (part.numbers, part.request.prompt_count, part.is_isolated) == ((1,), 1, True)
    assert part.request.prompts == ([1],)  # type: ignore[union-attr]
    assert loss(part) is GivenUp


def test_isolated_jobs_are_handed_out_last_and_alone() -> None:
    async def run() -> list[tuple[int, int]]:
        taken = []
        queue = JobQueue(iter([make_job(number) for number in range(4)]))
        first = [await queue.take_job() for _ in range(2)]
        for job in first:
            job.server_losses = 2
            queue.finish_job(job, [job])

        async def work() -> None:
            while True:
                job = await queue.take_job()
                taken.append((job.numbers[0], queue.in_flight))
                await asyncio.sleep(0.01)
                queue.finish_job(job)

        workers = [asyncio.create_task(work()) for _ in range(3)]
        await asyncio.wait_for(queue.finished.wait(), 60)
        for worker in workers:
            worker.cancel()
        return taken

    taken = asyncio.run(run())
    assert [number for number, _ in taken] == [2, 3, 0, 1]
    assert [in_flight for _, in_flight in taken[2:]] == [1, 1]


def test_returned_jobs_come_before_new_ones() -> None:
    async def run() -> list[int]:
        queue = JobQueue(iter([make_job(number) for number in range(3)]))
        job = await queue.take_job()
        queue.finish_job(job, [job])
        return [(await queue.take_job()).numbers[0] for _ in range(3)]

    assert asyncio.run(run()) == [0, 1, 2]


def test_a_queue_that_awaits_answers_goes_on_after_one() -> None:
    def jobs() -> Iterator[Job | None]:
        yield make_job(0)
        yield None
        yield make_job(1)

    async def run() -> int:
        queue = JobQueue(jobs())
        job = await queue.take_job()
        waiting = asyncio.create_task(queue.take_job())
        await asyncio.sleep(0)
        assert not waiting.done()
        assert not queue.finished.is_set()
        queue.finish_job(job)
        return (await asyncio.wait_for(waiting, 60)).numbers[0]

    assert asyncio.run(run()) == 1


def test_a_stopped_queue_is_finished_when_nothing_is_in_flight() -> None:
    async def run() -> None:
        queue = JobQueue(iter([make_job(0), make_job(1)]))
        job = await queue.take_job()
        queue.stop()
        assert not queue.finished.is_set()
        queue.finish_job(job)
        assert queue.finished.is_set()

    asyncio.run(run())


def test_follow_ups_come_before_all_others_and_are_handed_out_even_after_a_stop() -> None:
    async def run() -> list[int]:
        queue = JobQueue(iter([make_job(number) for number in range(4)]))
        first, second = [await queue.take_job() for _ in range(2)]
        queue.finish_job(first, [first], [make_job(10), make_job(11)])
        taken = [await queue.take_job()]
        queue.stop()
        queue.finish_job(second)
        queue.finish_job(taken[0], [], [make_job(12)])
        assert not queue.finished.is_set()
        for _ in range(2):
            taken.append(await queue.take_job())
            assert not queue.finished.is_set()
            queue.finish_job(taken[-1])
        assert queue.finished.is_set()
        return [job.numbers[0] for job in taken]

    assert asyncio.run(run()) == [10, 11, 12]


def test_slots_are_free_while_enough_places_are_left() -> None:
    async def is_free(slots: ServerSlots) -> bool:
        waiting = asyncio.create_task(slots.wait_until_free())
        await asyncio.sleep(0)
        return waiting.done() or not waiting.cancel()

    async def run() -> list[bool]:
        slots = ServerSlots(4, 2)
        states = [await is_free(slots)]
        for change in (slots.acquire, slots.acquire, slots.release):
            change(2 if change == slots.acquire and len(states) == 1 else 1)
            states.append(await is_free(slots))
        return states

    assert asyncio.run(run()) == [True, True, False, True]
