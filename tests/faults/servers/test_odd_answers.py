"""Servers with valid HTTP and wrong content: no JSON, wrong choices, wrong grids, invalid numbers."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from harness.runs.folder import RunFolder
from harness.scoring.run_scores import score_run
from tests.faults.matrix import count_cases, mostly_slow
from tests.faults.servers.spoiler import IMPATIENT_POLICY, Spoil, SpoilingProxy, with_content_length
from tests.support.runs.sampling_runs import (
    QUICK_POLICY,
    count_outcomes,
    predictions_without_times,
    run_options,
    run_sampling,
)
from tests.support.servers.chat_answers import Body, echo, mixed_answer
from tests.support.servers.chat_server import ChatServer


def altered(change: Callable[[Body], object], old: bytes = b"", new: bytes = b"") -> Spoil:
    """Return a function that changes the JSON of the right response, and then its bytes."""

    async def spoil(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        data = orjson.loads(body)
        change(data)
        body = orjson.dumps(data).replace(old, new)
        writer.write(with_content_length(head, len(body)) + body)

    return spoil


def logprobs(value: object) -> Callable[[Body], object]:
    """Return a function that replaces every log-probability."""

    def change(data: Body) -> None:
        for choice in data["choices"]:
            own = choice["logprobs"]
            if "content" in own:
                own["content"] = [{**token, "logprob": value} for token in own["content"]]
            else:
                own["token_logprobs"] = [value for _ in own["token_logprobs"]]

    return change


def usage(value: object) -> Callable[[Body], object]:
    """Return a function that replaces the number of tokens."""
    return lambda data: data["usage"].update(completion_tokens=value)


def keep(data: Body) -> None:
    """Change nothing."""


BROKEN: dict[str, Spoil] = {
    "no choices": altered(lambda data: data.pop("choices")),
    "choices an object": altered(lambda data: data.update(choices={"0": data["choices"][0]})),
    "choices of null": altered(lambda data: data.update(choices=[None for _ in data["choices"]])),
    "a choice too few": altered(lambda data: data["choices"].pop()),
    "a choice too many": altered(lambda data: data["choices"].append(data["choices"][0])),
    "nested too deep": altered(lambda data: data.update(choices=0), b":0", b":" + b"[" * 50_000),
    "a list": altered(keep, b'{"model"', b'[{"model"'),
    "an error with status 200": altered(lambda data: (data.clear(), data.update(error={"message": "out of memory"}))),
}


@pytest.mark.parametrize("fault", mostly_slow(BROKEN, "no choices", "a choice too few", "nested too deep"))
def test_broken_answers(tmp_path: Path, undisturbed: Path, fault: Spoil) -> None:
    """Responses that are not JSON, or have too few or too many choices, are retried: the run is as without faults."""
    with ChatServer(mixed_answer) as server, SpoilingProxy(server, fault, every=5) as spoiler:
        assert run_sampling(run_options(spoiler.url, tmp_path / "run", policy=IMPATIENT_POLICY)).finished
    assert predictions_without_times(tmp_path / "run") == predictions_without_times(undisturbed)
    count_cases(spoiler.spoiled)


ODD: dict[str, Spoil] = {
    "logprob NaN": altered(keep, b"-0.5", b"NaN"),
    "logprob -Infinity": altered(keep, b"-0.5", b"-Infinity"),
    "logprob 1e999": altered(keep, b"-0.5", b"-1e999"),
    "half a surrogate": altered(lambda data: data.update(note="x"), b'"x"', b'"\\ud800"'),
    "no utf-8": altered(lambda data: data.update(note="x"), b'"x"', b'"\xff"'),
    "tokens below 0": altered(usage(-5)),
    "tokens of 64 bits": altered(usage((1 << 64) - 1)),
    "tokens true": altered(usage(True)),
    "tokens half": altered(usage(1.5)),
    "tokens a text": altered(usage("many")),
    "tokens over 64 bits": altered(usage(7), b":7", b":123456789012345678901234567890"),
    "no usage": altered(lambda data: data.pop("usage")),
    "usage a list": altered(lambda data: data.update(usage=[1])),
    "logprobs null": altered(logprobs(None)),
    "logprobs texts": altered(logprobs("-0.5")),
    "logprobs true": altered(logprobs(True)),
    "logprobs huge": altered(logprobs(-1.7e308)),
    "logprobs missing": altered(lambda data: [choice.pop("logprobs") for choice in data["choices"]]),
    "no model": altered(lambda data: data.pop("model")),
    "model a list": altered(lambda data: data.update(model=["a"])),
    "unknown fields": altered(lambda data: data.update(kv_transfer_params={"a": 1}, choices_2=[])),
}


@pytest.mark.parametrize("tokens", mostly_slow({"chat": False, "completions": True}, "chat"))
@pytest.mark.parametrize(
    "fault", mostly_slow(ODD, "logprob NaN", "tokens below 0", "logprobs huge", "logprobs texts", "no model")
)
def test_unusable_numbers(tmp_path: Path, undisturbed: Path, fault: Spoil, tokens: bool) -> None:
    """Invalid numbers and names beside a good answer are ignored: the grids are the same, and the run can be scored."""
    with ChatServer(mixed_answer, tokens=tokens) as server, SpoilingProxy(server, fault, every=1) as spoiler:
        assert run_sampling(run_options(spoiler.url, tmp_path / "run", policy=QUICK_POLICY)).finished
    grids, expected = (
        [(r.key, r.outcome, r.grid, r.text, r.finish_reason) for r in predictions_without_times(run)]
        for run in (tmp_path / "run", undisturbed)
    )
    assert grids == expected
    assert set(score_run(tmp_path / "run", resamples=99).models) == {"base", "cross"}
    count_cases(spoiler.spoiled)


def test_other_grids(tmp_path: Path) -> None:
    """Wrong grids from a server are all saved, and none counts as right."""
    with ChatServer(lambda body: echo(body).translate(str.maketrans("0123456789", "1234567890"))) as server:
        run_sampling(run_options(server, tmp_path / "run"))
    assert count_outcomes(tmp_path / "run") == {"grid": 40}
    for model in score_run(tmp_path / "run", resamples=99).models.values():
        assert [model.metrics[name].value for name in ("accuracy", "vote_2", "pass_n")] == [0.0, 0.0, 0.0]
    count_cases(40)


def test_another_model_answers(tmp_path: Path) -> None:
    """A server that names another model in some responses is recorded with a warning; nothing is requested again."""
    output = io.StringIO()
    with (
        ChatServer() as server,
        SpoilingProxy(server, altered(lambda data: data.update(model="other")), every=4) as spoiler,
    ):
        run_sampling(run_options(spoiler.url, tmp_path / "run", models=("base",)), output)
    manifest = RunFolder(tmp_path / "run").manifest()
    assert manifest.answered_as == {"base": ["base", "other"]}
    assert any("base was answered by base and other" in warning for warning in manifest.warnings)
    assert "warning: base was answered by base and other" in output.getvalue()
    count_cases(spoiler.spoiled)
