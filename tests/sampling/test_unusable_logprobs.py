"""``--search dfs`` with servers whose log-probabilities are unusable: the reason is told, and nothing is scored."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path

import pytest

from harness.core.errors import ServerError
from tests.support.enumerated_runs import dfs_options, enumerating_server, views
from tests.support.language_model import Choice
from tests.support.sampling_runs import QUICK_POLICY, run_sampling


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


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda choice: {**choice, "logprobs": None}, "gives no log-probabilities of the 11 likeliest"),
        (without_ids, "names the token 't.*' by its text instead of its id"),
        (changed_tops(None, keep=5), "gives 5 log-probabilities for each token instead of 11"),
        (changed_tops({"token_id:3": math.nan}), "the log-probability of token_id:3 is nan"),
        (changed_tops({"token_id:3": 0.5}), "the log-probability of token_id:3 is 0.5, above 0"),
        (changed_tops({"token_id:3": math.inf}), "the log-probability of token_id:3 is inf, above 0"),
        (changed_tops({"token_id:3": -0.1, "token_id:4": -0.2}), "add up to more than 1"),
        (after_temperature, "log-probabilities after temperature 0"),
        (lambda choice: {**choice, "prompt_token_ids": [1, 2]}, "other prompt tokens than were sent"),
    ],
)
def test_a_server_with_unusable_log_probabilities_is_refused_with_the_reason(
    tmp_path: Path, spoil: object, message: str
) -> None:
    with enumerating_server(spoil=spoil) as server, pytest.raises(ServerError, match=message):
        run_sampling(dfs_options(server, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_fault_in_the_middle_of_a_run_is_told_and_nothing_of_its_view_is_scored(tmp_path: Path) -> None:
    shown = io.StringIO()

    def spoil(choice: Choice) -> Choice:
        text = str(choice["text"])
        spoiled = changed_tops({"token_id:3": math.nan})(choice)
        return spoiled if len(text) > 5 and sum(map(ord, text)) % 4 == 0 else choice  # type: ignore[no-any-return]

    with enumerating_server(spoil=spoil) as server:
        run_sampling(dfs_options(server, tmp_path / "run", policy=replace(QUICK_POLICY, retries=1)), shown)
    outcomes = {view.outcome for view in views(tmp_path / "run").values()}
    assert outcomes == {"enumerated", "error"}
    assert "error: answers cannot be enumerated: the log-probability of token_id:3 is nan" in shown.getvalue()


def test_a_server_that_reads_other_prompt_tokens_is_refused(tmp_path: Path) -> None:
    with enumerating_server() as server:
        assert server.language_model is not None
        server.language_model.prompt_tokens_added = 1
        with pytest.raises(ServerError, match=r"the server read \d+ prompt tokens where \d+ were sent"):
            run_sampling(dfs_options(server, tmp_path / "run"))
