"""The plan of a run: what each option changes in its samples, and the configuration that it is built from."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.data.spec import open_dataset
from harness.runs.schemas.manifest_schema import RunConfig, ServedModel
from harness.sampling.options.config_draft import ConfigDraft, load_tasks, models_at_once
from harness.sampling.options.run_options import RunOptions
from harness.sampling.plan import Plan, Sample
from tests.support.runs.sampling_runs import run_options


def draft(**changes: object) -> ConfigDraft:
    chosen = run_options("http://127.0.0.1:9", Path("unused"), **changes)
    dataset = open_dataset(chosen.dataset)
    return ConfigDraft(chosen, dataset, load_tasks(dataset, chosen.limit))


def config(**changes: object) -> RunConfig:
    return draft(**changes).complete({})[0]


def samples(**changes: object) -> list[Sample]:
    plan = Plan(config(**changes), draft(**changes).tasks)
    return [plan.sample(number) for number in range(len(plan))]


def views(drawn: list[Sample]) -> list[object]:
    return [sample.augmentation for sample in drawn]


def test_the_seed_changes_views_and_seeds() -> None:
    first, same, other = samples(), samples(), samples(seed=1)
    assert first == same
    assert sum(a == b for a, b in zip(views(first), views(other), strict=True)) < len(first) / 4
    assert {sample.seed for sample in first}.isdisjoint(sample.seed for sample in other)


def test_models_are_sampled_with_equal_views_and_seeds() -> None:
    drawn = samples()
    half = len(drawn) // 2
    for one, other in zip(drawn[:half], drawn[half:], strict=True):
        assert (one.model, other.model) == ("base", "cross")
        assert one.index_in_model == other.index_in_model
        assert (one.task, one.test_index, one.augmentation, one.seed) == (
            other.task, other.test_index, other.augmentation, other.seed,
        )  # fmt: skip


def test_samples_per_view_repeats_each_view() -> None:
    drawn = samples(samples_per_view=2, temperature=1.0)
    assert views(drawn[::2]) == views(drawn[1::2])
    assert drawn[0].augmentation != drawn[2].augmentation
    assert len({sample.seed for sample in drawn[:4]}) == 4


def test_without_augmentation_every_view_is_the_task_itself() -> None:
    for sample in samples(augment=False, temperature=1.0):
        assert sample.augmentation.apply_task(sample.task) == sample.task


def test_numbers_and_keys_belong_together() -> None:
    plan = Plan(config(), draft().tasks)
    for number in range(len(plan)):
        sample = plan.sample(number)
        assert plan.number((sample.model, sample.task.id, sample.test_index, sample.sample_index)) == number
        assert plan.true_output(number) == sample.task.test[sample.test_index].output
    assert plan.number(("base", "copy-000000", 0, 4)) is None
    assert plan.number(("base", "copy-000000", 1, 0)) is None
    assert plan.number(("other", "copy-000000", 0, 0)) is None


@pytest.mark.parametrize("lenient", [False, True])
def test_lenient_parsing_reaches_the_formats(lenient: bool) -> None:
    plan = Plan(config(lenient=lenient), draft().tasks)
    assert {format_.lenient for format_ in plan.formats.values()} == {lenient}


def test_the_runs_template_variables_override_the_models() -> None:
    manifest = {"prompt": "compact-v0", "encoder": "MinimalGridEncoder()", "chat_template_kwargs": {"a": 1, "b": 2}}
    served = {"cross": ServedModel(name="cross", **manifest)}  # type: ignore[arg-type]
    changes = {"models": ("cross",), "chat_template_kwargs": {"b": 3}}
    plan = Plan(draft(**changes).complete(served)[0], draft(**changes).tasks)
    assert plan.formats["cross"].settings.kwargs == {"a": 1, "b": 3}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 7), ("n", 3), ("temperature", 0.5), ("top_p", 0.9), ("min_p", 0.1), ("lenient", True),
        ("extra_body", {"top_k": 5}), ("chat_template_kwargs", {"a": 1}),
    ],
)  # fmt: skip
def test_an_option_is_in_the_configuration(name: str, value: object) -> None:
    assert getattr(config(**{name: value}), name) == value


def test_a_limit_and_a_prompts_options_are_in_the_configuration() -> None:
    completed = config(limit=2, max_tokens=33, encoder="RepeatNumberEncoder(2)", prompt="output-from-examples-v0")
    assert completed.task_ids == ["copy-000000", "copy-000001"]
    for model in completed.models:
        assert (model.max_tokens, model.encoder, model.prompt) == (
            33, "RepeatNumberEncoder(2)", "output-from-examples-v0",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("chosen", "max_loras", "expected"), [(None, [], 1), (None, [None, 4, 2], 2), (3, [8], 3), (None, [0], 1)]
)
def test_models_are_mixed_as_many_as_the_smallest_server_computes(
    chosen: int | None, max_loras: list[int | None], expected: int
) -> None:
    chosen_options: RunOptions = run_options("http://127.0.0.1:9", Path("unused"), models_at_once=chosen)
    served = [ServedModel(name=str(i), max_loras=count) for i, count in enumerate(max_loras)]
    assert models_at_once(chosen_options, served) == expected
