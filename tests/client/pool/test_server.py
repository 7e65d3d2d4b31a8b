"""Runs against one server: its address, its list of models, its limits, and how it is waited for."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path
from time import monotonic

import pytest

from harness.client.pool import server_health
from harness.core.errors import RunError, ServerError
from tests.support.commands import wait_until
from tests.support.runs.sampling_runs import QUICK_POLICY, count_outcomes, run_options, run_sampling, warnings_with
from tests.support.servers.chat_answers import Body
from tests.support.servers.chat_server import TINY_BASE, ChatServer


@pytest.mark.parametrize("path", ["/v1", "/v1beta/openai", "/api/v1", ""])
@pytest.mark.parametrize("slash", ["", "/"])
def test_a_path_in_an_address_is_used_as_it_is(tmp_path: Path, path: str, slash: str) -> None:
    with ChatServer(prefix=path) as server:
        run_sampling(run_options(server.url + path + slash, tmp_path / "run"))
    assert count_outcomes(tmp_path / "run") == {"grid": 40}


def test_a_server_without_a_list_of_models_is_assumed_to_have_them(tmp_path: Path) -> None:
    shown = io.StringIO()
    with ChatServer(lists=False) as server:
        run_sampling(run_options(server, tmp_path / "run"), shown)
    assert count_outcomes(tmp_path / "run") == {"grid": 40}
    assert shown.getvalue().count("has no list of models") == 1


def test_a_server_without_the_route_is_a_clear_error(tmp_path: Path) -> None:
    with ChatServer(lists=False, prefix="/elsewhere") as server, pytest.raises(ServerError, match="HTTP 404"):
        run_sampling(run_options(server, tmp_path / "run"))


@pytest.mark.parametrize("pause", ["0", "0.001", "-5", "never", None])
def test_a_server_that_is_always_busy_gets_few_requests_until_the_run_gives_up(
    tmp_path: Path, pause: str | None
) -> None:
    asked: list[Body] = []

    def refuse(body: Body) -> tuple[int, Body]:
        asked.append(body)
        return 429, {"error": {"message": "slow down"}}

    headers = None if pause is None else {"Retry-After": pause}
    policy = replace(QUICK_POLICY, backoff=0.05, wait=2.0, retries=0)
    with ChatServer(refuse=refuse, headers=headers) as server, pytest.raises(ServerError, match=r"was busy for 2 s"):
        run_sampling(run_options(server, tmp_path / "run", policy=policy))
    assert len(asked) < 20


def test_a_server_that_is_busy_at_first_is_waited_for(tmp_path: Path) -> None:
    asked: list[Body] = []

    def refuse(body: Body) -> tuple[int, Body] | None:
        asked.append(body)
        return (503, {"error": {"message": "loading"}}) if len(asked) < 6 else None

    with ChatServer(refuse=refuse) as server:
        run_sampling(run_options(server, tmp_path / "run", policy=replace(QUICK_POLICY, retries=0)))
    assert count_outcomes(tmp_path / "run") == {"grid": 40}


@pytest.mark.parametrize(
    "why",
    [
        "max_tokens is too large: {asked}. This model supports at most 512 completion tokens.",
        "max_tokens: {asked} > 512, which is the maximum allowed number of output tokens for m",
        "`max_tokens` must be less than or equal to `512`",
        "Range of max_tokens should be [1, 512]",
        "the number of tokens to generate is over the limit",
        "bad request",
    ],
)
def test_the_answer_limit_is_lowered_to_what_a_server_allows(tmp_path: Path, why: str) -> None:
    def refuse(body: Body) -> tuple[int, Body] | None:
        asked = body["max_tokens"]
        return (400, {"error": {"message": why.format(asked=asked)}}) if asked > 512 else None

    shown = io.StringIO()
    with ChatServer(refuse=refuse) as server:
        run_sampling(run_options(server, tmp_path / "run", models=("base",)), shown)
    assert count_outcomes(tmp_path / "run") == {"grid": 20}
    assert shown.getvalue().count("allows base at most") == 1
    assert len(warnings_with(tmp_path / "run", "allows base at most")) == 1


def test_a_slow_first_answer_is_mentioned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_health, "_REMINDER_PAUSES", (0.1, 10.0))
    shown = io.StringIO()

    def refuse(body: Body) -> None:
        wait_until(lambda: "still waiting" in shown.getvalue())

    with ChatServer(refuse=refuse) as server:
        policy = replace(QUICK_POLICY, timeout=60.0)
        chosen = run_options(server, tmp_path / "run", models=("base",), dataset="toy/copy#n=1", n=1, policy=policy)
        run_sampling(chosen, shown)
    line = rf"still waiting for {server.url}, \d+ s so far: it has not answered its first request"
    assert re.search(line, shown.getvalue())


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("first", [True, False], ids=["the first request", "a later request"])
def test_a_server_gets_no_request_before_the_time_that_it_asks_for(tmp_path: Path, status: int, first: bool) -> None:
    times: list[float] = []

    def refuse(body: Body) -> tuple[int, Body] | None:
        if len(times) == 2 or (body["max_tokens"] == 1) != first:
            return None
        times.append(monotonic())
        return (status, {"error": {"message": "later"}}) if len(times) == 1 else None

    policy = replace(QUICK_POLICY, max_in_flight=1, retries=1)
    with ChatServer(refuse=refuse, headers={"Retry-After": "0.5"}) as server:
        run_sampling(run_options(server, tmp_path / "run", models=("base",), policy=policy))
    assert times[1] - times[0] >= 0.45
    assert count_outcomes(tmp_path / "run") == {"grid": 20}


def test_the_key_of_a_run_is_sent(tmp_path: Path) -> None:
    with ChatServer(key="secret") as server:
        run_sampling(run_options(server, tmp_path / "run", api_key="secret"))
        with pytest.raises(ServerError, match="refuses this user"):
            run_sampling(run_options(server, tmp_path / "other"))
    assert count_outcomes(tmp_path / "run") == {"grid": 40}


def test_a_prompt_that_fills_the_context_is_too_long(tmp_path: Path) -> None:
    """The room for an answer is the context minus the prompt; without any, nothing is sent."""
    models: dict[str, Body] = {"base": {"root": str(TINY_BASE)}}
    with ChatServer(models=models, tokens=True) as server:
        chosen = run_options(server, tmp_path / "free", models=("base",), dataset="toy/copy/evaluation#n=1", n=1)
        run_sampling(chosen)
        length = len(server.requests[0]["prompt"][0])
        models["base"]["max_model_len"] = length + 2
        run_sampling(replace(chosen, out=tmp_path / "two"))
        assert server.requests[-1]["max_tokens"] == 2
        models["base"]["max_model_len"] = length
        with pytest.raises(RunError, match="1 too_long"):
            run_sampling(replace(chosen, out=tmp_path / "none"))
    assert len(server.requests) == 2
