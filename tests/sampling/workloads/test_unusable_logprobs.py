"""``--search dfs`` with servers whose log-probabilities are unusable: the reason is told, and nothing is scored."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.core.errors import ServerError
from harness.scoring.run_scores import score_run
from tests.support.runs.enumerated_runs import dfs_options, enumerating_server, stable_lines, views
from tests.support.runs.sampling_runs import QUICK_POLICY, run_sampling
from tests.support.servers.language_model import Choice


def without_ids(choice: Choice) -> Choice:
    names = dict(choice["logprobs"])  # type: ignore[call-overload]
    names["tokens"] = [name.replace("token_id:", "t") for name in names["tokens"]]
    return {**choice, "logprobs": names}


def changed_tops(change: dict[str, float | None] | None, *, keep: int | None = None):  # type: ignore[no-untyped-def]
    """Return a function that changes the log-probabilities at every position, or keeps only the first."""

    def spoil(choice: Choice) -> Choice:
        data = dict(choice["logprobs"])  # type: ignore[call-overload]
        data["top_logprobs"] = [
            {**dict(list(top.items())[: keep or len(top)]), **(change or {})} for top in data["top_logprobs"]
        ]
        return {**choice, "logprobs": data}

    return spoil


def after_temperature(choice: Choice) -> Choice:
    data = dict(choice["logprobs"])  # type: ignore[call-overload]
    data["top_logprobs"] = [
        {name: 0.0 if index == 0 else -9999.0 for index, name in enumerate(top)} for top in data["top_logprobs"]
    ]
    return {**choice, "logprobs": data}


def second_choices(choice: Choice) -> Choice:
    """Return a choice of the second likeliest token at every position."""
    data = dict(choice["logprobs"])  # type: ignore[call-overload]
    return {**choice, "logprobs": {**data, "tokens": [list(top)[:2][-1] for top in data["top_logprobs"]]}}


def longer_completion(choice: Choice) -> Choice:
    """Add a token after the end of the turn."""
    data = dict(choice["logprobs"])  # type: ignore[call-overload]
    return {
        **choice,
        "logprobs": {
            "tokens": [*data["tokens"], *data["tokens"][:1]],
            "top_logprobs": [*data["top_logprobs"], *data["top_logprobs"][:1]],
        },
    }


UNUSABLE: dict[str, tuple[Callable[[Choice], Choice], str]] = {
    "none": (lambda choice: {**choice, "logprobs": None}, "gives no log-probabilities of the 11 likeliest"),
    "by text": (without_ids, "names the token 't.*' by its text instead of its id"),
    "fewer": (changed_tops(None, keep=5), "gives 5 log-probabilities for each token instead of 11"),
    "nan": (changed_tops({"token_id:3": math.nan}), "the log-probability of token_id:3 is nan"),
    "positive": (changed_tops({"token_id:3": 0.5}), "the log-probability of token_id:3 is 0.5, above 0"),
    "infinite": (changed_tops({"token_id:3": math.inf}), "the log-probability of token_id:3 is inf, above 0"),
    "over 1": (changed_tops({"token_id:3": -0.1, "token_id:4": -0.2}), "add up to more than 1"),
    "processed": (after_temperature, "log-probabilities after temperature 0"),
    "another choice": (second_choices, "did not choose the likeliest token at temperature 0"),
    "another prompt": (lambda choice: {**choice, "prompt_token_ids": [1, 2]}, "other prompt tokens than were sent"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_a_server_with_unusable_log_probabilities_is_refused_with_the_reason(tmp_path: Path, kind: str) -> None:
    spoil, message = UNUSABLE[kind]
    with enumerating_server(spoil=spoil) as server, pytest.raises(ServerError, match=message):
        run_sampling(dfs_options(server, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", [*UNUSABLE, "after the end"])
def test_what_becomes_unusable_during_a_run_is_told_and_nothing_of_its_views_is_scored(
    tmp_path: Path, kind: str
) -> None:
    shown = io.StringIO()
    spoil, message = {**UNUSABLE, "after the end": (longer_completion, "the server continued after token")}[kind]
    spoiled: list[int] = []

    def spoil_some(choice: Choice) -> Choice:
        text = str(choice["text"])
        if len(text) <= 5 or sum(map(ord, text)) % 4 or not broken:
            return choice
        spoiled.append(1)
        return spoil(choice)

    broken = True
    with enumerating_server(spoil=spoil_some) as server:
        options = dfs_options(server, tmp_path / "run", policy=replace(QUICK_POLICY, retries=1))
        run_sampling(options, shown)
        saved = views(tmp_path / "run").values()
        failed = [view for view in saved if view.outcome == "error"]
        assert spoiled
        assert 0 < len(failed) < len(saved)
        assert re.search(f"error: answers cannot be enumerated: .*({message})", shown.getvalue())
        assert all((view.answers, view.greedy, view.unexplored) == ((), None, 1.0) for view in failed)
        results = score_run(tmp_path / "run").models
        assert sum(model.failures["error"] for model in results.values() if "error" in model.failures) == len(failed)
        broken = False
        assert run_sampling(replace(options, resume=True, retry_errors=True)).sampled == len(failed)
        run_sampling(replace(options, out=tmp_path / "calm"))
    assert stable_lines(tmp_path / "run") == stable_lines(tmp_path / "calm")


def test_a_server_that_reads_other_prompt_tokens_is_refused(tmp_path: Path) -> None:
    with enumerating_server() as server:
        assert server.language_model is not None
        server.language_model.prompt_tokens_added = 1
        with pytest.raises(ServerError, match=r"the server read \d+ prompt tokens where \d+ were sent"):
            run_sampling(dfs_options(server, tmp_path / "run"))


def test_log_probabilities_of_a_view_that_contradict_each_other_are_told_and_not_scored(tmp_path: Path) -> None:
    """Every position adds up to 1 within its tolerance, and yet the answers of a view add up to more than 1."""

    def larger(choice: Choice) -> Choice:
        data = dict(choice["logprobs"])  # type: ignore[call-overload]
        tops = [{name: min(value + 4e-4, 0.0) for name, value in top.items()} for top in data["top_logprobs"]]
        return {**choice, "logprobs": {**data, "top_logprobs": tops}}

    shown = io.StringIO()
    with enumerating_server(spoil=larger, max_logprobs=100, doubt=0.1) as server:
        run_sampling(dfs_options(server, tmp_path / "run", min_prob=0.02), shown)
    assert re.search(
        r"error: the probabilities of a view's answers add up to 1\.00\d+: .* contradict", shown.getvalue()
    )
    saved = views(tmp_path / "run").values()
    failed = [view for view in saved if view.outcome == "error"]
    assert 0 < len(failed) < len(saved)
    assert all((view.answers, view.greedy, view.unexplored) == ((), None, 1.0) for view in failed)
