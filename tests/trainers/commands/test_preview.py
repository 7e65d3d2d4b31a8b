"""``bench preview``: what the trainer will see."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.cli import cli
from harness.cli.entry import run_cli
from tests.families.make import make_family
from tests.support.data_samples import random_task, task_json
from tests.support.training.recipes import SMALL
from trainers.commands.preview import PERCENTILES, Preview, format_preview, preview
from trainers.recipe.schema import make_recipe

TOYS = [{"spec": "toy/cross#n=50", "weight": 1}, {"spec": "toy/copy#n=50", "weight": 3}]


@pytest.fixture(scope="module")
def shown() -> Preview:
    """A preview over a thousand samples of a run of three steps."""
    data = {**SMALL, "datasets": TOYS, "prompt": "compact-v0", "encoder": "MinimalGridEncoder()", "batch_size": 16}
    return preview(make_recipe(data), samples=2, draws=1000)


def test_realised_shares_are_close_to_the_declared_ones(shown: Preview) -> None:
    assert shown.drawn == 1008  # whole steps
    assert [s.declared for s in shown.sources] == [0.25, 0.75]
    assert sum(s.realised for s in shown.sources) == pytest.approx(1)
    assert shown.sources[0].realised == pytest.approx(0.25, abs=0.05)
    assert sum(s.counts.drawn for s in shown.sources) == 1008
    assert shown.dropped_share == 0


def test_percentiles_of_lengths_end_at_the_longest(shown: Preview) -> None:
    assert list(shown.percentiles) == list(PERCENTILES)
    assert list(shown.percentiles.values()) == sorted(shown.percentiles.values())
    assert shown.percentiles[100] == shown.longest_sample
    assert 1 <= shown.longest_step <= 3  # of the run, not of the draws
    assert shown.longest_sample < shown.longest_step_tokens <= 16 * shown.longest_sample


def test_the_loss_covers_the_answer_and_its_end_of_turn(shown: Preview) -> None:
    for sample in shown.samples:
        assert sample.prompt.endswith("<|im_start|>assistant\n")
        assert sample.answer.endswith("<|im_end|>")
        assert 0 < sample.answer_tokens < sample.tokens
    text = format_preview(shown)
    assert text.count("[LOSS>") == text.count("<LOSS]") == 2
    assert f"[LOSS>{shown.samples[0].answer}<LOSS]" in text
    assert "toy/copy#n=50: declared 75.0%, realised" in text


def test_outputs_in_the_loss_are_marked() -> None:
    data = {**SMALL, "datasets": TOYS, "prompt": "compact-v0", "encoder": "MinimalGridEncoder()", "loss_on": "outputs"}
    shown = preview(make_recipe(data), samples=1, draws=16)
    (sample,) = shown.samples
    text = format_preview(shown)
    turns = sample.prompt.split("<|im_start|>assistant\n")[1:-1]
    assert not turns[0].startswith("[LOSS>")
    assert all(turn.startswith("[LOSS>") and "<LOSS]<|im_end|>" in turn for turn in turns[1:])
    assert text.count("[LOSS>") == len(turns)
    assert f"{sample.tokens} tokens, the loss covers {sample.answer_tokens}\n" in text


def test_the_test_time_training_of_a_task_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "model: tiny\nprompt: compact-v0\nencoder: MinimalGridEncoder()\nttt: {leave_out: 2, samples: 20}\n"
    )
    command = ["preview", str(recipe), "--dataset", "toy/cross/evaluation#n=1", "--samples", "1"]
    assert run_cli(cli, [*command, "--set", "ttt.epochs=2"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(
        "test-time training of task cross-000000: 4 train pairs, 2 left out, 12 splits\n"
        "20 samples, 2 epochs, 3 steps; from new LoRA weights\n--- train pairs of task cross-000000"
    )
    assert text.count("[LOSS>") == 1
    assert run_cli(cli, [*command, "--json", "-"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["task_training"]["splits"], shown["task_training"]["steps"], shown["drawn"]) == (12, 2, 20)
    assert run_cli(cli, ["preview", str(recipe)]) == 2
    assert "without datasets, a recipe serves `bench ttt` and `bench preview --dataset SPEC`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datasets": [], "ttt": {}}, "'datasets' is empty; without datasets, a recipe serves `bench ttt`"),
        ({"lora": {"layers": [0]}}, "lora.layers goes with a list of modules as lora.targets"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_every_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, object], message: str
) -> None:
    recipe = tmp_path / "recipe.yaml"
    data = {"model": "tiny", "output_dir": str(tmp_path / "out"), "datasets": ["toy/copy"], "max_steps": 1, **changes}
    recipe.write_text(json.dumps(data))
    for words in (["preview"], ["train"], ["train", "--dry-run"]):
        assert run_cli(cli, [*words, str(recipe)]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_dropped_samples_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from harness.core.random_stream import Stream

    tasks = [random_task(Stream("mixed", k), 1 + k % 4, 8, f"t{k}") for k in range(30)]
    path = tmp_path / "mixed.json"
    path.write_text(json.dumps({task.id: task_json(task) for task in tasks}), encoding="utf-8")
    data = {**SMALL, "datasets": str(path), "prompt": "compact-v0", "encoder": "MinimalGridEncoder()"}
    data |= {"max_seq_len": 250, "output_dir": str(tmp_path / "out")}
    (tmp_path / "recipe.yaml").write_text(json.dumps(data), encoding="utf-8")
    assert (
        run_cli(cli, ["preview", str(tmp_path / "recipe.yaml"), "--draws", "200", "--samples", "0", "--json", "-"]) == 0
    )
    shown = json.loads(capsys.readouterr().out)
    too_long = shown["sources"][0]["counts"]["too_long"]
    assert too_long > 20
    assert shown["dropped_share"] == pytest.approx(too_long / (too_long + shown["drawn"]))
    assert shown["longest_sample"] <= 250
    assert shown["samples"] == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("family", "kwargs", "digits", "end", "stops_alone", "thinks"),
    [
        ("qwen2", {}, 1, "<|im_end|>", True, "no"),
        ("qwen3-base", {}, 1, "<|im_end|>", False, "learned"),
        ("qwen3", {"enable_thinking": False}, 1, "<|im_end|>", True, "prompt"),
        ("qwen3-thinking", {}, 1, "<|im_end|>", True, "opened"),
        ("llama3", {}, 3, "<|eot_id|>", True, "no"),
        ("gemma2", {}, 1, "<end_of_turn>", False, "no"),
        ("phi", {}, 3, "<|end|>", False, "no"),
    ],
)
def test_the_tokenizer_report_of_each_family(
    tmp_path: Path, family: str, kwargs: dict[str, object], digits: int, end: str, stops_alone: bool, thinks: str
) -> None:
    data = {**SMALL, "model": str(make_family(family, tmp_path / "base")), "datasets": "toy/cross#n=9"}
    shown = preview(make_recipe({**data, "chat_template_kwargs": kwargs, "max_seq_len": 2048}), samples=1, draws=4)
    report, text = shown.reading, format_preview(shown)
    assert (report.digits, list(report.stops.values()), report.thinks) == (digits, [end], thinks)
    assert (set(report.stops) <= set(report.eos)) == stops_alone
    assert ("one token each" if digits == 1 else "up to 3 share a token") in text
    assert f"an answer ends with {end!r}" in text
    assert any("not among the model's eos tokens" in line for line in shown.advice) != stops_alone
    assert shown.samples[0].answer.endswith(end)
