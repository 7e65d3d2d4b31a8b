"""Run one contestant in a separate process: train a few steps and print their cost as a line of JSON.

python -m benchmarks.training.contestants NAME SETTING.json FOLDER
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.training.setting import Setting, model_folder
from harness.data.spec import open_dataset
from trainers.data.micro_batches import Collator
from trainers.data.mixture import DrawnSample
from trainers.model.inputs import open_inputs, open_recipe_mixture
from trainers.model.lora import lora_config
from trainers.recipe.schema import Recipe
from trainers.run.api import train
from trainers.run.trl_config import chosen_dtype, micro_batch_limits


@dataclass(frozen=True)
class Cost:
    """Cost of the timed steps: ``tokens`` without padding, ``places`` with padding."""

    tokens: int
    places: int
    answer_tokens: int
    seconds: float
    first_loss: float
    """Of the first step, which is the same for all that take the same samples."""


def by_trainer(setting: Setting, recipe: Recipe) -> Cost:
    """Measure this project's trainer, from the recipe to the finished folder, with the costs in its own log."""
    from trainers.store.training_log import read_log

    output = train(recipe, recipe.output_dir, progress=False)
    log = read_log(output / "log.jsonl")
    timed = log[setting.warm :]
    tokens = [line["counts"][0][4] for line in timed]
    places = [n / (1 - line["padding"]) for n, line in zip(tokens, timed, strict=True)]
    answers = sum(line["counts"][0][5] for line in timed)
    return Cost(sum(tokens), round(sum(places)), answers, sum(line["seconds"] for line in timed), log[0]["loss"])


def by_loop(setting: Setting, recipe: Recipe) -> Cost:
    """Measure a bare loop over the trainer's micro-batches, built before the clock starts, with logits of answer
    tokens only.
    """
    import torch
    from peft import get_peft_model

    model, dtype = _base(recipe, setting.device)
    assert recipe.lora is not None
    model = get_peft_model(model, lora_config(recipe.lora)).to(setting.device).train()
    network = model.get_base_model()
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=recipe.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / setting.total)
    collator = Collator(0, 1, micro_batch_limits(recipe))
    draws = _draws(recipe, setting)
    steps: list[Any] = [collator([{"draw": d} for d in step]) for step in draws]
    losses, clock = [], [time.perf_counter()]
    for step in steps:
        n_answer = int((step["labels"] != -100).sum())
        loss_of_step = 0.0
        for part in step["micro_batches"]:
            ids, labels = part["input_ids"].to(setting.device), part["labels"].to(setting.device)
            with torch.autocast(setting.device, torch.bfloat16, enabled=dtype == torch.bfloat16):
                hidden = network.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
                learned = labels[:, 1:] != -100
                logits = network.lm_head(hidden[learned]).float()
                loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:][learned], reduction="sum") / n_answer
            loss.backward()
            loss_of_step += loss.detach()
        torch.nn.utils.clip_grad_norm_(weights, recipe.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss_of_step))  # waits for the device
        clock.append(time.perf_counter())
    timed = steps[setting.warm :]
    tokens = sum(len(d.sample.ids) for step in draws[setting.warm :] for d in step)
    answers = sum(int((step["labels"] != -100).sum()) for step in timed)
    places = sum(step["input_ids"].numel() for step in timed)
    return Cost(tokens, places, answers, clock[-1] - clock[setting.warm], losses[0])


def by_trl(setting: Setting, recipe: Recipe, **changed: Any) -> Cost:
    """Measure TRL's SFTTrainer with its defaults on the same samples as prompt and completion.

    Not default: ``max_length`` (1,024 would cut the answers off), accumulation to the same samples per step, and on a
    CPU
    ``bf16=False`` and ``use_cpu`` (the others also train in float32 there).
    """
    from datasets import Dataset

    tally, clock = Counter[str](), list[float]()
    trainer_class, callback = _watched(setting, tally, clock)
    base, dtype = _base(recipe, setting.device)
    tokenizer = open_inputs(recipe).chat.tokenizer
    draws = [d for step in _draws(recipe, setting) for d in step]
    texts = [(d.sample.ids[: d.sample.prompt_length], d.sample.ids[d.sample.prompt_length :]) for d in draws]
    rows = [{"prompt": tokenizer.decode(prompt), "completion": tokenizer.decode(answer)} for prompt, answer in texts]
    assert recipe.lora is not None
    trainer = trainer_class(
        model=base,
        args=_trl_arguments(setting, recipe, dtype, changed),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=lora_config(recipe.lora),
        callbacks=[callback],
    )
    trainer.train()
    seconds = clock[-1] - clock[setting.warm - 1]
    first = next(line["loss"] for line in trainer.state.log_history if "loss" in line)
    return Cost(int(tally["tokens"]), int(tally["places"]), int(tally["answers"]), seconds, first)


