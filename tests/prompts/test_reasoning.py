"""The answer in a model's text: after the last thought, without special tokens around it."""

from __future__ import annotations

from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.errors import GridError
from harness.core.grid import Grid, Pair, Task
from harness.prompts.grid_encoder import parse_encoder
from harness.prompts.prompt_template import load_prompt
from harness.prompts.reasoning import ends_in_thought, extract_answer

GRID, DRAFT = Grid.from_rows([[1, 2, 3], [4, 5, 6]]), Grid.from_rows([[7, 7], [7, 7]])
TASK = Task("t", (Pair(GRID, GRID),), (Pair(GRID, GRID),))
ENCODERS = (
    "MinimalGridEncoder()",
    "GridCodeBlockEncoder(MinimalGridEncoder())",
    "GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))",
    "GridWithSeparationEncoder('|')",
    "ReplaceNumberEncoder(MinimalGridEncoder())",
)
THOUGHTS = (
    "<think>\n\n</think>\n\n",
    "<think>\n{draft}\n</think>\n\n",
    "{draft}\nso:</think>\n",  # R1's prompt ends with the opening
    "<think>{draft}</think>\n<think>again\n{draft}</think>\n\n",
    "<thinking>{draft}</thinking>\n",
    "<seed:think>{draft}</seed:think>",
    "[THINK]{draft}[/THINK]",
    "◁think▷{draft}◁/think▷",
    "<|channel|>analysis<|message|>{draft}<|end|><|start|>assistant<|channel|>final<|message|>",
    "<|channel>thought\n{draft}<channel|>",
    "\n\n",  # the server has removed the thought
)
ENDS = (
    "",
    "<|im_end|>",
    "</s>",
    "<|eot_id|>\n",
    "<end_of_turn>\n<eos>",
    "<｜end▁of▁sentence｜>",
    " \n\t",
    "<|return|>",
)


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("thought", THOUGHTS)
def test_the_grid_after_the_thoughts_is_decoded_not_a_draft(thought: str, encoder: str, lenient: bool) -> None:
    for name in ("output-from-examples-v1", "compact-v0"):
        prompt, grids = load_prompt(name), parse_encoder(encoder)
        for end in ENDS:
            text = thought.replace("{draft}", grids.encode(DRAFT)) + prompt.answer(TASK, 0, grids) + end
            assert prompt.decode(text, grids, lenient=lenient) == GRID, (name, text)


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("opening", ["<think>\n", "<think>", "[THINK]", "<think>no</think>\n<think>\n"])
def test_an_open_thought_is_unparsed(opening: str, encoder: str, lenient: bool) -> None:
    prompt, grids = load_prompt("compact-v0"), parse_encoder(encoder)
    text = opening + grids.encode(DRAFT)
    assert ends_in_thought(text)
    with pytest.raises(GridError, match="not closed") as caught:
        prompt.decode(text, grids, lenient=lenient)
    assert caught.value.kind == "unparsed"


@given(st.text(st.sampled_from("0123456789|\n `grids:x<>"), max_size=200))
def test_text_without_marks_is_only_stripped(text: str) -> None:
    if ">" not in text:
        assert extract_answer(text) == text.strip()


@pytest.mark.parametrize(
    "text", ["<" + " " * 100_000 + "x", "<s> " * 20_000 + "x", "x" + "<s> " * 5_000, "<|a" * 30_000]
)
def test_hostile_answers_take_linear_time(text: str) -> None:
    start = process_time()
    extract_answer(text)
    assert process_time() - start < 2
