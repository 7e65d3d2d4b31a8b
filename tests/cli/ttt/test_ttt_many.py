"""Hundreds of task adapters through one real vLLM in one run of ``bench ttt``: about fifteen minutes of two cores."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from harness.core.augmentation import sampling_view
from harness.core.digests import content_hash
from harness.core.grid import Task
from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from harness.prompts.file_tokenizer import FileTokenizer, eos_token_ids
from harness.prompts.grid_encoder import parse_encoder
from harness.prompts.prompt_template import load_prompt
from harness.prompts.prompt_tokenizer import PromptTokenizer
from harness.runs.schemas.prediction_schema import PredictionRecord
from serve.launch.process import Server, serving
from serve.registry.store import Registry
from tests.cli.ttt.test_ttt_options import RECIPE
from tests.support.models.answer_logprobs import reference
from tests.support.runs.run_folders import load_records
from tests.support.runs.ttt_runs import Site, records
from tests.support.servers.chat_server import TINY_BASE
from tests.support.vllm.dtypes import SERVE_OPTIONS, is_exact, tolerance
from trainers.ttt.protocol import adapter_path

TASKS = 400
COMPARED = 12
"""Tasks whose answers are compared with those that PEFT computes."""
DATASET = f"toy/cross/evaluation#n={TASKS}"
GROWTH_MB = 60.0
"""Memory may grow by so much from the second quarter of the tasks to the last: 0.3 MB for each of 200 tasks, where an
adapter of this base that stays in memory takes more than 1 MB."""


@dataclass
class Watch:
    """Memory and registry while a run lasts, sampled once a second.

    Attributes:
        memory: by process (harness, trainer, server), the resident MB of it and its children after so many answers.
        registered: the largest number of names in the registry at once.
        loaded: the largest number of versions that the server had loaded at once.
    """

    memory: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    registered: int = 0
    loaded: int = 0

    def sample(self, site: Site, run: subprocess.Popen[bytes], server: int, out: Path) -> None:
        """Take one sample."""
        done = len((out / "ttt.jsonl").read_bytes().splitlines()) if (out / "ttt.jsonl").exists() else 0
        self.registered = max(self.registered, len(Registry(site.registry).names()))
        self.loaded = max(self.loaded, len(site.loaded()))
        try:
            children = psutil.Process(run.pid).children()
            trainers = [child for child in children if "trainers.ttt" in child.cmdline()]
            sizes = {
                "harness": resident_mb([psutil.Process(run.pid)]),
                "trainer": resident_mb(trainers),
                "server": resident_mb([psutil.Process(server), *psutil.Process(server).children(recursive=True)]),
            }
        except psutil.NoSuchProcess:  # the run has just ended
            return
        for name, size in sizes.items():
            if size:
                self.memory.setdefault(name, []).append((done, size))

    def growth(self, name: str, tasks: int) -> float:
        """Return by how many MB a process grew from the second quarter of the tasks to the last one (medians)."""
        second = [size for done, size in self.memory[name] if tasks / 4 <= done < tasks / 2]
        last = [size for done, size in self.memory[name] if done >= 3 * tasks / 4]
        return median(last) - median(second)


def median(sizes: list[float]) -> float:
    return sorted(sizes)[len(sizes) // 2]


def resident_mb(processes: list[psutil.Process]) -> float:
    return sum(process.memory_info().rss for process in processes) / 1e6


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A real server, and a recipe of two steps."""
    root = tmp_path_factory.mktemp("many")
    recipe = root / "recipe.yaml"
    recipe.write_text(json.dumps({**RECIPE, "ttt": {"steps": 2}, "warmup": 0}))
    with serving(TINY_BASE, root / "registry", log=root / "server.log", **SERVE_OPTIONS) as server:
        yield Site(server, root / "registry", recipe)


@pytest.mark.long
def test_hundreds_of_adapters_through_one_server(site: Site, tmp_path: Path) -> None:
    out, watch, server = tmp_path / "run", Watch(), site.server
    assert isinstance(server, Server)
    words = site.words(out, "-n", 1, dataset=DATASET)
    process = subprocess.Popen([sys.executable, "-m", "harness.cli", *words])
    while process.poll() is None:
        watch.sample(site, process, server.pid, out)
        time.sleep(1)
    assert process.returncode == 0
    done = records(out)
    assert len(done) == TASKS
    for task_id, record in done.items():
        assert (record.outcome, record.own_adapter, record.steps) == ("trained", True, 2)
        assert content_hash(adapter_path(out, task_id)) == record.digest
        assert record.answered_by.endswith(f"@{str(record.digest)[:12]}")
    assert len({record.digest for record in done.values()}) == TASKS
    assert site.is_clean()
    assert (watch.registered, watch.loaded) == (1, 1)
    assert not list(site.registry.rglob("*.safetensors"))
    growth = {name: watch.growth(name, TASKS) for name in watch.memory}
    print(f"growth from the second quarter to the last, MB: {growth}")
    assert growth.keys() == {"harness", "trainer", "server"}
    assert max(growth.values()) < GROWTH_MB, growth
    if is_exact():
        check_against_peft(out)


def check_against_peft(out: Path) -> None:
    """Check that PEFT gives a sample of the answers the log-probabilities that the server gave.

    With the adapter of another task most have another one, so that a mix-up of two would be seen.
    """
    answers = {record.task_id: record for record in load_records(out)}
    tasks = list(iterate_tasks(open_dataset(DATASET)))[:: TASKS // COMPARED]
    told_apart = 0
    for task, other in pairwise(tasks):
        answer = answers[task.id]
        if answer.finish_reason != "stop" or answer.cumulative_logprob is None:
            continue  # cut off by the limit on tokens, whose text is not the whole answer
        right, wrong = (logprob(adapter_path(out, one.id), task, answer) for one in (task, other))
        assert answer.cumulative_logprob == pytest.approx(right, abs=tolerance()), task.id
        told_apart += abs(wrong - right) > 2 * tolerance()
    assert told_apart >= COMPARED // 2


def logprob(adapter: Path, task: Task, answer: PredictionRecord) -> float:
    """Return the log-probability of an answer under an adapter, its end included."""
    tokenizer = FileTokenizer(TINY_BASE)
    made = PromptTokenizer(tokenizer, load_prompt("compact-v0"), parse_encoder("MinimalGridEncoder()"))
    seen = sampling_view(0, task.id, answer.sample_index, len(task.train)).apply_task(task)
    prompt = made.prompt_ids(seen, answer.test_index)
    assert answer.text is not None
    (end,) = eos_token_ids(TINY_BASE)
    ids = [*tokenizer.encode(answer.text, add_special_tokens=False), end]
    assert answer.n_tokens == len(ids)
    return reference(TINY_BASE, adapter)(prompt, ids)
