"""Log-probabilities of given answers to given prompts, computed by vLLM with each prompt read from the prefix cache.

An answer is scored as the end of a prompt, with ``prompt_logprobs``. A first request fills the prefix cache with the
whole blocks of the prompt; then each answer computes only the prompt's last, incomplete block and its own tokens
(``serve.server.scoring.prefix_cap``). vLLM computes the logits of every position that a request with
``prompt_logprobs`` computes, some of them all at once, so that this also keeps the logits of long prompts out of
memory.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, TypeVar
from uuid import uuid4

from serve.server.scoring.prefix_cap import CACHE_CAP, PATCHED

_T = TypeVar("_T")
_log = logging.getLogger("vllm.arc_bench")
_ANSWERS = 64
"""Answers of one request that the engine has at a time, so that other requests need not wait for all of them."""
_PROMPTS = 16
"""Prompts of one request that are scored at a time, so that their blocks are not evicted before their answers."""
_ROUNDING = 1e-3
"""How far above 0 a log-probability may be; float32 sums can exceed it a little."""
_SELF_TEST_TOLERANCE = {True: 0.05, False: 0.5}
"""How far two computations of one log-probability may be apart in the self-test, in nats: in float32 and in 16 bits,
where one step of a logit between 16 and 32 is 0.125. Memory that nobody computed is further off."""


class ScoreError(Exception):
    """The engine's output does not hold the log-probability of every token of an answer."""


@dataclass(frozen=True, slots=True)
class PromptAnswers:
    """A prompt and the answers to score after it, all as token ids; none is empty."""

    prompt: list[int]
    answers: list[list[int]]


@dataclass(frozen=True, slots=True)
class AnswerScore:
    """The log-probability of an answer's tokens given the prompt, and how many prompt tokens came from the cache."""

    logprob: float
    n_tokens: int
    n_cached: int


class AnswerScorer:
    """Scores answers with the engine of this process.

    Args:
        client: vLLM's engine client.
        adapters: vLLM's LoRARequest of each loaded version, by its id.

    Attributes:
        max_tokens: longest prompt and answer together; vLLM needs room for one more token.
        vocabulary: number of token ids.
        block: tokens of a block of the prefix cache.
        is_float32: whether the model computes in float32.
        engines: numbers of the data-parallel engines that requests can name; of one engine alone, None.
    """

    def __init__(self, client: Any, adapters: Mapping[str, Any]) -> None:
        self._client = client
        self._adapters = adapters
        self.max_tokens: int = client.model_config.max_model_len - 1
        self.vocabulary: int = client.model_config.get_vocab_size()
        self.block: int = client.vllm_config.cache_config.block_size
        self.is_float32 = str(client.model_config.dtype).endswith("float32")
        self.engines = _engine_numbers(client.vllm_config.parallel_config)
        self._turns = cycle(self.engines)

    async def score(self, model: str, prompts: Sequence[PromptAnswers]) -> list[list[AnswerScore]]:
        """Return the scores of every prompt's answers, in the order given.

        If one cannot be computed, or the caller is cancelled, the others are aborted.

        Args:
            model: id of a loaded version; any other name means the base model.

        Raises:
            ScoreError: an answer's log-probability is incomplete or not finite.
            ValueError: vLLM refuses an input.
        """
        prompt_turns, answer_turns = asyncio.Semaphore(_PROMPTS), asyncio.Semaphore(_ANSWERS)
        adapter = self._adapters.get(model)

        async def score_one(prompt: list[int], answer: list[int], engine: int | None) -> AnswerScore:
            async with answer_turns:
                return await self.score_answer(prompt, answer, adapter, engine)

        async def score_prompt(item: PromptAnswers) -> list[AnswerScore]:
            engine = next(self._turns)  # every engine has a prefix cache of its own
            async with prompt_turns:
                await self._fill_cache(item.prompt, adapter, engine)
                return await _gather([score_one(item.prompt, answer, engine) for answer in item.answers])

        return await _gather([score_prompt(item) for item in prompts])

    async def _fill_cache(self, prompt: list[int], adapter: Any, engine: int | None) -> None:
        """Compute the whole blocks that the answers of a prompt may read from the cache, unless they are cached."""
        shared = (len(prompt) - 1) // self.block * self.block
        if shared:
            # One token more: if all is cached, only that token is computed, and not the last block.
            await self._generate(prompt[: shared + 1], adapter, engine, {})

    async def score_answer(self, prompt: list[int], answer: list[int], adapter: Any, engine: int | None) -> AnswerScore:
        """Return the score of one answer, with what is cached of its prompt (raises as ``score``).

        Args:
            adapter: vLLM's LoRARequest; None for the base model.
            engine: one of ``engines``.
        """
        options = {
            "prompt_logprobs": 0,
            "skip_reading_prefix_cache": False,
            "flat_logprobs": True,
            "extra_args": {CACHE_CAP: len(prompt) - 1},
        }
        return read_score(await self._generate([*prompt, *answer], adapter, engine, options), len(prompt), answer)

    async def _generate(self, tokens: list[int], adapter: Any, engine: int | None, options: dict[str, Any]) -> Any:
        """Return vLLM's final output for a request that generates one token, which is ignored.

        Args:
            options: further sampling parameters.
        """
        from vllm import SamplingParams
        from vllm.inputs.engine import tokens_input
        from vllm.sampling_params import RequestOutputKind

        # Rows of cached positions are uninitialised: without detokenize=False their ids would reach the tokenizer.
        kind = RequestOutputKind.FINAL_ONLY
        sampling = SamplingParams(max_tokens=1, temperature=0.0, detokenize=False, output_kind=kind, **options)
        name = f"arc-score-{uuid4().hex}"
        stream = self._client.generate(
            tokens_input(tokens), sampling, name, lora_request=adapter, data_parallel_rank=engine
        )
        outputs = [output async for output in stream]
        if not outputs:
            raise ScoreError("the engine returned nothing")
        return outputs[-1]


