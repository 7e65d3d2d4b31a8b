"""Show what the trainer will see: decoded samples, lengths, shares of the mixture, the longest step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.prompts.chat_template import decode_ids
from harness.prompts.grid_encoder import parse_encoder
from trainers.data.micro_batches import MicroBatchLimits, cut_micro_batches
from trainers.data.mixture import DrawnSample, Mixture, SampleCounts, count_by_source
from trainers.model.inputs import RecipeInputs, open_inputs, open_recipe_mixture, require_datasets
from trainers.model.lora import check_lora
from trainers.recipe.extras import require_train_extra
from trainers.recipe.schema import Recipe

PERCENTILES = (50, 75, 90, 95, 99, 100)


@dataclass(frozen=True)
class PreviewSample:
    """One sample as text; the loss covers ``answer``, which includes the end-of-turn token.

    With ``loss_on: outputs`` it also covers what ``prompt`` has between ``[LOSS>`` and ``<LOSS]``.
    """

    spec: str
    task_id: str
    tokens: int
    answer_tokens: int
    """Tokens in the loss."""
    prompt: str
    answer: str


@dataclass(frozen=True)
class SourceShare:
    """Declared and realised share of one dataset among the drawn samples."""

    spec: str
    declared: float
    realised: float
    counts: SampleCounts


@dataclass(frozen=True)
class TokenizerReport:
    """How tokenizer and chat template represent a sample."""

    cells: int
    """Tokens of a row of ten cells."""
    digits: int
    """Largest number of digits in one token."""
    stops: dict[int, str]
    """Tokens that end an answer, with their text."""
    eos: list[int]
    """Tokens at which the model's own files stop."""
    thinks: str
    """How the template handles thoughts: a key of ``_THOUGHTS``."""

    def as_text(self) -> str:
        """Return three lines: tokens of digits, tokens that end an answer, and how the template handles thoughts."""
        together = "one token each" if self.digits == 1 else f"up to {self.digits} share a token"
        stops = ", ".join(f"{text!r} ({token})" for token, text in self.stops.items())
        eos = ", ".join(map(str, self.eos)) or "none"
        return "\n".join(
            (
                f"digits: {together}; a row of 10 cells takes {self.cells} tokens",
                f"an answer ends with {stops}; the model's own files stop at {eos}",
                f"thoughts: {_THOUGHTS[self.thinks]}",
            )
        )


_THOUGHTS = {
    "no": "the template has none",
    "learned": "an empty one is learned with the answer",
    "prompt": "the prompt has an empty one",
    "opened": "the prompt opens one, which is learned to be closed at once",
}


@dataclass(frozen=True)
class Preview:
    """The first samples of a run; lengths in tokens."""

    samples: list[PreviewSample]
    drawn: int
    percentiles: dict[int, int]
    """Length of a sample by percentile."""
    sources: list[SourceShare]
    dropped_share: float
    """Share of all drawn samples that did not fit or had no output."""
    padding: float
    """Share of padding in the steps' micro-batches, on one process."""
    longest_step: int
    """Number of the step with the most tokens, counted from 1."""
    longest_step_tokens: int
    longest_sample: int
    reading: TokenizerReport
    advice: list[str]
    """What a user should know before training."""


