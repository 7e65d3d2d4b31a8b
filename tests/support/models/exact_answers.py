"""The answers of a transformers model by brute force, and how enumerated and sampled runs of it compare with them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import pytest

from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from harness.prompts.file_tokenizer import FileTokenizer, eos_token_ids
from harness.runs.folder import RunFolder
from harness.runs.logs.prediction_reader import read_predictions
from harness.scoring.run_scores import score_run
from tests.support.runs.enumerated_runs import prompts_of, views
from tests.support.servers.chat_server import TINY_BASE
from tests.support.vllm.dtypes import is_exact, tolerance

BORDER = 1e-4 if is_exact() else tolerance()
"""Answers whose log-probability is this close to the threshold are left out of the comparison."""
Distribution = dict[tuple[int, ...], float]
View = tuple[str, str, int, int]
"""Model, task, test index and index of the view."""


def load_model(base: Path, adapter: Path | None) -> Any:
    """Return a base model in float32, with an adapter if one is given."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    return model if adapter is None else PeftModel.from_pretrained(model, str(adapter)).eval()


class ExactAnswers:
    """The answers of up to ``limit`` tokens with at least ``min_prob``, by brute force over the whole vocabulary.

    Args:
        load: returns the model with a name.
    """

    def __init__(self, load: Callable[[str], Any], min_prob: float, limit: int) -> None:
        self._model, self._min_prob, self._limit = cache(load), min_prob * math.exp(-BORDER), limit
        self._stops = sorted(eos_token_ids(TINY_BASE))
        self._answers: dict[tuple[str, tuple[int, ...]], Distribution] = {}

    def answers(self, name: str, prompt: tuple[int, ...]) -> Distribution:
        """Return the log-probability of every answer to a prompt, end included."""
        if (name, prompt) not in self._answers:
            found = brute_force(self._model(name), prompt, self._min_prob, self._limit, self._stops)
            self._answers[name, prompt] = found
        return self._answers[name, prompt]


def brute_force(model: Any, prompt: tuple[int, ...], min_prob: float, limit: int, stops: list[int]) -> Distribution:
    """Return the log-probability of every answer of up to ``limit`` tokens, end included, with at least ``min_prob``.

    Level by level: all prefixes of one length that are likely enough form a batch.
    """
    import torch

    answers: Distribution = {}
    prefixes, values, threshold = [()], torch.zeros(1, dtype=torch.float64), math.log(min_prob)
    with torch.no_grad():
        output = model(input_ids=torch.tensor([prompt]), use_cache=True)
        for _ in range(limit):
            totals = values[:, None] + output.logits[:, -1].double().log_softmax(-1)
            for prefix, end in zip(prefixes, totals[:, stops].logsumexp(-1).tolist(), strict=True):
                if end >= threshold:
                    answers[prefix] = end
            totals[:, stops] = -math.inf
            rows, tokens = (totals >= threshold).nonzero(as_tuple=True)
            if not len(rows):
                break
            prefixes = [(*prefixes[row], token) for row, token in zip(rows.tolist(), tokens.tolist(), strict=True)]
            values, cache_ = totals[rows, tokens], output.past_key_values
            cache_.reorder_cache(rows)
            output = model(input_ids=tokens[:, None], past_key_values=cache_, use_cache=True)
    return answers


def assert_exact_answers(run: Path, exact: ExactAnswers, min_prob: float) -> int:
    """Assert that the views of a run have the answers of brute force; return the number of answers compared."""
    tokenizer, saved = FileTokenizer(TINY_BASE), saved_answers(run)
    threshold, compared = math.log(min_prob), 0
    for sample, prompt in prompts_of(run):
        answers = exact.answers(sample.model, prompt).items()
        expected = sorted((tokenizer.decode(list(tokens), skip_special_tokens=True), v) for tokens, v in answers)
        actual = saved[sample.model, sample.task.id, sample.test_index, sample.sample_index]
        assert {text for text, _ in actual} <= {text for text, value in expected if value >= threshold - BORDER}
        clear = {text for text, value in expected if value > threshold + BORDER}
        for text in clear:
            one, other = (sorted(v for t, v in pairs if t == text) for pairs in (actual, expected))
            assert one == pytest.approx(other[len(other) - len(one) :], abs=tolerance())
            assert len(one) >= sum(value > threshold + BORDER for value in other)
        compared += len(clear)
    return compared


def saved_answers(run: Path) -> dict[View, list[tuple[str, float]]]:
    """Return the texts and log-probabilities of the answers of every view of a run."""
    saved: dict[View, list[tuple[str, float]]] = {key: [] for key in views(run)}
    for line in _lines(run):
        if "answer_index" in line:
            key = line["model"], line["task_id"], line["test_index"], line["sample_index"]
            saved[key].append((line["text"], line["cumulative_logprob"]))
    return saved


def enumerated_bounds(run: Path, model: str) -> tuple[float, float]:
    """Return the accuracy of an enumerated run, and the accuracy plus the mean unexplored mass."""
    metrics = score_run(run).models[model].metrics
    return metrics["accuracy"].value, metrics["accuracy"].value + metrics["unexplored"].value


def sampled_mean(run: Path, model: str, draws: int) -> tuple[float, float]:
    """Return the accuracy of a sampled run, and its standard error from the draws within views.

    A view of which all draws agree would have error 0; half a draw of each kind is added for the error.
    """
    right: Counter[tuple[str, int, int]] = Counter()
    tasks = iterate_tasks(open_dataset(RunFolder(run).manifest().config.dataset))
    truths = {(task.id, index): pair.output for task in tasks for index, pair in enumerate(task.test)}
    for one in read_predictions(RunFolder(run).predictions_path):
        if one.model == model:
            view = one.task_id, one.test_index, one.sample // draws
            right[view] += one.grid is not None and one.grid == truths[one.task_id, one.test_index]
    shares = [(count + 0.5) / (draws + 1) for count in right.values()]
    error = math.sqrt(sum(share * (1 - share) / draws for share in shares)) / len(shares)
    return sum(right.values()) / (draws * len(right)), error


def answer_zscores(run: Path, sampled: Path, draws: int) -> Iterator[float]:
    """Yield, for every clearly uncertain answer of a run, how far its share of the draws is from its probability.

    The difference is in standard errors. Texts of several answers add up.
    """
    counts: Counter[tuple[View, str]] = Counter()
    for line in _lines(sampled):
        view = line["model"], line["task_id"], line["test_index"], line["sample_index"] // draws
        counts[view, line["text"] if line["finish_reason"] == "stop" else "\0"] += 1
    for view, answers in saved_answers(run).items():
        probabilities: Counter[str] = Counter()
        for text, logprob in answers:
            probabilities[text] += math.exp(logprob)  # type: ignore[assignment]
        for text, probability in probabilities.items():
            if 0.05 < probability < 0.95:
                error = math.sqrt(draws * probability * (1 - probability))
                yield (counts[view, text] - draws * probability) / error


def _lines(run: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a run's predictions.jsonl."""
    yield from map(orjson.loads, RunFolder(run).predictions_path.read_bytes().splitlines())
