"""The order in which the samples of a run are requested, in blocks that each fit into one request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RequestedSamples:
    """The samples of a run that are to be requested, and how they are numbered (harness.sampling.plan).

    Args:
        models: number of models.
        outputs: indices of the test outputs.
        n: samples of each model and test output.
        per_model: samples of each model, those of other test outputs included.
        models_at_once: models whose requests are mixed; these groups of models are processed one after another.
        size: samples per block at most; all are of one model.
    """

    models: int
    outputs: Sequence[int]
    n: int
    per_model: int
    models_at_once: int
    size: int

    def by_output(self) -> Iterator[range]:
        """Yield blocks of one test output each: all samples of one output before those of the next.

        Within a group of models, the models take turns with the same samples.
        """
        for group in self._groups():
            for output in self.outputs:
                for sample in range(0, self.n, self.size):
                    for model in group:
                        first = model * self.per_model + output * self.n
                        yield range(first + sample, first + min(sample + self.size, self.n))

    def in_rounds(self) -> Iterator[list[int]]:
        """Yield blocks of one sample index each, so that all test outputs have nearly as many samples at any time.

        The groups of models take turns: 1, 1, 2, 4, … samples of every test output. So models change rarely, and none
        gets more than twice as many samples as another. Within a group no test output is ahead by more than one.
        """
        end = 0
        while end < self.n:
            start, end = end, min(max(1, 2 * end), self.n)
            for group in self._groups():
                for sample in range(start, end):
                    for place in range(0, len(self.outputs), self.size):
                        outputs = self.outputs[place : place + self.size]
                        for model in group:
                            yield [model * self.per_model + output * self.n + sample for output in outputs]

    def _groups(self) -> list[range]:
        """Return the indices of the models of each group."""
        starts = range(0, self.models, self.models_at_once)
        return [range(start, min(start + self.models_at_once, self.models)) for start in starts]