def _engine_numbers(config: Any) -> list[int | None]:
    """Return the ranks that vLLM's input processor accepts with this ParallelConfig; [None] for one engine."""
    count = config.data_parallel_size_local if config.local_engines_only else config.data_parallel_size
    return list(range(count)) if count > 1 else [None]


async def _gather(work: Sequence[Coroutine[Any, Any, _T]]) -> list[_T]:
    """Return all results in order; when one fails or the caller is cancelled, cancel the others and wait for them."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def read_score(output: Any, prompt_length: int, answer: Sequence[int]) -> AnswerScore:
    """Return an answer's score from vLLM's output for prompt and answer together.

    Only the rows of the answer are read, counted from the end: rows of cached positions are absent from the output of
    one of vLLM's model runners, and uninitialised memory in that of the other.

    Args:
        output: vLLM's RequestOutput.

    Raises:
        ScoreError: a position of the answer was not computed, belongs to another token, or is not finite.
    """
    cached = getattr(output, "num_cached_tokens", None)
    rows = getattr(output, "prompt_logprobs", None)
    if cached is None or rows is None:
        raise ScoreError("the engine returned no log-probabilities of the prompt")
    if cached > prompt_length - 1:
        raise ScoreError(f"{cached} tokens came from the cache, more than the prompt's {prompt_length} - 1")
    first = len(rows) - len(answer)
    if first < 1:
        raise ScoreError(f"the engine returned {len(rows)} positions for an answer of {len(answer)} tokens")
    values = []
    for position, token in enumerate(answer):
        entry = (rows[first + position] or {}).get(token)
        if entry is None:
            raise ScoreError(f"the engine returned another token than the answer's at its position {position}")
        if not math.isfinite(entry.logprob) or entry.logprob > _ROUNDING:
            raise ScoreError(f"the engine returned log-probability {entry.logprob} at the answer's position {position}")
        values.append(entry.logprob)
    return AnswerScore(min(0.0, math.fsum(values)), len(answer), cached)


def prompt_rows_are_right() -> bool:
    """Return whether the logits of a prompt use its own adapter if that is on the output layer."""
    from vllm.platforms import current_platform
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    method = CPUModelRunner._get_prompt_logprobs_dict  # patched by serve.cpu.patches, also in this process
    return current_platform.is_cpu() and (hasattr(method, PATCHED) or "lora" in inspect.getsource(method))


async def verified_scorer(client: Any, adapters: Mapping[str, Any]) -> AnswerScorer | None:
    """Return a scorer if this server's engine scores answers correctly; otherwise None, with the reason in the log."""
    reason = unsuitable(client.vllm_config)
    if reason is None:
        try:
            scorer = AnswerScorer(client, adapters)
            tests = [await _self_test(scorer, engine) for engine in scorer.engines]
            reason = next((problem for problem in tests if problem is not None), None)
        except (ScoreError, ImportError, AttributeError, TypeError, ValueError) as error:
            reason = f"this version of vLLM differs from the one that was tested: {error!r}"
    if reason is not None:
        _log.warning("/arc/score is not available: %s", reason)
        return None
    _log.info("/arc/score is available")
    return scorer


def unsuitable(config: Any) -> str | None:
    """Return why a server with this VllmConfig cannot score answers; None if it can."""
    if not config.cache_config.enable_prefix_caching:
        return "prefix caching is off"
    if config.kv_transfer_config is not None:
        return "a KV connector (--kv-transfer-config) may load positions of answers, which then have no logits"
    if config.model_config.logprobs_mode.endswith("logits"):
        return f"--logprobs-mode {config.model_config.logprobs_mode} returns logits instead of log-probabilities"
    if config.cache_config.kv_sharing_fast_prefill:
        return "--kv-sharing-fast-prefill gives wrong log-probabilities of prompts"
    return None


async def _self_test(scorer: AnswerScorer, engine: int | None) -> str | None:
    """Score the end of one token sequence three times on one engine; return what is wrong, or None.

    The sequence fills one cache block. The first time nothing is cached; the second time the block must come from the
    cache and give the same result; the third answer begins with the block's last token, so that the block must be
    computed again.
    """
    block = scorer.block
    tokens = [0] * (block + 2)
    if len(tokens) > scorer.max_tokens:
        return f"the context of {scorer.max_tokens + 1} tokens is shorter than a cache block of {block} and an answer"
    scores = []
    for split, expected in ((block + 1, 0), (block + 1, block), (block, 0)):
        score = await scorer.score_answer(tokens[:split], tokens[split:], None, engine)
        if score.n_cached != expected:
            return f"{score.n_cached} instead of {expected} prompt tokens came from the cache"
        scores.append(score.logprob)
    if abs(scores[0] - scores[1]) > _SELF_TEST_TOLERANCE[scorer.is_float32]:
        return f"log-probability {scores[1]} with the cache, {scores[0]} without"
    return None
