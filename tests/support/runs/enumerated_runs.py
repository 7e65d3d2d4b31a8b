"""Runs with ``--search dfs`` against a test's language model, and what brute force says about them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import orjson

from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from harness.prompts.file_tokenizer import FileTokenizer
from harness.prompts.prompt_tokenizer import PromptTokenizer
from harness.runs.folder import RunFolder
from harness.runs.logs.prediction_reader import EnumeratedView, read_views
from harness.sampling.options.run_options import RunOptions
from harness.sampling.plan import Plan, Sample
from tests.support.runs.sampling_runs import run_options, run_sampling
from tests.support.servers.chat_answers import Body
from tests.support.servers.chat_server import TINY_BASE, ChatServer
from tests.support.servers.chat_tokens import copying_model
from tests.support.servers.language_model import LanguageModel, brute_force

ROOMY = {"root": str(TINY_BASE), "max_model_len": 4096}


def enumerating_server(*, models: tuple[str, ...] = ("base", "cross"), **options: object) -> ChatServer:
    """Return a server with a language model; options are those of the server or of the model."""
    of_model = {name: options.pop(name) for name in ("max_logprobs", "spoil", "doubt") if name in options}
    make: Callable[[FileTokenizer], LanguageModel] = partial(copying_model, **of_model)
    fields: Body = {"models": dict.fromkeys(models, ROOMY), "tokens": True, "language_model": make, **options}
    return ChatServer(**fields)


def dfs_options(server: ChatServer | str, out: Path, **changes: object) -> RunOptions:
    """Return options for two models, five tasks and four views each: 40 views."""
    options = run_options(server, out, search="dfs", min_prob=0.1, max_tokens=60)
    return replace(options, **changes)  # type: ignore[arg-type]


def sample_unsure_run(out: Path) -> Path:
    """Sample an enumerated run of two models whose views have several answers each, and return its folder."""
    with enumerating_server(doubt=0.4, max_logprobs=100) as server:
        run_sampling(dfs_options(server, out, min_prob=0.05))
    return out


def views(run: Path) -> dict[tuple[str, str, int, int], EnumeratedView]:
    """Return the views of a run by key."""
    read = list(read_views(RunFolder(run).predictions_path))
    by_key = {(view.model, view.task_id, view.test_index, view.sample): view for view in read}
    assert len(by_key) == len(read)
    return by_key


def stable_lines(run: Path) -> list[dict[str, object]]:
    """Return the lines of a run's views without times, views sorted by key and the lines of a view as they are."""
    lines = [orjson.loads(line) for line in RunFolder(run).predictions_path.read_bytes().splitlines()]
    for line in lines:
        line.pop("seconds", None)
        line.get("view", {}).pop("seconds", None)
    key = ("model", "task_id", "test_index", "sample_index")
    return sorted(lines, key=lambda line: [line[name] for name in key])


def expected_answers(
    model: LanguageModel, run: Path, min_prob: float, limit: int, stops: frozenset[int] | None = None
) -> dict[tuple[str, str, int, int], dict[str, float]]:
    """Return, for every view of a run, the texts of the answers that brute force finds, with their probabilities.

    Texts of several answers add up.
    """
    expected: dict[tuple[str, str, int, int], dict[str, float]] = {}
    for sample, prompt in prompts_of(run):
        answers = brute_force(model, sample.model, prompt, min_prob, limit, stops or frozenset((model.end,)))
        texts: dict[str, float] = {}
        for tokens, probability in answers.items():
            assert abs(math.log(probability / min_prob)) > 1e-9
            text = model.tokenizer.decode(list(tokens), skip_special_tokens=True)
            texts[text] = texts.get(text, 0.0) + probability
        expected[sample.model, sample.task.id, sample.test_index, sample.sample_index] = texts
    return expected


def prompts_of(run: Path) -> list[tuple[Sample, tuple[int, ...]]]:
    """Return the samples of a run with the token ids of their prompts."""
    config = RunFolder(run).manifest().config
    plan = Plan(config, list(iterate_tasks(open_dataset(config.dataset))))
    tokenizer = FileTokenizer(TINY_BASE)
    by_format = {f: PromptTokenizer(tokenizer, f.prompt, f.encoder, settings=f.settings) for f in plan.formats.values()}
    samples = [plan.sample(number) for number in range(len(plan))]
    return [
        (s, tuple(by_format[plan.formats[s.model]].prompt_ids(s.augmentation.apply_task(s.task), s.test_index)))
        for s in samples
    ]


def answer_texts(run: Path) -> dict[tuple[str, str, int, int], dict[str, float]]:
    """Return, for every view of a run, the texts of its answers with their probabilities."""
    texts: dict[tuple[str, str, int, int], dict[str, float]] = {key: {} for key in views(run)}
    for line in RunFolder(run).predictions_path.read_bytes().splitlines():
        fields = orjson.loads(line)
        if "answer_index" in fields:
            view = texts[fields["model"], fields["task_id"], fields["test_index"], fields["sample_index"]]
            view[fields["text"]] = view.get(fields["text"], 0.0) + math.exp(fields["cumulative_logprob"])
    return texts
