"""Rescore runs with a test's server, and compute by hand what the file must hold."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import orjson

from harness.candidates.rescores import RESCORES_FILE
from harness.core.augmentation import sampling_view
from harness.core.grid import Pair, Task
from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from harness.predictions.rescore_source import open_rescore_source
from harness.prompts.file_tokenizer import FileTokenizer
from harness.prompts.grid_encoder import parse_encoder
from harness.prompts.prompt_template import load_prompt
from harness.prompts.prompt_tokenizer import PromptTokenizer
from harness.rescoring.options import RescoreOptions, RescoreSummary
from harness.rescoring.session import rescore
from harness.runs.folder import RunFolder
from harness.runs.schemas.manifest_schema import Manifest
from harness.sampling.progress_display import Display
from tests.support.runs.sampling_runs import QUICK_POLICY
from tests.support.servers.chat_server import TINY_BASE, ChatServer
from tests.support.servers.language_model import LanguageModel

VIEWS = 3
Key = tuple[str, str, int, str, int]
"""(scorer, task id, test index, grid as JSON, view)."""


def rescore_options(server: ChatServer | str, run: Path, **changes: object) -> RescoreOptions:
    """Return options for VIEWS views."""
    url = server if isinstance(server, str) else server.url
    options = RescoreOptions(run, (url,), views=VIEWS, policy=QUICK_POLICY)
    return replace(options, **changes)  # type: ignore[arg-type]


def run_rescore(options: RescoreOptions, output: io.StringIO | None = None) -> RescoreSummary:
    """Rescore in this process; the progress goes to ``output``."""
    return rescore(options, Display(io.StringIO() if output is None else output))


def saved_lines(run: Path) -> list[dict[str, object]]:
    """Return the lines after the header, in the order of the file."""
    return [orjson.loads(line) for line in (run / RESCORES_FILE).read_bytes().splitlines()[1:]]


def saved_logprobs(run: Path) -> dict[Key, float | None]:
    """Return the log-probabilities of a file by key; no key occurs twice."""
    lines = saved_lines(run)
    by_key = {
        (line["scorer"], line["task_id"], line["test_index"], orjson.dumps(line["grid"]).decode(), line["view"]): line[
            "logprob"
        ]
        for line in lines
    }
    assert len(by_key) == len(lines)
    return by_key  # type: ignore[return-value]


def prompts_and_answers(
    run: Path, scorer: str | None = None, views: int = VIEWS, top: int | None = None, pool: Path | None = None
) -> dict[Key, tuple[list[int], list[int]]]:
    """Return the tokens of prompt and answer of every candidate and view of a run, made by hand.

    Args:
        scorer: who rescores all candidates; None for each model itself.
        pool: a pool with this run, whose candidates are rescored.
    """
    manifest = RunFolder(run).manifest()
    tasks = {task.id: task for task in iterate_tasks(open_dataset(manifest.config.dataset))}
    tokens: dict[Key, tuple[list[int], list[int]]] = {}
    for model, outputs in open_rescore_source(run if pool is None else pool).candidates.items():
        tokenizer = make_tokenizer(manifest, scorer or model)
        for (task_id, index), grids in outputs.items():
            task = tasks[task_id]
            for grid in grids[:top]:
                for view in range(views):
                    augmentation = sampling_view(manifest.config.seed, task_id, view, len(task.train))
                    test = tuple(
                        Pair(pair.input, grid) if number == index else pair for number, pair in enumerate(task.test)
                    )
                    sample = tokenizer.sample(augmentation.apply_task(Task(task_id, task.train, test)), index)
                    key = scorer or model, task_id, index, orjson.dumps(grid.to_rows()).decode(), view
                    tokens[key] = sample.ids[: sample.prompt_length], sample.ids[sample.prompt_length :]
    return tokens


def make_tokenizer(manifest: Manifest, model: str) -> PromptTokenizer:
    """Return the tokenizer of the tiny base with the prompt of a run's model."""
    config = next(one for one in manifest.config.models if one.name == model)
    return PromptTokenizer(FileTokenizer(TINY_BASE), load_prompt(config.prompt), parse_encoder(config.encoder))


def expected_logprobs(
    language_model: LanguageModel | None, run: Path, scorer: str | None = None, top: int | None = None
) -> dict[Key, float]:
    """Return what a server with this language model must give."""
    assert language_model is not None
    tokens = prompts_and_answers(run, scorer, top=top)
    return {key: language_model.score(key[0], prompt, answer) for key, (prompt, answer) in tokens.items()}