def preview(recipe: Recipe, *, samples: int = 2, draws: int = 1000) -> Preview:
    """Draw the first samples of a recipe as training would, without loading the model.

    Args:
        samples: number of samples to decode.
        draws: number of samples for lengths and shares, rounded up to whole steps; those after the run's last step
            count there, but not for padding and the longest step.

    Raises:
        MissingExtraError, ConfigError, SpecError, DataError: as training would.
    """
    require_train_extra()
    require_datasets(recipe)
    check_lora(recipe)
    inputs = open_inputs(recipe)
    size = recipe.batch_size
    return preview_mixture(inputs, open_recipe_mixture(inputs), range(-(-draws // size) * size), samples)


def preview_mixture(inputs: RecipeInputs, mixture: Mixture, indices: Sequence[int], samples: int) -> Preview:
    """Return the preview of the samples with these indices, the first ``samples`` of them decoded."""
    recipe, size = inputs.recipe, inputs.recipe.batch_size
    drawn = [mixture.draw_sample(i) for i in indices]
    steps = [drawn[k : k + size] for k in range(0, len(drawn), size)][: recipe.max_steps]
    lengths = sorted(len(d.sample.ids) for d in drawn)
    counts = count_by_source(drawn, len(mixture.sources))
    n_skipped = sum(c.too_long + c.no_output for c in counts)
    totals = [sum(len(d.sample.ids) for d in step) for step in steps]
    specs = [source.dataset.spec for source in mixture.sources]
    return Preview(
        samples=[_preview_sample(specs[d.source], d, inputs.chat.tokenizer) for d in drawn[:samples]],
        drawn=len(drawn),
        percentiles={p: lengths[min(len(lengths) - 1, len(lengths) * p // 100)] for p in PERCENTILES},
        sources=[
            SourceShare(spec, declared, c.drawn / len(drawn), c)
            for spec, declared, c in zip(specs, mixture.shares, counts, strict=True)
        ],
        dropped_share=n_skipped / (n_skipped + len(drawn)),
        padding=_padding(steps, MicroBatchLimits(recipe.tokens_a_pass, recipe.micro_batch_size, recipe.max_padding)),
        longest_step=max(range(len(totals)), key=totals.__getitem__) + 1,
        longest_step_tokens=max(totals),
        longest_sample=lengths[-1],
        reading=_tokenizer_report(inputs),
        advice=list(inputs.advice),
    )


def _tokenizer_report(inputs: RecipeInputs) -> TokenizerReport:
    tokenizer, turn = inputs.chat.tokenizer, inputs.turns[0]
    row = parse_encoder(inputs.recipe.encoder).line(1, bytes(range(10)))
    pieces = [decode_ids(tokenizer, [token]) for token in tokenizer.encode(row, add_special_tokens=False)]
    has_thought = "</think>" in turn.opening
    thinks = "opened" if turn.opens_thought else "learned" if turn.learns_thought else "prompt" if has_thought else "no"
    return TokenizerReport(
        len(pieces),
        max(sum(letter.isdigit() for letter in piece) for piece in pieces),
        {token: decode_ids(tokenizer, [token]) for token in inputs.stop_token_ids},
        sorted(inputs.chat.eos_ids),
        thinks,
    )


def _preview_sample(spec: str, draw: DrawnSample, tokenizer: Any) -> PreviewSample:
    ids, start = draw.sample.ids, draw.sample.prompt_length
    prompt, end = "", 0
    for first, last in draw.sample.learned:
        prompt += decode_ids(tokenizer, ids[end:first]) + mark_loss(decode_ids(tokenizer, ids[first:last]))
        end = last
    prompt += decode_ids(tokenizer, ids[end:start])
    answer = decode_ids(tokenizer, ids[start:])
    return PreviewSample(spec, draw.task_id, len(ids), draw.sample.loss_length, prompt, answer)


def mark_loss(text: str) -> str:
    """Return a text between the marks of the loss."""
    return f"[LOSS>{text}<LOSS]"


def _padding(steps: Sequence[Sequence[DrawnSample]], limits: MicroBatchLimits) -> float:
    real = places = 0
    for step in steps:
        lengths = [len(d.sample.ids) for d in step]
        real += sum(lengths)
        places += sum(lengths[ks[0]] * len(ks) for ks in cut_micro_batches(lengths, limits))
    return 1 - real / places


def format_preview(shown: Preview) -> str:
    """Return the preview as text for people."""
    parts = []
    for s in shown.samples:
        where = "" if "[LOSS>" in s.prompt else "the last "
        parts.append(f"--- {s.spec}, task {s.task_id}: {s.tokens} tokens, the loss covers {where}{s.answer_tokens}")
        parts.append(s.prompt + mark_loss(s.answer))
    parts.append(f"--- over the first {shown.drawn} samples")
    parts.append("tokens a sample: " + ", ".join(f"{p} % ≤ {n}" for p, n in shown.percentiles.items()))
    parts.append(f"dropped: {shown.dropped_share:.1%} of all draws; padding: {shown.padding:.1%} of all places")
    parts.append(
        f"longest step: number {shown.longest_step} with {shown.longest_step_tokens} tokens; "
        f"longest sample: {shown.longest_sample} tokens"
    )
    for source in shown.sources:
        c = source.counts
        parts.append(
            f"{source.spec}: declared {source.declared:.1%}, realised {source.realised:.1%}; {c.too_long} too long, "
            f"{c.no_output} without output, {c.dropped_pairs} pairs dropped"
            + (f", {c.resplit} split again" if c.resplit else "")
            + (f", {c.changed} changed to new tasks" if c.changed else "")
        )
    parts.append(shown.reading.as_text())
    parts += [f"warning: {line}" for line in shown.advice]
    return "\n".join(parts)
