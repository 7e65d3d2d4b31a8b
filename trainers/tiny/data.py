"""Build batches for the tiny base: toy tasks as token ids, with the loss on all outputs but the first."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from harness.core.grid import Grid, Task
from harness.data.toy_tasks import toy_task
from trainers.data.micro_batches import IGNORED


class DenseEncoder:
    """Encode tasks as the token ids of prompt ``compact-v0`` with MinimalGridEncoder, all answers included.

    A test proves that the ids equal those of harness.prompts.prompt_tokenizer on the rendered prompt.
    """

    def __init__(self, tokenizer: Any) -> None:
        def ids(text: str) -> list[int]:
            return list(tokenizer(text)["input_ids"])

        self.user = ids("<|im_start|>user\n")
        self.assistant = ids("<|im_end|>\n<|im_start|>assistant\n")
        self.end = ids("<|im_end|>\n")
        self.newline = ids("\n")
        self.digits = [ids(str(digit))[0] for digit in range(10)]

    def encode_grid(self, grid: Grid) -> list[int]:
        """Return the ids of one grid."""
        ids: list[int] = []
        for row in grid.rows():
            ids += [*(self.digits[c] for c in row), *self.newline]
        return ids[: -len(self.newline)]

    def encode_task(self, task: Task) -> tuple[list[int], list[int], int]:
        """Return (ids, labels, length of one answer with its end of turn); labels are IGNORED outside the answers."""
        ids: list[int] = []
        labels: list[int] = []
        answer: list[int] = []
        for k, pair in enumerate((*task.train, *task.test)):
            question = [*self.user, *self.encode_grid(pair.input), *self.assistant]
            assert pair.output is not None  # toy tasks always have one
            answer = [*self.encode_grid(pair.output), self.end[0]]
            ids += [*question, *answer, *self.end[1:]]
            learned = answer if k else [IGNORED] * len(answer)
            labels += [IGNORED] * len(question) + learned + [IGNORED] * (len(self.end) - 1)
        return ids, labels, len(answer)


@dataclass
class Curriculum:
    """Families in order: the next joins when all active ones are mastered, and weak ones are drawn more often."""

    families: tuple[str, ...]
    threshold: float
    seed: int

    def __post_init__(self) -> None:
        self.active = 1
        self.drawn = 0
        self.accuracy = dict.fromkeys(self.families, 0.0)
        self._random = random.Random(self.seed)  # noqa: S311

    def draw_tasks(self, n: int, size: int) -> tuple[list[str], list[Task]]:
        """Return the families of n new training tasks of one grid size, and the tasks."""
        active_families = self.families[: self.active]
        names = self._random.choices(active_families, [0.15 + 1 - self.accuracy[f] for f in active_families], k=n)
        first = self.drawn
        self.drawn += n
        return names, [toy_task(f, "training", self.seed, first + i, size=size) for i, f in enumerate(names)]

    def record_answers(self, names: list[str], exact: list[bool]) -> bool:
        """Update the families' accuracies; return True when a new family joined."""
        for name, right in zip(names, exact, strict=True):
            self.accuracy[name] += 0.01 * (right - self.accuracy[name])
        mastered = all(self.accuracy[f] > self.threshold for f in self.families[: self.active])
        if not mastered or self.active == len(self.families):
            return False
        self.active += 1
        return True
