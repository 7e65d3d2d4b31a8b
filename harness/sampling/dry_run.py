"""Estimate what a run would request, with its servers and without sampling (``bench run --dry-run``)."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from math import floor
from statistics import fmean

from harness.client.protocol.request import TokenRequest
from harness.data.spec import open_dataset
from harness.runs.folder import RunFolder
from harness.runs.schemas.view_schema import SearchConfig
from harness.sampling.options.config_draft import ConfigDraft, run_tasks
from harness.sampling.options.run_options import RunOptions
from harness.sampling.progress_display import Display
from harness.sampling.requests.api_selection import RunSetup, negotiate_setup
from harness.sampling.session import open_servers

_MEASURED_PROMPTS = 64


@dataclass(frozen=True)
class RunEstimate:
    """The size of a run. Token counts are None where prompts are sent as chats, which the server tokenizes."""

    models: int
    outputs: int
    n: int
    search: SearchConfig | None
    prompt_tokens: float | None
    """Mean over prompts that are spread over the run."""
    answer_tokens: float | None
    """Mean over the right answers of these prompts, with the end of the turn; None if none is known."""
    longest_answer: int
    """The limit on an answer's tokens."""
    looks: tuple[int, ...] = ()
    """Numbers of tasks after which the run may end."""

    @property
    def views(self) -> int:
        """Number of predictions, or of views with ``--search dfs``."""
        return self.models * self.outputs * self.n

    def text(self) -> str:
        """Return the estimate as lines for the user."""
        noun = "predictions" if self.search is None else "views"
        models = f"{self.models} {'model' if self.models == 1 else 'models'}"
        lines = [f"{self.views} {noun}: {models}, {self.outputs} test outputs, {self.n} each"]
        fewest, most = self.views, self.views
        if self.search is not None:
            per_view = self.search.max_answers or floor(1 / self.search.min_prob + 1e-9)
            most = self.views * max(1, per_view)
            lines.append(
                f"completions: {fewest} (one for each view) to about {most} (one for each answer, at most {per_view} "
                "of a view)"
            )
        if self.prompt_tokens is not None:
            lines.append(
                f"prompt tokens: {self.prompt_tokens:.0f} each, {fewest * self.prompt_tokens:.0f} in all"
                + ("" if most == fewest else " (further completions of a view read its prompt from a prefix cache)")
            )
        if self.looks:
            lines.append(
                f"at most: the models are compared after every {self.looks[0]} tasks, and the run may end there"
            )
        lines.append(f"generated tokens: {self._generated(fewest, most)}")
        return "\n".join(lines)

    def _generated(self, fewest: int, most: int) -> str:
        """Return the generated tokens in words."""
        if self.answer_tokens is None:
            return f"at most {self.longest_answer} for each completion (--max-tokens)"
        low, high = fewest * self.answer_tokens, most * self.answer_tokens
        span = f"{low:.0f}" if most == fewest else f"{low:.0f} to {high:.0f}"
        return f"about {span}, by right answers of {self.answer_tokens:.0f} tokens"


def estimate_run(options: RunOptions, display: Display | None = None) -> RunEstimate:
    """Check a run's options with its servers, and return what it would request. Nothing is written.

    Raises:
        ConfigError, RunError, ServerError: as ``sample_run`` before its first request.
    """
    options.check()
    RunFolder(options.out).check_free(options.resume)
    return asyncio.run(_estimate(options, display or Display()))


async def _estimate(options: RunOptions, display: Display) -> RunEstimate:
    """Connect to the servers and settle the configuration; see ``estimate_run``."""
    dataset = open_dataset(options.dataset)
    tasks = run_tasks(options, dataset)
    async with AsyncExitStack() as stack:
        servers = await open_servers(options, display, stack)
        setup = await negotiate_setup(ConfigDraft(options, dataset, tasks), servers)
    for warning in setup.warnings:
        display.notice(f"warning: {warning}")
    config = setup.config
    prompt_tokens, answer_tokens = _measure(setup)
    return RunEstimate(
        models=len(config.models),
        outputs=setup.plan.per_model // config.n,
        n=config.n,
        search=config.search,
        prompt_tokens=prompt_tokens,
        answer_tokens=answer_tokens,
        longest_answer=max(model.max_tokens for model in config.models),
        looks=() if config.sequential is None else tuple(config.sequential.looks),
    )


def _measure(setup: RunSetup) -> tuple[float | None, float | None]:
    """Return the mean tokens of prompts, and of right answers with the end of their turn, where they are known."""
    plan, builder = setup.plan, setup.builder
    prompts: list[int] = []
    answers: list[int] = []
    for number in range(0, len(plan), -(-len(plan) // _MEASURED_PROMPTS)):
        sample = plan.sample(number)
        if not isinstance(request := builder.build_request([sample]), TokenRequest):
            return None, None
        prompts += map(len, request.prompts)
        length = builder.right_answer_tokens(sample)
        answers += [] if length is None else [length]
    return fmean(prompts), fmean(answers) if answers else None
