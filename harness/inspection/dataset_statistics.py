"""Statistics of a dataset: numbers of tasks and pairs, grid sizes, colours, and prompt lengths in tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from harness.core.errors import DataError
from harness.core.grid import COLOURS, Task
from harness.data.dataset import Dataset, TaskList, iterate_tasks
from harness.prompts.prompt_tokenizer import PromptTokenizer

PERCENTILES = (5, 50, 90, 95, 99, 100)
Watch = Callable[[Iterable[Task], int], Iterable[Task]]
"""Yields the given tasks while it shows progress; the number is how many tasks there are."""


def dataset_stats(dataset: Dataset, tokens: PromptTokenizer | None, max_length: int, watch: Watch) -> dict[str, object]:
    """Return the statistics of every task in its fixed draw, ready for JSON.

    Args:
        tokens: counts prompts and answers in tokens; None leaves those figures out.
        max_length: limit in tokens for ``over_max_length``, the share of samples that are longer.

    Raises:
        DataError: no task can be read.
    """
    stats = DatasetStats()
    for task in watch(iterate_tasks(dataset), len(dataset.ids)):
        stats.add_task(task, tokens)
    if not stats.tasks:
        raise DataError(f"{dataset.spec}: no task could be read")
    head: dict[str, object] = {"spec": dataset.spec, "origin": dataset.origin, "digest": dataset.digest()}
    left_out = {} if isinstance(dataset, TaskList) else dict(getattr(dataset, "skipped", {}))
    return {**head, **stats.as_dict(max_length), **({"left_out": left_out} if left_out else {})}


@dataclass
class DatasetStats:
    """Counts and lists from which ``bench data stats`` computes its figures."""

    tasks: int = 0
    test_outputs: int = 0
    unknown_outputs: int = 0
    train_pairs: list[int] = field(default_factory=list)
    """Number of train pairs per task."""
    sides: list[int] = field(default_factory=list)
    """The longer side of every grid."""
    cells: list[int] = field(default_factory=list)
    """Number of cells of every grid."""
    colours_per_task: list[int] = field(default_factory=list)
    colour_cells: Counter[int] = field(default_factory=Counter)
    """Number of cells of each colour."""
    same_shape: int = 0
    """Number of tasks in which every known output has the shape of its input."""
    prompt_tokens: list[int] = field(default_factory=list)
    """Prompt length per test output, in tokens."""
    answer_tokens: list[int] = field(default_factory=list)
    """Answer length per test output with a known answer, in tokens."""

    def add_task(self, task: Task, tokens: PromptTokenizer | None = None) -> None:
        """Add a task to the counts; with ``tokens`` also the lengths of its prompts and answers."""
        pairs = task.train + task.test
        grids = [grid for pair in pairs for grid in (pair.input, pair.output) if grid is not None]
        self.tasks += 1
        self.test_outputs += len(task.test)
        self.unknown_outputs += sum(pair.output is None for pair in task.test)
        self.train_pairs.append(len(task.train))
        self.sides += [max(grid.shape) for grid in grids]
        self.cells += [len(grid.cells) for grid in grids]
        all_cells = b"".join(grid.cells for grid in grids)
        counts = {c: n for c in range(COLOURS) if (n := all_cells.count(c))}
        self.colours_per_task.append(len(counts))
        self.colour_cells.update(counts)
        self.same_shape += all(pair.output is None or pair.output.shape == pair.input.shape for pair in pairs)
        if tokens is not None:
            self._add_tokens(task, tokens)

    def _add_tokens(self, task: Task, tokens: PromptTokenizer) -> None:
        """Add the token counts of each test output of a task."""
        for index in range(len(task.test)):
            if tokens.prompt.has_answer(task, index):
                sample = tokens.sample(task, index)
                self.prompt_tokens.append(sample.prompt_length)
                self.answer_tokens.append(len(sample.ids) - sample.prompt_length)
            else:
                self.prompt_tokens.append(len(tokens.prompt_ids(task, index)))

    def as_dict(self, max_length: int) -> dict[str, object]:
        """Return all figures, ready for JSON; token figures only if tokens were counted."""
        total = sum(self.colour_cells.values())
        figures: dict[str, object] = {
            "tasks": self.tasks,
            "test_outputs": self.test_outputs,
            "unknown_outputs": self.unknown_outputs,
            "same_shape_tasks": self.same_shape,
            "train_pairs": summarize(self.train_pairs),
            "longer_side": summarize(self.sides),
            "cells": summarize(self.cells),
            "colours_per_task": summarize(self.colours_per_task),
            "colour_shares": {str(c): round(self.colour_cells[c] / total, 4) for c in range(COLOURS)},
        }
        if self.prompt_tokens:
            figures["prompt_tokens"] = summarize(self.prompt_tokens)
            over = sum(n > max_length for n in self._sample_tokens())
            figures["max_length"] = max_length
            figures["over_max_length"] = round(over / len(self.prompt_tokens), 4)
        if self.answer_tokens:
            figures["answer_tokens"] = summarize(self.answer_tokens)
        return figures

    def _sample_tokens(self) -> list[int]:
        """Return the length of prompt and answer together, or of prompts alone if any answer is unknown."""
        if len(self.answer_tokens) != len(self.prompt_tokens):
            return self.prompt_tokens
        return [prompt + answer for prompt, answer in zip(self.prompt_tokens, self.answer_tokens, strict=True)]


def summarize(values: Sequence[int]) -> dict[str, float]:
    """Return the mean of a non-empty list, to one decimal, and its percentiles ``p5`` to ``p100`` by nearest rank."""
    ordered = sorted(values)
    ranks = {f"p{p}": ordered[max(0, -(-p * len(ordered) // 100) - 1)] for p in PERCENTILES}
    return {"mean": round(sum(ordered) / len(ordered), 1), **ranks}
