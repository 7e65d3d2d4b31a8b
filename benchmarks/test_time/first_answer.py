"""Time from the last training step of a task to its first answer by a running server."""

from __future__ import annotations

import json
import shutil
import urllib.request
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import monotonic

from benchmarks.common.store import Line
from benchmarks.test_time.contestants import Setting
from harness.cli.workflows.ttt.answering.servers import AdapterSite
from harness.cli.workflows.ttt.training.trainer import TrainerProcess
from harness.core.augmentation import sampling_view
from harness.core.grid import Task
from harness.prompts.grid_encoder import parse_encoder
from harness.prompts.prompt_template import load_prompt
from trainers.recipe.schema import Recipe
from trainers.ttt.protocol import StepLine, TaskLine, adapter_path, folder_name, write_recipe

PARTS = ("adapter written", "adapter loaded", "answer", "next answer")
"""From the last step to the trainer's reply; registered and loaded; the first answer; another one."""


def measure_first_answers(work: Path, setting: Setting) -> Line:
    """Train the tasks beside a server, and return the median seconds of each part over all tasks but the first."""
    from serve.launch.process import serving
    from serve.registry.base_model import BaseModel
    from trainers.tiny.train import shipped_path

    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    recipe, registry = setting.recipe(), work / "registry"
    write_recipe(work, recipe)
    last_steps: dict[str, float] = {}

    def show(line: StepLine) -> None:
        last_steps[line.task_id] = monotonic()

    options = {"dtype": "exact", "max_lora_rank": setting.rank}
    with serving(shipped_path(), registry, log=work / "server.log", progress=print, **options) as server:
        site = AdapterSite((server.url,), registry, BaseModel.open(shipped_path()))
        with TrainerProcess(work, work / "trainer.log", show, print) as trainer:
            rows = [_measure_task(trainer, site, work, recipe, task, last_steps) for task in setting.opened_tasks()]
    return {part: median(row[k] for row in rows[1:]) for k, part in enumerate(PARTS)}


def _measure_task(
    trainer: TrainerProcess, site: AdapterSite, work: Path, recipe: Recipe, task: Task, last_steps: dict[str, float]
) -> list[float]:
    """Train a task, load its adapter, request two of its predictions; return the seconds of each part."""
    trainer.send(TaskLine.of(task))
    trainer.wait()
    moments = [last_steps[task.id], monotonic()]
    with site.loaded(f"ttt-{folder_name(task.id)}", adapter_path(work, task.id)) as version:
        moments.append(monotonic())
        for view in range(2):
            _request_answer(site.urls[0], version, recipe, task, view)
            moments.append(monotonic())
    return [end - start for start, end in pairwise(moments)]


def _request_answer(url: str, model: str, recipe: Recipe, task: Task, view: int) -> None:
    """Request the greedy answer of a view of a task, and wait for it."""
    seen = sampling_view(0, task.id, view, len(task.train)).apply_task(task)
    messages = load_prompt(recipe.prompt).messages(seen, 0, parse_encoder(recipe.encoder))
    body = {
        "model": model,
        "messages": [{"role": message.role, "content": message.content} for message in messages],
        "temperature": 0,
        "max_tokens": 64,
    }
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=300) as reply:  # nosec B310: the address of our own server
        json.load(reply)
