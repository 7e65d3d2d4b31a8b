"""The benchmark of candidates and its evidence: what is recorded, which tasks are taken, how calibration is counted."""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from aiohttp import web

from benchmarks import candidates
from benchmarks.enumerating.recorder import recording
from benchmarks.enumerating.scoring_sides import ANSWER_TOKENS, CANDIDATES, VIEWS, fresh_items
from benchmarks.evidence.experiment import small_tasks
from benchmarks.evidence.search_figures import Answers, calibration_rows


@contextmanager
def _echo_server() -> Iterator[str]:
    """Serve answers that repeat the request's path and body."""
    loop, ports, ready, stop = asyncio.new_event_loop(), list[int](), threading.Event(), asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        body = await request.text()
        status = 418 if request.path == "/teapot" else 200
        return web.json_response({"path": request.path_qs, "body": body}, status=status, headers={"X-Name": "value"})

    async def serve() -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ports.append(runner.addresses[0][1])
        ready.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(30)
    yield f"http://127.0.0.1:{ports[0]}"
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


def test_the_recorder_forwards_everything_and_keeps_bodies_of_completions() -> None:
    with _echo_server() as url, recording(url) as (proxy, recorder):
        bodies = [json.dumps({"prompt": [[1, 2], [k]]}).encode() for k in range(3)]
        for body in bodies:
            with urllib.request.urlopen(f"{proxy}/v1/completions?a=b", data=body) as response:
                assert json.load(response) == {"path": "/v1/completions?a=b", "body": body.decode()}
                assert response.headers["X-Name"] == "value"
        with urllib.request.urlopen(f"{proxy}/v1/models") as response:
            assert json.load(response)["path"] == "/v1/models"
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(f"{proxy}/teapot")
        error.value.close()
        assert error.value.code == 418
    assert recorder.bodies == bodies


def test_measured_prompts_are_never_repeated() -> None:
    items = fresh_items("a", 1000)
    assert (len(items), {len(item.answers) for item in items}) == (VIEWS, {CANDIDATES})
    assert {len(answer) for item in items for answer in item.answers} == {ANSWER_TOKENS}
    assert all(900 < len(item.prompt) <= 1000 for item in items)
    begins = {tuple(item.prompt[:32]) for seed in "abc" for item in fresh_items(seed, 1000)}
    assert len(begins) == 3 * VIEWS
    assert fresh_items("a", 1000) == items


def test_the_real_tasks_are_the_smallest_in_order() -> None:
    tasks = small_tasks(20)
    sizes = [sum(len(g.cells) for p in (*t.train, *t.test) for g in (p.input, p.output) if g) for t in tasks]
    assert sizes == sorted(sizes)
    assert (len(tasks), sizes[0]) == (20, 96)


@pytest.mark.parametrize(("shift", "verdicts"), [(0.0, {"yes"}), (-0.3, {"too high"})])
def test_calibration_sees_what_is_calibrated(shift: float, verdicts: set[str]) -> None:
    """Grids that are exact as often as predicted are within every interval, grids that are so more rarely in none."""
    rng = np.random.default_rng(5)
    probabilities = rng.choice([0.4, 0.6, 0.8], 6000)
    exact = (rng.random(6000) < probabilities + shift).astype(float)
    rows = calibration_rows(Answers(probabilities, exact, np.arange(6000) % 300))
    assert [row[0] for row in rows] == ["0.35–0.5", "0.5–0.7", "0.7–0.9"]
    assert {row[-1] for row in rows} == verdicts


def test_the_interval_of_calibration_resamples_tasks() -> None:
    """With all grids of a task alike, a hundred copies of each tell no more than one."""
    exact = np.array([0.0, 1.0] * 20)
    one = Answers(np.full(40, 0.6), exact, np.arange(40))
    many = Answers(np.full(4000, 0.6), np.repeat(exact, 100), np.repeat(np.arange(40), 100))
    assert calibration_rows(one)[0][4] == calibration_rows(many)[0][4]


@pytest.mark.parametrize(("nats", "count"), [(0.1, 0), (5.0, 1)])
def test_scores_that_differ_miss_the_goal(nats: float, count: int) -> None:
    assert len(candidates.missed(nats)) == count
