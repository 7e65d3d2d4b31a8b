"""A prediction as the line that is stored of it."""

from __future__ import annotations

import orjson

from harness.client.response import Reply
from harness.core.grid import Grid
from harness.runs.schema import Outcome
from harness.sampling.plan import Draw


def prediction_line(draw: Draw, outcome: Outcome, grid: Grid | None, reply: Reply | None) -> bytes:
    """The line of predictions.jsonl for a draw: a ``PredictionRecord`` as JSON, without the cost of validating it.

    Args:
        grid: the answer in the original orientation and colours; None unless ``outcome`` is ``grid``.
        reply: what came; None where nothing was sent or answered.
    """
    view = draw.augmentation
    row = {
        "model": draw.model,
        "task_id": draw.task.id,
        "test_index": draw.test_index,
        "sample_index": draw.sample_index,
        "augmentation": {"symmetry": view.symmetry, "colours": view.colours, "order": view.order},
        "outcome": outcome,
        "grid": None if grid is None else grid.to_rows(),
        "text": None if reply is None else reply.text,
        "cumulative_logprob": None if reply is None else reply.cumulative_logprob,
        "n_tokens": None if reply is None else reply.n_tokens,
        "finish_reason": None if reply is None else reply.finish_reason,
        "seed": draw.seed,
        "seconds": 0.0 if reply is None else reply.seconds,
    }
    return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
