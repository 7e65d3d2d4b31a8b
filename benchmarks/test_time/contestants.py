"""Train an adapter for each of some tasks in a process of its own, and print the cost as a line of JSON.

python -m benchmarks.test_time.contestants NAME SETTING.json FOLDER
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.core.grid import Task
from harness.data.spec import open_dataset
from trainers.data.micro_batches import Collator
from trainers.model.inputs import RecipeInputs
from trainers.recipe.schema import Recipe
from trainers.recipe.ttt_recipe import make_ttt_recipe
from trainers.run.api import open_checked
from trainers.ttt.protocol import TaskLine, write_recipe
from trainers.ttt.task_samples import open_task, sample_order


@dataclass(frozen=True)
class Setting:
    """One comparison. The first task is not timed."""

    dataset: str = "toy/cross/evaluation"
    tasks: int = 4
    steps: int = 30
    batch: int = 8
    rank: int = 16
    threads: int = 1

    def recipe_values(self) -> dict[str, Any]:
        """Return the recipe for test-time training as plain values."""
        return {
            "model": "tiny",
            "prompt": "compact-v0",
            "encoder": "MinimalGridEncoder()",
            "batch_size": self.batch,
            "max_seq_len": 2048,
            "learning_rate": 4e-3,
            "warmup": min(5, self.steps // 2),
            "dtype": "float32",
            "threads": self.threads,
            "lora": {"rank": self.rank, "alpha": 2 * self.rank},
            "ttt": {"steps": self.steps},
        }

    def recipe(self) -> Recipe:
        """Return the recipe for test-time training."""
        return make_ttt_recipe(self.recipe_values())

    def opened_tasks(self) -> list[Task]:
        """Return the tasks."""
        dataset = open_dataset(f"{self.dataset}#n={self.tasks}")
        return [dataset.task(k) for k in range(len(dataset.ids))]


@dataclass(frozen=True)
class Cost:
    """Cost of every task but the first: wall-clock and processor seconds, and the last loss."""

    wall: list[float]
    cpu: list[float]
    losses: list[float]


def by_process(setting: Setting, folder: Path) -> Cost:
    """Measure this project's trainer of tasks, from the line of a task to its adapter on disk."""
    from trainers.ttt.task_trainer import TaskTrainer

    losses: list[float] = []
    inputs = open_checked(setting.recipe(), None)
    scratch = folder / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    trainer = TaskTrainer(inputs, folder / "work", scratch, lambda line: losses.append(line.loss or 0.0))

    def train(task: Task) -> float:
        line = TaskLine.of(task)
        trainer.train_task(line, line.pairs())
        return losses[-1]

    return _timed(setting, train)


def by_loop(setting: Setting, folder: Path) -> Cost:
    """Measure a bare loop over the same micro-batches, built before the clock starts; nothing is written."""
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM, set_seed

    from trainers.model.lora import lora_config
    from trainers.run.trl_config import micro_batch_limits

    recipe = setting.recipe()
    assert recipe.lora is not None
    inputs = open_checked(recipe, None)
    torch.set_num_threads(setting.threads)
    set_seed(recipe.seed)
    model = AutoModelForCausalLM.from_pretrained(str(inputs.base), dtype=torch.float32)
    model = get_peft_model(model, lora_config(recipe.lora)).train()
    network = model.get_base_model()
    weights = [p for p in model.parameters() if p.requires_grad]
    initial = [p.detach().clone() for p in weights]
    collator = Collator(0, 1, micro_batch_limits(recipe))
    steps = {task.id: _steps(inputs, task, collator) for task in setting.opened_tasks()}

    def train(task: Task) -> float:
        with torch.no_grad():
            for weight, value in zip(weights, initial, strict=True):
                weight.copy_(value)
        optimizer = torch.optim.AdamW(weights, lr=recipe.learning_rate, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: _rate(k, recipe))
        total = 0.0
        for step in steps[task.id]:
            total = _add_gradients(network, step)
            torch.nn.utils.clip_grad_norm_(weights, recipe.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
        return total

    return _timed(setting, train)


def _add_gradients(network: Any, step: Any) -> float:
    """Add the gradients of a step's micro-batches to the weights; return the mean loss of the answers' tokens."""
    import torch

    n_answer, total = int((step["labels"] != -100).sum()), 0.0
    for part in step["micro_batches"]:
        hidden = network.model(input_ids=part["input_ids"], use_cache=False).last_hidden_state[:, :-1]
        learned = part["labels"][:, 1:] != -100
        logits = network.lm_head(hidden[learned]).float()
        targets = part["labels"][:, 1:][learned]
        loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum") / n_answer
        loss.backward()
        total += float(loss.detach())
    return total


def _rate(step: int, recipe: Recipe) -> float:
    """Return the share of the learning rate: linear warm-up and decay, as transformers computes it."""
    if step < recipe.warmup:
        return step / recipe.warmup
    return max(0.0, (recipe.max_steps - step) / (recipe.max_steps - recipe.warmup))


def _steps(inputs: RecipeInputs, task: Task, collator: Collator) -> list[Any]:
    recipe = inputs.recipe
    mixture = open_task(recipe, inputs.chat.prompt_tokens(inputs.inference_prompt), task.id, task.train)
    draws = [mixture.draw_sample(k) for k in sample_order(recipe, task.id)]
    size = recipe.batch_size
    return [collator([{"draw": d} for d in draws[k : k + size]]) for k in range(0, len(draws), size)]


def by_process_per_task(setting: Setting, folder: Path) -> Cost:
    """Measure one process per task, which loads the base and builds an ``SFTTrainer`` each time."""
    recipe = setting.recipe()

    def train(task: Task) -> float:
        work = folder / "each" / task.id
        write_recipe(work, recipe)
        line = TaskLine.of(task).model_dump_json() + "\n"
        command = [sys.executable, "-m", "trainers.ttt", str(work)]
        done = subprocess.run(command, input=line, capture_output=True, text=True, check=True)
        return float(json.loads(done.stdout.splitlines()[-2])["loss"])

    return _timed(setting, train)


def _timed(setting: Setting, train: Callable[[Task], float]) -> Cost:
    """Train all tasks and return the cost of all but the first; processes that were started are counted."""
    clocks, losses = [], []
    for task in setting.opened_tasks():
        start = time.perf_counter(), _cpu_seconds()
        losses.append(train(task))
        clocks.append((time.perf_counter() - start[0], _cpu_seconds() - start[1]))
    return Cost([wall for wall, _ in clocks[1:]], [cpu for _, cpu in clocks[1:]], losses[1:])


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


CONTESTANTS: dict[str, Callable[[Setting, Path], Cost]] = {
    "tasks": by_process,
    "loop": by_loop,
    "process": by_process_per_task,
}

if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    name, text, where = sys.argv[1:]
    print(json.dumps(asdict(CONTESTANTS[name](Setting(**json.loads(text)), Path(where)))))