def _watched(setting: Setting, tally: Counter[str], clock: list[float]) -> tuple[Any, Any]:
    """Return TRL's trainer class with counters for the timed steps, and a callback that records the end of each
    step.
    """
    import torch
    from transformers import TrainerCallback
    from trl import SFTTrainer

    class Counting(SFTTrainer):  # type: ignore[misc]  # TRL ships no types
        def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
            if self.state.global_step >= setting.warm:
                tally["tokens"] += inputs["attention_mask"].sum()
                tally["places"] += inputs["input_ids"].numel()
                tally["answers"] += (inputs["labels"] != -100).sum()
            return super().training_step(model, inputs, num_items_in_batch)

    class Clock(TrainerCallback):  # type: ignore[misc]  # transformers is not followed
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if setting.device != "cpu":
                torch.cuda.synchronize()
            clock.append(time.perf_counter())

    return Counting, Clock()


def _trl_arguments(setting: Setting, recipe: Recipe, dtype: Any, changed: dict[str, Any]) -> Any:
    import torch
    from trl import SFTConfig

    on_cpu = setting.device == "cpu"
    each = SFTConfig(output_dir="unused", use_cpu=on_cpu).per_device_train_batch_size
    return SFTConfig(
        output_dir=str(recipe.output_dir),
        max_steps=setting.total,
        max_length=setting.max_seq_len,
        gradient_accumulation_steps=max(1, setting.batch // each),
        per_device_train_batch_size=min(each, setting.batch),
        report_to="none",
        use_cpu=on_cpu,
        bf16=dtype == torch.bfloat16,
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        **changed,
    )


def by_trl_without_checkpointing(setting: Setting, recipe: Recipe) -> Cost:
    """Measure SFTTrainer without gradient checkpointing, as the others train."""
    return by_trl(setting, recipe, gradient_checkpointing=False)


CONTESTANTS: dict[str, Callable[[Setting, Recipe], Cost]] = {
    "trainer": by_trainer,
    "loop": by_loop,
    "trl": by_trl,
    "trl-keep": by_trl_without_checkpointing,
}


def _base(recipe: Recipe, device: str) -> tuple[Any, Any]:
    """Return the base model as this project's trainer loads it, and its dtype."""
    import torch
    from transformers import AutoModelForCausalLM

    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    dtype = chosen_dtype(recipe)
    torch.manual_seed(recipe.seed)
    return AutoModelForCausalLM.from_pretrained(str(open_inputs(recipe).base), dtype=dtype).to(device), dtype


def _draws(recipe: Recipe, setting: Setting) -> list[list[DrawnSample]]:
    """Return the samples of each step."""
    inputs = open_inputs(recipe)
    mixture = open_recipe_mixture(inputs)
    size = setting.batch
    return [[mixture.draw_sample(i) for i in range(k * size, (k + 1) * size)] for k in range(setting.total)]


def measure(name: str, setting: Setting, folder: Path) -> dict[str, Any]:
    """Return the cost of a contestant, with the peak memory of this process and of the GPU in GB."""
    import torch

    recipe = setting.recipe(model_folder(setting.model, folder), folder / "outputs" / name)
    cost = CONTESTANTS[name](setting, recipe)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    on_gpu = torch.cuda.max_memory_allocated() / 1e9 if setting.device != "cpu" else None
    return {**asdict(cost), "samples": setting.steps * setting.batch, "peak_gb": peak, "peak_gpu_gb": on_gpu}


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    open_dataset("arc1/training")
    name, text, where = sys.argv[1:]
    print(json.dumps(measure(name, Setting(**json.loads(text)), Path(where))))
