from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.datasets import Dataset, TaskList, open_dataset
from harness.errors import ConfigError, DataError
from harness.grid import Pair, Task
from harness.rng import Stream
from tests.data_samples import random_task
from trainers.batches import IGNORED, TOKENS_A_PASS, Collator, StepRows, batch_shape, pad_samples
from trainers.checkpoints import newest_complete
from trainers.mixture import CHECK_DRAWS, Counts, Draw, Mixture, count, open_mixture
from trainers.progress import TrainingLog, read_log
from trainers.recipe import make_recipe
from trainers.tiny_tokenizer import build_tokenizer

PROMPT = "compact-v0"


@cache
def tokenizer() -> Any:
    return build_tokenizer()


def mixture(*datasets: Dataset | str, weights: Sequence[float | None] = (), seed: int = 0, **options: Any) -> Mixture:
    opened = [open_dataset(d) if isinstance(d, str) else d for d in datasets]
    options = {"encoder": "MinimalGridEncoder()", "max_seq_len": 400, **options}
    chosen = weights or [None] * len(opened)
    return open_mixture(opened, [PROMPT] * len(opened), chosen, tokenizer(), seed=seed, **options)


def mixed_lengths(seed: int = 0, **options: Any) -> Mixture:
    """A dataset in which about half the tasks do not fit, beside one that always fits."""
    tasks = [random_task(Stream("mixed", k), 1 + k % 4, 8, f"t{k}") for k in range(30)]
    return mixture(TaskList("some", tuple(tasks)), "toy/copy#n=9", seed=seed, max_seq_len=200, **options)


@given(st.integers(0, 99), st.lists(st.integers(0, 10**9), min_size=1, max_size=6))
@settings(max_examples=25)
def test_a_sample_depends_on_seed_and_index_alone(seed: int, indices: list[int]) -> None:
    there = [mixed_lengths(seed).draw(i) for i in indices]
    mix = mixed_lengths(seed)
    assert [mix.draw(i) for i in reversed(indices)] == there[::-1]


def test_seeds_differ_and_samples_are_augmented() -> None:
    one, other = ([mixture("toy/copy#n=1", seed=s).draw(i).sample.ids for i in range(20)] for s in (0, 1))
    assert one != other
    assert len({tuple(ids) for ids in one}) > 15
    plain = mixture("toy/copy#n=1", augment=False)
    assert len({tuple(plain.draw(i).sample.ids) for i in range(20)}) == 1


def test_declared_and_implicit_weights_are_realised() -> None:
    mix = mixture("toy/copy#n=30", "toy/cross#n=10", weights=[1, 3])
    assert mix.shares == [0.25, 0.75]
    share = sum(mix.source_of(i) for i in range(4000)) / 4000
    assert abs(share - 0.75) < 0.03
    assert mixture("toy/copy#n=30", "toy/cross#n=10").shares == [0.75, 0.25]


def test_skipped_samples_do_not_change_the_shares() -> None:
    mix = mixed_lengths(weights=[1, 1])
    draws = [mix.draw(i) for i in range(600)]
    some, toys = count(draws, 2)
    assert some.too_long > 100
    assert toys.too_long == 0
    assert [d.source for d in draws] == [mix.source_of(i) for i in range(600)]
    assert max(len(d.sample.ids) for d in draws) <= 200
    assert some.tokens == sum(len(d.sample.ids) for d in draws if d.source == 0)
    assert some.drawn + toys.drawn == 600


def test_trailing_pairs_are_dropped_where_asked() -> None:
    kept, dropped = count([mixed_lengths().draw(i) for i in range(200)], 2), mixed_lengths(drop_pairs=True)
    counts = count([dropped.draw(i) for i in range(200)], 2)
    assert kept[0].dropped_pairs == 0
    assert counts[0].dropped_pairs > 20
    assert counts[0].too_long < kept[0].too_long


def test_dropping_a_pair_keeps_the_others_and_the_test() -> None:
    task = random_task(Stream("one"), 4, 6, "one")
    whole = mixture(TaskList("one", (task,)), max_seq_len=10_000, augment=False).draw(0).sample
    cut = mixture(TaskList("one", (task,)), max_seq_len=len(whole.ids) - 1, augment=False, drop_pairs=True).draw(0)
    shorter = mixture(TaskList("one", (replace(task, train=task.train[:3]),)), max_seq_len=10_000, augment=False)
    assert cut.dropped_pairs == 1
    assert cut.sample == shorter.draw(0).sample


def _without_outputs(task: Task) -> Task:
    return replace(task, test=tuple(Pair(p.input, None) for p in task.test))


def test_datasets_that_cannot_supply() -> None:
    tasks = tuple(random_task(Stream("n", k), 2, 5, f"t{k}") for k in range(8))
    mixture(TaskList("half", (*tasks[:4], *map(_without_outputs, tasks[4:])))).check()
    silent = mixture(TaskList("silent", tuple(map(_without_outputs, tasks))))
    for act in (silent.check, lambda: silent.draw(0)):
        with pytest.raises(DataError, match=r"'silent' cannot supply.* had no output; use a dataset with known"):
            act()
    with pytest.raises(DataError, match=f"of {CHECK_DRAWS} draws {CHECK_DRAWS} were over 20 tokens.*raise max_seq_len"):
        mixture("toy/copy#n=9", max_seq_len=20).check()
    with pytest.raises(DataError, match="'none' has no task"):
        mixture(TaskList("none", ()), "toy/copy#n=9").check()


