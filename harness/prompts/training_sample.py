"""A training sample as token ids, with the parts that are learned."""

from __future__ import annotations

from dataclasses import dataclass

from harness.prompts.token_ranges import TokenRange


@dataclass(frozen=True, slots=True)
class TrainingSample:
    """Token ids of a prompt (``ids[:prompt_length]``) and of the answer to learn (``ids[prompt_length:]``)."""

    ids: list[int]
    prompt_length: int
    learned: tuple[TokenRange, ...] = ()
    """Ranges of the prompt that are learned too, in order."""

    @property
    def loss_length(self) -> int:
        """Return the number of tokens in the loss."""
        return len(self.ids) - self.prompt_length + sum(end - start for start, end in self.learned)
