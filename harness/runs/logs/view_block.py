"""Write one enumerated view as lines of predictions.jsonl: its answers, likeliest first, then the closing record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from harness.core.augmentation import Augmentation
from harness.core.grid import Grid
from harness.runs.schemas.prediction_schema import Outcome, PredictionKey
from harness.runs.schemas.view_schema import ViewOutcome


@dataclass(frozen=True, slots=True)
class ViewAnswer:
    """A complete answer of a view.

    Args:
        grid: in the task's own orientation and colours; None unless ``outcome`` is ``grid``.
        text: without the token that ends the turn.
        logprob: log-probability of the answer and the end of the turn; several tokens that end a turn add up.
        n_tokens: number of tokens, the end of the turn included.
    """

    outcome: Outcome
    grid: Grid | None
    text: str
    logprob: float
    n_tokens: int


@dataclass(frozen=True, slots=True)
class ViewResult:
    """The result of the search in one view.

    Args:
        answers: likeliest first; none unless ``outcome`` is ``enumerated``.
        greedy: the index in ``answers`` of the answer that temperature 0 gives, or that answer if it is not among
            them; None if it was truncated or the view failed.
        unexplored: 1 minus the probability of all answers.
        truncated: completions that were cut off at the limit on tokens.
        dropped: branches that ``--max-answers`` cut off.
        requests: completions.
        n_tokens: generated tokens.
        seconds: duration of all completions.
    """

    outcome: ViewOutcome
    answers: Sequence[ViewAnswer] = ()
    greedy: int | ViewAnswer | None = None
    unexplored: float = 1.0
    truncated: int = 0
    dropped: int = 0
    requests: int = 0
    n_tokens: int = 0
    seconds: float = 0.0


def view_block(key: PredictionKey, augmentation: Augmentation, seed: int, result: ViewResult) -> bytes:
    """Return a view's lines of predictions.jsonl, to be appended as one block.

    The lines are an ``AnswerRecord`` for each answer and a ``ViewRecord``, as JSON, without the cost of validating
    them.

    Args:
        key: (model, task id, test index, index of the view).
    """
    model, task_id, test_index, sample_index = key
    identity = {"model": model, "task_id": task_id, "test_index": test_index, "sample_index": sample_index}
    view = {"symmetry": augmentation.symmetry, "colours": augmentation.colours, "order": augmentation.order}
    lines: list[dict[str, object]] = [
        {
            **identity,
            "answer_index": index,
            "augmentation": view,
            **_answer_fields(answer),
            "finish_reason": "stop",
            "seed": seed,
            "seconds": 0.0,
        }
        for index, answer in enumerate(result.answers)
    ]
    lines.append({**identity, "augmentation": view, "seed": seed, "view": _summary(result)})
    return b"".join(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in lines)


def _answer_fields(answer: ViewAnswer) -> dict[str, object]:
    return {
        "outcome": answer.outcome,
        "grid": None if answer.grid is None else answer.grid.to_rows(),
        "text": answer.text,
        "cumulative_logprob": answer.logprob,
        "n_tokens": answer.n_tokens,
    }


def _summary(result: ViewResult) -> dict[str, object]:
    greedy = result.greedy
    return {
        "outcome": result.outcome,
        "answers": len(result.answers),
        "unexplored": result.unexplored,
        "truncated": result.truncated,
        "dropped": result.dropped,
        "requests": result.requests,
        "n_tokens": result.n_tokens,
        "seconds": result.seconds,
        "greedy": _answer_fields(greedy) if isinstance(greedy, ViewAnswer) else greedy,
    }
