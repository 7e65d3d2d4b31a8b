"""A run in which a model gives no answers ends early, says why, and shows no table."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.errors import RunError, ServerError
from harness.runs.folder import RunFolder
from harness.sampling.unmeasured_models import MIN_OUTPUTS, MIN_PREDICTIONS, UnmeasuredModelCheck
from harness.voting.live_tally import ModelTally
from tests.support.commands import run_bench
from tests.support.runs.sampling_runs import count_outcomes, run_options, run_sampling
from tests.support.servers.chat_answers import Body, echo
from tests.support.servers.chat_server import ChatServer

LONG = "toy/copy/evaluation#n=60"


def refuse_all(body: Body) -> tuple[int, Body] | None:
    return None if body["messages"][-1]["content"] == "Hello" else (400, {"error": {"message": "not like this"}})


def cut(body: Body) -> tuple[str, str]:
    return echo(body)[:3], "length"


CASES: dict[str, tuple[Callable[[Body], str | tuple[str, str]], Callable[[Body], tuple[int, Body] | None], str]] = {
    "refused": (echo, refuse_all, "not like this"),
    "truncated": (cut, lambda body: None, "cut off at 937 tokens"),
}


@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("kind", CASES)
def test_a_run_without_any_answer_ends_early_with_the_reason(tmp_path: Path, kind: str, tokens: bool) -> None:
    answer, refuse, why = CASES[kind]
    with ChatServer(answer, refuse=refuse, tokens=tokens) as server:
        chosen = run_options(server, tmp_path / "run", models=("base",), dataset=LONG)
        with pytest.raises(RunError, match=why):
            run_sampling(chosen)
        counts = count_outcomes(tmp_path / "run")
        assert set(counts) == {kind}
        assert MIN_PREDICTIONS <= counts[kind] < 200
        with pytest.raises(RunError, match="nothing was measured"):  # to resume it means to insist
            run_sampling(replace(chosen, resume=True))
        assert count_outcomes(tmp_path / "run") == {kind: 240}
        server.refuse, server.answer = (lambda body: None), echo
        if kind == "refused":
            assert run_sampling(replace(chosen, resume=True, retry_errors=True)).finished
            assert count_outcomes(tmp_path / "run") == {"grid": 240}


@pytest.mark.parametrize("kind", CASES)
def test_the_command_shows_no_table_of_a_short_run_either(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    answer, refuse, why = CASES[kind]
    run = tmp_path / "run"
    with ChatServer(answer, refuse=refuse) as server:
        words = ["--server", server.url, "--model", "base", "--dataset", "toy/copy#n=2", "-n", "1", "--out", str(run)]
        more = ["--prompt", "compact-v0", "--grid-encoder", "MinimalGridEncoder()"]
        status, out, err = run_bench(capsys, "run", *words, *more)
    assert status == 1
    assert out == ""
    assert why in err
    assert "to resume" not in err
    assert not RunFolder(run).results_path.exists()
    assert RunFolder(run).manifest().finished is not None


@pytest.mark.parametrize("key", [["--api-key", "secret"], ["--api-key=secret"]])
def test_the_command_to_resume_hides_the_api_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, key: list[str]
) -> None:
    with ChatServer(echo, refuse=refuse_all) as server:
        words = ["run", "--server", server.url, "--model", "base", "--dataset", LONG, "--out", str(tmp_path / "run")]
        words += ["--prompt", "compact-v0", "--grid-encoder", "MinimalGridEncoder()", *key]
        monkeypatch.setattr(sys, "argv", ["bench", *words])
        status, _, err = run_bench(capsys, *words)
    assert status == 1
    (hint,) = [line for line in err.splitlines() if line.startswith("to resume: bench run ")]
    assert "secret" not in hint
    assert "KEY" in hint
    assert hint.endswith(" --resume")


def test_one_model_that_answers_does_not_hide_another_that_does_not(tmp_path: Path) -> None:
    def answer(body: Body) -> str | tuple[str, str]:
        return cut(body) if body["model"] == "base" else echo(body)

    with ChatServer(answer) as server, pytest.raises(RunError, match="base gave no answer") as caught:
        run_sampling(run_options(server, tmp_path / "run"))
    assert "cross gave" not in str(caught.value)


def test_a_few_answers_are_enough_to_continue(tmp_path: Path) -> None:
    def answer(body: Body) -> str | tuple[str, str]:
        return cut(body) if echo(body)[0] in "0123456" else echo(body)

    with ChatServer(answer) as server:
        assert run_sampling(run_options(server, tmp_path / "run")).finished


kinds = st.sampled_from(["grid", "unparsed", "refused", "truncated", "too_long", "error"])


@given(st.lists(st.tuples(st.integers(0, 7), kinds), max_size=60))
def test_only_many_failures_of_several_outputs_end_a_run(kinds_so_far: list[tuple[int, str]]) -> None:
    tally = ModelTally("m", 100, 100)
    check = UnmeasuredModelCheck([tally], {"m": 9})
    for done, (output, kind) in enumerate(kinds_so_far, 1):
        tally.add(("task", output), None, kind, None, None)
        so_far = kinds_so_far[:done]
        sent = [k for _, k in so_far if k != "too_long"]
        hopeless = (
            len(sent) >= MIN_PREDICTIONS
            and len({o for o, _ in so_far}) >= MIN_OUTPUTS
            and not {"grid", "unparsed"} & {k for _, k in so_far}
        )
        if hopeless:
            with pytest.raises(RunError):
                check.check(tally)
        else:
            check.check(tally)
    if kinds_so_far and not {"grid", "unparsed"} & {k for _, k in kinds_so_far}:
        with pytest.raises(RunError):
            check.check_all([tally])
    else:
        check.check_all([tally])


def test_a_run_ends_at_the_last_failure_of_the_minimum() -> None:
    tally = ModelTally("m", 100, 100)
    check = UnmeasuredModelCheck([tally], {"m": 9})
    for sample in range(MIN_PREDICTIONS):
        tally.add(("task", sample % (MIN_OUTPUTS - 1)), None, "refused", None, None)
        check.check(tally)
    tally.add(("task", MIN_OUTPUTS), None, "refused", None, None)
    with pytest.raises(RunError):
        check.check(tally)


def test_an_account_without_credit_makes_no_predictions_and_old_runs_are_repaired(tmp_path: Path) -> None:
    broke: list[bool] = []

    def refuse(body: Body) -> tuple[int, Body] | None:
        return (402, {"error": {"message": "Insufficient credits"}}) if broke and echo(body)[0] in "01234" else None

    shown = io.StringIO()
    with ChatServer(refuse=refuse) as server:
        chosen = run_options(server, tmp_path / "run")
        broke.append(True)
        with pytest.raises(ServerError, match="Insufficient credits"):
            run_sampling(chosen)
        if (tmp_path / "run").exists():
            assert set(count_outcomes(tmp_path / "run")) <= {"grid"}
        broke.clear()
        assert run_sampling(replace(chosen, resume=(tmp_path / "run").exists())).finished
        _refuse_by_hand(tmp_path / "run", 7)
        assert count_outcomes(tmp_path / "run")["refused"] == 7
        assert run_sampling(replace(chosen, resume=True, retry_errors=True), shown).finished
    assert "asking again for 7 predictions" in shown.getvalue()
    assert count_outcomes(tmp_path / "run") == {"grid": 40}


def _refuse_by_hand(run: Path, count: int) -> None:
    """Change some predictions into what older versions stored for an account without credit."""
    lines = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    for line in lines[:count]:
        line |= {"outcome": "refused", "grid": None, "text": None, "cumulative_logprob": None, "n_tokens": None}
        line["finish_reason"] = None
    (run / "predictions.jsonl").write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    manifest = json.loads((run / "manifest.json").read_text())
    del manifest["checksum"]
    (run / "manifest.json").write_text(json.dumps(manifest | {"predictions_sha256": None}))
