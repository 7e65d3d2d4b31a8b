"""Evaluate a model on held-out tasks: loss per answer token, and the share of exact grids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.core.errors import DataError, GridError
from harness.core.grid import Grid
from harness.data.dataset import Dataset, iterate_tasks
from harness.prompts.prompt_tokenizer import PromptTokenizer
from harness.prompts.training_sample import TrainingSample
from trainers.data.micro_batches import IGNORED, pad_samples

EXTRA_TOKENS = 8
"""Tokens by which a generated answer may be longer than the true one."""


@dataclass(frozen=True)
class ValidationTask:
    """One held-out sample with its true answer."""

    sample: TrainingSample
    answer: Grid


@dataclass(frozen=True)
class Validation:
    """Held-out tasks, in the order of their dataset."""

    tasks: Sequence[ValidationTask]
    exact: int
    """Number of tasks, from the first on, for which an answer is also generated."""
    tokens: PromptTokenizer
    pad_id: int
    micro_batch: int
    """Samples in one forward pass."""
    skipped: int = 0
    """Tasks of the dataset that were skipped: no known output, or too long."""
    eos_ids: frozenset[int] = frozenset()
    """Tokens at which a server stops, besides the end of turn of the chat template."""

    def as_text(self) -> str:
        """Return one line with the number of tasks and of skipped ones."""
        exact = f", {min(self.exact, len(self.tasks))} of them for the exact grid" if self.exact else ""
        return f"validation: {len(self.tasks)} tasks{exact}; {self.skipped} have no known output or are too long"

    def heaviest_batches(self, processes: int) -> Iterator[Validation]:
        """Yield the validations that need most memory: one with the longest samples, one with the longest answer.

        Each holds as many copies as there are processes, so that every process gets one.
        """
        longest = sorted(self.tasks, key=lambda q: -len(q.sample.ids))[: self.micro_batch]
        yield replace(self, tasks=[q for q in longest for _ in range(processes)], exact=0)
        if self.exact:
            to_generate = max(self.tasks[: self.exact], key=lambda q: len(q.sample.ids))
            yield replace(self, tasks=[to_generate] * processes, exact=processes)

    def evaluate_model(self, model: Any, accelerator: Any) -> dict[str, float]:
        """Return ``loss`` and, if answers are generated, ``exact``: the share of them that equal the true grid.

        The loss is the mean over all answer tokens, in nats. All processes must take part; each evaluates its share of
        the tasks.
        """
        import torch

        was_training = model.training
        model.eval()
        local_tasks = self.tasks[accelerator.process_index :: accelerator.num_processes]
        to_generate = self.tasks[: self.exact][accelerator.process_index :: accelerator.num_processes]
        with torch.no_grad():
            total, n_tokens = self._loss(model, local_tasks, accelerator.device)
            right = self._exact(model, to_generate, accelerator.device)
        sums = torch.tensor([total, n_tokens, right, len(to_generate)], device=accelerator.device, dtype=torch.float64)
        total, n_tokens, right, n_asked = accelerator.reduce(sums, "sum").tolist()
        if was_training:
            model.train()
        values = {"loss": total / n_tokens}
        if n_asked:
            values["exact"] = right / n_asked
        return values

    def _loss(self, model: Any, tasks: Sequence[ValidationTask], device: Any) -> tuple[float, int]:
        """Return (sum of the negative log-probabilities, number) of the answer tokens."""
        from trainers.model.output_layer_loss import has_adapted_head, summed_answer_loss

        total, n_tokens, adapted = 0.0, 0, has_adapted_head(model)
        samples = sorted((q.sample for q in tasks), key=lambda s: len(s.ids))
        for k in range(0, len(samples), self.micro_batch):
            batch = pad_samples(samples[k : k + self.micro_batch], self.pad_id)
            batch = {name: value.to(device) for name, value in batch.items()}
            if adapted:
                total += float(summed_answer_loss(model, batch))
                n_tokens += int((batch["labels"] != IGNORED).sum())
                continue
            out = model(**batch, use_cache=False, fused_lm_head=True)
            total -= float(out.log_probs.double().sum())
            n_tokens += int(out.label_mask.sum())
        return total, n_tokens

    def _exact(self, model: Any, tasks: Sequence[ValidationTask], device: Any) -> int:
        """Return how many answers equal the true grid. Each is generated alone, without padding."""
        import torch

        right = 0
        for task in tasks:
            ids = torch.tensor([task.sample.ids[: task.sample.prompt_length]], device=device)
            room = len(task.sample.ids) - task.sample.prompt_length + EXTRA_TOKENS
            out = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=room,
                do_sample=False,
                # Some models' own settings (Qwen's) penalise repetition, which ruins grids.
                repetition_penalty=1.0,
                no_repeat_ngram_size=0,
                eos_token_id=self._stops(task),
                pad_token_id=self.pad_id,
            )
            right += self._is_answer(out[0, ids.shape[1] :].tolist(), task)
        return right

    def _stops(self, task: ValidationTask) -> list[int]:
        """Return the tokens at which a server ends an answer."""
        return sorted({*self.eos_ids, task.sample.ids[-1]})

    def _is_answer(self, ids: Sequence[int], task: ValidationTask) -> bool:
        """Return whether a generated answer ended and equals the true grid.

        The text is decoded without special tokens, as a server returns it.
        """
        stops = self._stops(task)
        end = next((k for k, token in enumerate(ids) if token in stops), None)
        if end is None:
            return False
        text = str(
            self.tokens.tokenizer.decode(ids[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )
        try:
            return self.tokens.prompt.decode(text, self.tokens.encoder) == task.answer
        except GridError:
            return False


def open_validation(
    dataset: Dataset,
    tokens: PromptTokenizer,
    *,
    max_tasks: int,
    exact_tasks: int,
    max_seq_len: int,
    pad_id: int,
    eos_ids: frozenset[int] = frozenset(),
) -> Validation:
    """Return the first tasks of a dataset that have a known answer and fit.

    Args:
        max_tasks: number of tasks at most.
        exact_tasks: number of them for which an answer is also generated.

    Raises:
        DataError: no task has a known output and fits.
    """
    tasks: list[ValidationTask] = []
    skipped = 0
    for task in iterate_tasks(dataset):
        has_answer = bool(task.test) and tokens.prompt.has_answer(task, 0)
        answer = tokens.prompt.answer_grid(task, 0) if has_answer else None
        sample = None if answer is None else tokens.sample(task, 0)
        if answer is None or sample is None or len(sample.ids) > max_seq_len:
            skipped += 1
            continue
        tasks.append(ValidationTask(sample, answer))
        if len(tasks) == max_tasks:
            break
    if not tasks:
        raise DataError(f"validation {dataset.spec!r}: no task with a known output fits in {max_seq_len} tokens")
    micro = max(1, 16_384 // max_seq_len)
    return Validation(tasks, exact_tasks, tokens, pad_id, micro, skipped, eos_ids)
