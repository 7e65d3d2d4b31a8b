"""Prompt templates: golden texts, what each shows, and the decoding of answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.core.errors import GridError, SpecError
from harness.core.grid import Grid, Pair, Task
from harness.core.random_stream import Stream
from harness.prompts.grid_encoder import DEFAULT_ENCODER, parse_encoder
from harness.prompts.prompt_template import inference_prompt, load_prompt, prompt_names
from tests.support.data_samples import random_task

GOLDEN = Path(__file__).parents[1] / "fixtures" / "prompts"
ENCODERS = (DEFAULT_ENCODER, "MinimalGridEncoder()", "GridWithSeparationEncoder('|')")
TASK = Task(
    "golden",
    (
        Pair(Grid.from_rows([[0, 1], [2, 3]]), Grid.from_rows([[4]])),
        Pair(Grid.from_rows([[5, 6, 7]]), Grid.from_rows([[8], [9]])),
    ),
    (
        Pair(Grid.from_rows([[1, 1]]), Grid.from_rows([[2, 2]])),
        Pair(Grid.from_rows([[3, 3]]), Grid.from_rows([[4, 4]])),
    ),
)


def rendered(name: str) -> str:
    prompt, encoder = load_prompt(name), parse_encoder(DEFAULT_ENCODER)
    parts = [f"<<{m.role}>>\n{m.content}\n" for m in prompt.messages(TASK, 1, encoder)]
    return "".join([*parts, f"<<assistant, the answer>>\n{prompt.answer(TASK, 1, encoder)}\n"])


def test_shipped_prompts() -> None:
    assert set(prompt_names()) >= {
        "output-from-examples-v0",
        "output-from-examples-v1",
        "input-from-inputs-v0",
        "output-from-outputs-v0",
        "compact-v0",
    }


@pytest.mark.parametrize("name", prompt_names())
def test_prompts_equal_their_golden_texts(name: str) -> None:
    """Adapters were trained on these texts. A changed text needs a new name."""
    assert rendered(name) == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", prompt_names())
@pytest.mark.parametrize("encoder_name", ENCODERS)
def test_answers_decode_and_are_not_in_the_messages(name: str, encoder_name: str) -> None:
    prompt, encoder = load_prompt(name), parse_encoder(encoder_name)
    for k in range(20):
        task = random_task(Stream("prompt", k), 3)
        text = prompt.answer(task, 0, encoder)
        assert prompt.decode(text, encoder) == prompt.answer_grid(task, 0)
        assert prompt.decode(text, encoder, lenient=True) == prompt.answer_grid(task, 0)
        other = Task(task.id, task.train, (Pair(task.test[0].input, Grid(30, 30, bytes(900))),))
        assert prompt.messages(task, 0, encoder) == prompt.messages(other, 0, encoder)


def test_prompts_show_the_grids_that_their_names_say() -> None:
    encoder = parse_encoder("MinimalGridEncoder()")
    texts = {name: "".join(m.content for m in load_prompt(name).messages(TASK, 1, encoder)) for name in prompt_names()}
    for name, text in texts.items():
        assert ("01\n23" in text) == (not name.startswith("output-from-outputs")), name
        assert ("8\n9" in text) == (not name.startswith("input-from-inputs")), name
        assert ("33" in text) == (name.startswith(("output-from-examples", "compact"))), name
        assert load_prompt(name).shows_test_input == ("33" in text)


def test_the_inference_prompt_is_the_first_that_shows_the_test_input() -> None:
    assert inference_prompt(["input-from-inputs-v0", "compact-v0", "output-from-examples-v1"]) == "compact-v0"
    assert inference_prompt(["output-from-examples-v1", "compact-v0"]) == "output-from-examples-v1"
    assert inference_prompt(["input-from-inputs-v0", "output-from-outputs-v0"]) == "input-from-inputs-v0"


def test_messages_and_headings_of_the_default_prompts() -> None:
    encoder = parse_encoder(DEFAULT_ENCODER)
    for name in ("output-from-examples-v0", "output-from-examples-v1"):
        prompt = load_prompt(name)
        roles = [m.role for m in prompt.messages(TASK, 0, encoder)]
        assert roles == ["system", "user"]
        user = prompt.messages(TASK, 0, encoder)[1].content
        assert [user.count(f"## Example {i}\n") for i in (1, 2, 3)] == [1, 1, 0]
        assert user.count("### Input\n") == 3
        assert user.index("## Test case") > user.rindex("### Output")
        assert prompt.answer(TASK, 0, encoder).startswith("### Output\n\n```grid shape: 1x2\n")


def test_a_task_without_output_has_messages_but_no_answer() -> None:
    task = Task("open", TASK.train, (Pair(TASK.test[0].input, None),))
    encoder = parse_encoder(DEFAULT_ENCODER)
    prompt = load_prompt("output-from-examples-v1")
    assert prompt.messages(task, 0, encoder) == prompt.messages(TASK, 0, encoder)
    assert not prompt.has_answer(task, 0)
    with pytest.raises(SpecError, match="task open: test 0 has no output"):
        prompt.answer(task, 0, encoder)
    assert load_prompt("input-from-inputs-v0").answer_grid(task, 0) == TASK.test[0].input


def test_decode_failures_keep_their_kind() -> None:
    prompt = load_prompt("output-from-examples-v1")
    with pytest.raises(GridError) as error:
        prompt.decode("### Output\n\n```grid shape: 1x1\n1 12\n```", parse_encoder(DEFAULT_ENCODER))
    assert error.value.kind == "bad_shape"


def test_answers_that_only_lenient_decoding_accepts() -> None:
    prompt, encoder = load_prompt("output-from-examples-v1"), parse_encoder(DEFAULT_ENCODER)
    text = "### Output\n\n```grid shape: 9x9\n1 12\n7 34"  # wrong shape, wrong row number, not closed
    assert prompt.decode(text, encoder, lenient=True) == Grid.from_rows([[1, 2], [3, 4]])
    with pytest.raises(GridError):
        prompt.decode(text, encoder)


def test_digests_differ_and_unknown_names_are_errors() -> None:
    assert len({load_prompt(name).digest for name in prompt_names()}) == len(prompt_names())
    with pytest.raises(SpecError, match="output-from-examples-v1"):
        load_prompt("output-from-examples-v9")
