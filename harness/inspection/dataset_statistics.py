"""What a dataset is made of: counts, sizes, colours, and how long its prompts are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from harness.core.grid import COLOURS, Task
from harness.prompts.prompt_tokenizer import PromptTokenizer

PERCENTILES = (5, 50, 90, 95, 99, 100)


@dataclass(frozen=True, slots=True)
class Spread:
    """How a number is distributed."""

    mean: float
    percentiles: dict[str, int]
    """``p5`` ... ``p100`` by nearest rank."""

    @staticmethod
    def of(values: Sequence[int]) -> Spread:
        """The spread of a non-empty list."""
        ordered = sorted(values)
        ranks = {f"p{p}": ordered[max(0, -(-p * len(ordered) // 100) - 1)] for p in PERCENTILES}
        return Spread(round(sum(ordered) / len(ordered), 1), ranks)


@dataclass
class DatasetStats:
    """The figures of ``bench data stats``; ``add`` takes task after task."""

    tasks: int = 0
    test_outputs: int = 0
    unknown_outputs: int = 0
    train_pairs: list[int] = field(default_factory=list)
    sides: list[int] = field(default_factory=list)
    """The longer side of every grid."""
    cells: list[int] = field(default_factory=list)
    colours_per_task: list[int] = field(default_factory=list)
    colour_cells: Counter[int] = field(default_factory=Counter)
    same_shape: int = 0
    """Tasks whose outputs all have their input's shape."""
    prompt_tokens: list[int] = field(default_factory=list)
    answer_tokens: list[int] = field(default_factory=list)

    def add(self, task: Task, tokens: PromptTokenizer | None = None) -> None:
        """Count a task, and its prompts and answers where a tokenizer is given."""
        pairs = task.train + task.test
        grids = [grid for pair in pairs for grid in (pair.input, pair.output) if grid is not None]
        self.tasks += 1
        self.test_outputs += len(task.test)
        self.unknown_outputs += sum(pair.output is None for pair in task.test)
        self.train_pairs.append(len(task.train))
        self.sides += [max(grid.shape) for grid in grids]
        self.cells += [len(grid.cells) for grid in grids]
        whole = b"".join(grid.cells for grid in grids)
        counts = {c: n for c in range(COLOURS) if (n := whole.count(c))}
        self.colours_per_task.append(len(counts))
        self.colour_cells.update(counts)
        self.same_shape += all(pair.output is None or pair.output.shape == pair.input.shape for pair in pairs)
        if tokens is not None:
            self._add_tokens(task, tokens)

    def _add_tokens(self, task: Task, tokens: PromptTokenizer) -> None:
        for index in range(len(task.test)):
            if tokens.prompt.has_answer(task, index):
                sample = tokens.sample(task, index)
                self.prompt_tokens.append(sample.prompt_length)
                self.answer_tokens.append(len(sample.ids) - sample.prompt_length)
            else:
                self.prompt_tokens.append(len(tokens.prompt_ids(task, index)))

    def as_dict(self, max_length: int) -> dict[str, object]:
        """All figures, ready for JSON; token figures only where tokens were counted."""
        total = sum(self.colour_cells.values())
        found: dict[str, object] = {
            "tasks": self.tasks,
            "test_outputs": self.test_outputs,
            "unknown_outputs": self.unknown_outputs,
            "same_shape_tasks": self.same_shape,
            "train_pairs": _spread(self.train_pairs),
            "longer_side": _spread(self.sides),
            "cells": _spread(self.cells),
            "colours_per_task": _spread(self.colours_per_task),
            "colour_shares": {str(c): round(self.colour_cells[c] / total, 4) for c in range(COLOURS)},
        }
        if self.prompt_tokens:
            found["prompt_tokens"] = _spread(self.prompt_tokens)
            over = sum(n > max_length for n in self.sample_tokens)
            found["max_length"] = max_length
            found["over_max_length"] = round(over / len(self.prompt_tokens), 4)
        if self.answer_tokens:
            found["answer_tokens"] = _spread(self.answer_tokens)
        return found

    @property
    def sample_tokens(self) -> list[int]:
        """Prompt and answer together; the prompt alone where answers are unknown."""
        if len(self.answer_tokens) != len(self.prompt_tokens):
            return self.prompt_tokens
        return [given + learned for given, learned in zip(self.prompt_tokens, self.answer_tokens, strict=True)]


def collect(tasks: Iterable[Task], tokens: PromptTokenizer | None = None) -> DatasetStats:
    """The figures of some tasks."""
    stats = DatasetStats()
    for task in tasks:
        stats.add(task, tokens)
    return stats


def _spread(values: Sequence[int]) -> dict[str, float]:
    spread = Spread.of(values)
    return {"mean": spread.mean, **spread.percentiles}
