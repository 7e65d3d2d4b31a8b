"""The route POST /arc/score: log-probabilities of given answers, for clients that rescore candidates."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel as Schema
from pydantic import ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serve.server.http.http_json import Refusal, error_response, json_response, read_json
from serve.server.http.limits import MAX_SEQUENCES, SCORE_ROUTE
from serve.server.scoring.answer_scores import AnswerScore, AnswerScorer, PromptAnswers, ScoreError
from serve.server.service import Service

if TYPE_CHECKING:
    from fastapi import FastAPI

_Tokens = Annotated[list[int], Field(min_length=1)]
_REMEDY = 'the body is {"model": NAME, "prompts": [{"prompt": [ids], "answers": [[ids], ...]}, ...]}'


class PromptBody(Schema):
    """A prompt with the answers to score, as token ids."""

    model_config = ConfigDict(extra="forbid", strict=True)
    prompt: _Tokens
    answers: Annotated[list[_Tokens], Field(min_length=1)]


class ScoreBody(Schema):
    """Body of a request."""

    model_config = ConfigDict(extra="forbid", strict=True)
    model: str
    prompts: Annotated[list[PromptBody], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class _Usage:
    """Token counts in the form in which vLLM leaves them for ``Metrics.count_tokens``."""

    prompt_tokens: int
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class _RequestMetadata:
    """What vLLM's routes leave in a request's state."""

    request_id: str
    final_usage_info: _Usage


def attach_score_route(app: FastAPI) -> None:
    """Add the route to the app. AdapterMiddleware checks the key and resolves the model before it runs."""
    app.router.routes.append(Route(SCORE_ROUTE, _score, methods=["POST"]))


async def _score(request: Request) -> Response:
    """Answer one request; the model in its body is the id of a loaded version, which the middleware holds."""
    service: Service = request.app.state.arc_bench
    if service.scorer is None:
        return error_response(404, "NotFoundError", "This server cannot score answers; its log says why")
    try:
        body = parse_body(await read_json(request.scope, request.receive), service.scorer)
    except Refusal as refusal:
        return error_response(refusal.status, refusal.kind, str(refusal))
    prompts = [PromptAnswers(item.prompt, item.answers) for item in body.prompts]
    try:
        scores = await _unless_disconnected(request, service.scorer.score(body.model, prompts))
    except ScoreError as error:
        return error_response(500, "InternalServerError", f"Not scored: {error}")
    except ValueError as error:
        return error_response(400, "BadRequestError", str(error))
    if scores is None:
        return error_response(499, "ClientClosedRequestError", "The client left before its answers were scored")
    return _reply(request, body, scores)


def parse_body(value: dict[str, Any], scorer: AnswerScorer) -> ScoreBody:
    """Return the body of a request that this server can score.

    Raises:
        Refusal: which field is wrong, and the remedy.
    """
    try:
        body = ScoreBody.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise _refused(f"{_field(first['loc'])}: {first['msg']}; {_REMEDY}") from error
    count = sum(len(item.answers) for item in body.prompts)
    if count > MAX_SEQUENCES:
        raise _refused(f"prompts: {count} answers; at most {MAX_SEQUENCES} may be scored at once, so send fewer")
    for p, item in enumerate(body.prompts):
        _check_ids(item.prompt, f"prompts[{p}].prompt", scorer.vocabulary)
        for a, answer in enumerate(item.answers):
            field = f"prompts[{p}].answers[{a}]"
            _check_ids(answer, field, scorer.vocabulary)
            if (total := len(item.prompt) + len(answer)) > scorer.max_tokens:
                raise _refused(
                    f"{field}: prompt and answer have {total} tokens; the maximum sequence length for scoring is "
                    f"{scorer.max_tokens} (bench serve --max-model-len, less one)"
                )
    return body


def _check_ids(ids: Sequence[int], field: str, vocabulary: int) -> None:
    """Refuse token ids that the model does not have."""
    if min(ids) < 0 or max(ids) >= vocabulary:
        at, token = next((k, token) for k, token in enumerate(ids) if not 0 <= token < vocabulary)
        raise _refused(f"{field}[{at}]: {token} is not a token id of this model, which has 0 to {vocabulary - 1}")


async def _unless_disconnected(request: Request, work: Any) -> list[list[AnswerScore]] | None:
    """Return the result of ``work``; cancel it and return None if the client disconnects first."""
    task = asyncio.ensure_future(work)
    watch = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        task.cancel()
        watch.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    """Return when the client has disconnected; its body has been read already."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _reply(request: Request, body: ScoreBody, scores: list[list[AnswerScore]]) -> Response:
    """Return the response, and leave the token counts for the metrics."""
    tokens = sum(len(item.prompt) + len(answer) for item in body.prompts for answer in item.answers)
    request.scope["state"]["request_metadata"] = _RequestMetadata("arc-score", _Usage(tokens))
    rows = [[{"logprob": score.logprob, "n_tokens": score.n_tokens} for score in row] for row in scores]
    cached = sum(score.n_cached for row in scores for score in row)
    usage = {"prompt_tokens": tokens, "cached_tokens": cached}
    return json_response(200, {"model": body.model, "scores": rows, "usage": usage})


def _field(location: tuple[int | str, ...]) -> str:
    """Return the path of a field, such as prompts[0].answers[1]."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".") or "body"


def _refused(message: str) -> Refusal:
    return Refusal(400, "BadRequestError", message)