def test_half_answered_dataset_counts_what_it_skipped() -> None:
    tasks = tuple(random_task(Stream("n", k), 2, 5, f"t{k}") for k in range(8))
    mix = mixture(TaskList("half", (*tasks[:4], *map(_without_outputs, tasks[4:]))))
    (counts,) = count([mix.draw(i) for i in range(200)], 1)
    assert 100 < counts.no_output < 300


@given(st.integers(0, 50), st.sampled_from([1, 3, 8]))
@settings(max_examples=20)
def test_rows_of_a_step_are_its_samples_longest_first(step: int, batch: int) -> None:
    mix = mixed_lengths()
    rows = StepRows(mix, batch)
    drawn = [rows.row(step * batch + k) for k in range(batch)]
    assert sorted(d.index for d in drawn) == list(range(step * batch, (step + 1) * batch))
    lengths = [len(d.sample.ids) for d in drawn]
    assert lengths == sorted(lengths, reverse=True)
    assert drawn == StepRows(mix, batch).step(step)


def padding(steps: Sequence[Sequence[Draw]], micro: int) -> float:
    cut = [[len(d.sample.ids) for d in s[k : k + micro]] for s in steps for k in range(0, len(s), micro)]
    return 1 - sum(map(sum, cut)) / sum(max(c) * len(c) for c in cut)


def test_padding_on_real_tasks_stays_under_a_twentieth() -> None:
    mix = mixture("arc1/training", encoder="GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))", max_seq_len=4096)
    rows = StepRows(mix, 128)
    steps = [rows.step(s) for s in range(2)]
    unsorted = [sorted(step, key=lambda d: d.index) for step in steps]
    assert padding(unsorted, 8) > 0.3
    assert padding(steps, 8) < 0.05


@given(st.integers(1, 4), st.sampled_from([4, 12, 16, 48]), st.sampled_from([100, 4096, 40_000]))
def test_a_step_has_the_same_samples_on_any_number_of_processes(processes: int, batch: int, length: int) -> None:
    data = {"model": "tiny", "output_dir": "o", "max_steps": 1, "datasets": "toy/copy"}
    recipe = make_recipe({**data, "batch_size": batch, "max_seq_len": length})
    if batch % processes:
        with pytest.raises(ConfigError, match="cannot be spread"):
            batch_shape(recipe, processes)
        return
    shape = batch_shape(recipe, processes)
    assert shape.micro_batch * shape.accumulation * shape.processes == batch
    assert shape.micro_batch == 1 or shape.micro_batch * length <= TOKENS_A_PASS
    with pytest.raises(ConfigError, match="does not divide"):
        batch_shape(recipe.model_copy(update={"micro_batch_size": batch + 1}), processes)


def test_the_loss_covers_answer_and_end_of_turn_even_where_padding_is_that_token() -> None:
    mix = mixed_lengths()
    draws = [mix.draw(i) for i in range(6)]
    end = tokenizer().eos_token_id
    batch: dict[str, Any] = Collator(end, 2)([{"draw": d} for d in draws])
    longest = max(len(d.sample.ids) for d in draws)
    assert batch["input_ids"].shape == batch["labels"].shape == (6, longest)
    for k, d in enumerate(draws):
        ids, start, labels = d.sample.ids, d.sample.prompt_length, batch["labels"][k].tolist()
        assert batch["input_ids"][k].tolist() == ids + [end] * (longest - len(ids))
        assert labels == [IGNORED] * start + ids[start:] + [IGNORED] * (longest - len(ids))
        assert labels[len(ids) - 1] == end
        assert batch["attention_mask"][k].tolist() == [1] * len(ids) + [0] * (longest - len(ids))
    assert [Counts(*c) for c in batch["counts"]] == count(draws, 2)


def test_padded_shapes() -> None:
    out = pad_samples([[1, 2, 3], [4]], [2, 0], 9)
    assert out["input_ids"].tolist() == [[1, 2, 3], [4, 9, 9]]
    assert out["labels"].tolist() == [[-100, -100, 3], [4, -100, -100]]


def _checkpoint(folder: Path, step: int) -> Path:
    """A checkpoint as transformers writes it, as far as completeness goes."""
    import torch
    from safetensors.torch import save_file

    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    save_file({"w": torch.zeros(200)}, path / "adapter_model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({"step": step, "moment": torch.zeros(200)}, path / name)
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return path


TORN = ["trainer_state.json", "optimizer.pt", "scheduler.pt", "rng_state.pth", "adapter_model.safetensors"]


@pytest.mark.parametrize("name", TORN)
@pytest.mark.parametrize("share", [None, 0.0, 0.5])
def test_torn_checkpoints_are_skipped(
    tmp_path: Path, name: str, share: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    assert newest_complete(tmp_path / "none") is None
    whole, torn = _checkpoint(tmp_path, 9), _checkpoint(tmp_path, 10)
    assert newest_complete(tmp_path) == torn
    content = (torn / name).read_bytes()
    (torn / name).unlink()
    if share is not None:
        (torn / name).write_bytes(content[: int(len(content) * share)])
    assert newest_complete(tmp_path) == whole
    assert "checkpoint-10" in caplog.text


def test_log_drops_what_comes_after_the_step_it_goes_on_from(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = TrainingLog(path)
    for step in (1, 2, 3, 4):
        log.write({"step": step, "loss": 1.0})
    log.close()
    path.write_text(path.read_text()[:-5])
    assert [line["step"] for line in read_log(path)] == [1, 2, 3]
    log = TrainingLog(path, 2)
    log.write({"step": 3, "loss": 0.5})
    log.close()
    assert [(line["step"], line["loss"]) for line in read_log(path)] == [(1, 1.0), (2, 1.0), (3, 0.5)]
