"""Token ids of prompts and samples: equal to the chat template's, with and without tables, for several tokenizers."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.core.augmentation import random_view
from harness.core.errors import ConfigError, SpecError
from harness.core.grid import Grid, Pair, Task
from harness.core.random_stream import Stream
from harness.data.spec import open_dataset
from harness.prompts.grid_encoder import DEFAULT_ENCODER, parse_encoder
from harness.prompts.prompt_template import load_prompt, prompt_names
from harness.prompts.prompt_tokenizer import PromptTokenizer
from tests.families.make import make_tokenizer
from tests.support.data_samples import random_task
from trainers.tiny.tokenizer import CHATML, build_tokenizer

ENCODERS = (
    DEFAULT_ENCODER,
    "MinimalGridEncoder()",
    "GridWithSeparationEncoder('|')",
    "GridCodeBlockEncoder(RepeatNumberEncoder(3))",
    "GridShapeEncoder(ReplaceNumberEncoder(MinimalGridEncoder()))",
    "RowNumberEncoder(GridShapeEncoder(MinimalGridEncoder()))",
)
TASKS = [random_task(Stream("tokens", k), 1 + k % 6, 30 if k < 3 else 9) for k in range(24)]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tokenizer()


def _byte_level(split_digits: bool, use_regex: bool) -> Any:
    """Train a byte-level BPE that merges up to three digits, and without its regex also across line breaks."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.decoder = decoders.ByteLevel()
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    digits = pre_tokenizers.Digits(individual_digits=True)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([digits, level]) if split_digits else level
    lines = [f"{i:03d}\n{i % 7}{i % 10}{i % 3}\n" for i in range(500)]
    trainer = trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    bpe.train_from_iterator(lines, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", additional_special_tokens=["<|im_start|>"]
    )
    tokenizer.chat_template = CHATML
    return tokenizer


def _conversation(prompt: Any, task: Task, encoder: Any) -> list[dict[str, str]]:
    return [{"role": m.role, "content": m.content} for m in prompt.messages(task, 0, encoder)]


@pytest.mark.parametrize("name", prompt_names())
@pytest.mark.parametrize("encoder_name", ENCODERS)
def test_ids_equal_those_of_the_chat_template(tokenizer: Any, name: str, encoder_name: str) -> None:
    prompt, encoder = load_prompt(name), parse_encoder(encoder_name)
    fast, plain = (PromptTokenizer(tokenizer, prompt, encoder, fast=fast) for fast in (True, False))
    assert (fast.method, plain.method) == ("cells", "tokenizer")
    for task in TASKS:
        asked = _conversation(prompt, task, encoder)
        answered = [*asked, {"role": "assistant", "content": prompt.answer(task, 0, encoder)}]
        ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
        assert fast.prompt_ids(task, 0) == plain.prompt_ids(task, 0) == ids
        sample = fast.sample(task, 0)
        assert sample == plain.sample(task, 0)
        assert fast.answer_ids(task, 0) == plain.answer_ids(task, 0) == sample.ids[sample.prompt_length :]
        assert sample.ids[: sample.prompt_length] == ids
        assert tokenizer.decode(sample.ids) + "\n" == tokenizer.apply_chat_template(answered, tokenize=False)
        assert sample.ids[-1] == tokenizer.eos_token_id


def test_tables_equal_the_tokenizer_on_real_tasks(tokenizer: Any) -> None:
    dataset = open_dataset("arc1/training#n=40#seed=1")
    fast, plain = (
        PromptTokenizer(tokenizer, load_prompt("output-from-examples-v1"), parse_encoder(DEFAULT_ENCODER), fast=fast)
        for fast in (True, False)
    )
    for index in range(40):
        task = dataset.task(index)
        view = random_view(Stream("view", index), len(task.train)).apply_task(task)
        for test in range(len(task.test)):
            assert fast.sample(view, test) == plain.sample(view, test)
            assert fast.answer_ids(view, test) == plain.answer_ids(view, test)


@pytest.mark.parametrize(
    ("split_digits", "use_regex", "path"), [(True, True, "cells"), (False, True, "rows"), (False, False, "tokenizer")]
)
def test_a_table_is_used_only_if_it_agrees_with_the_tokenizer(split_digits: bool, use_regex: bool, path: str) -> None:
    tokenizer = _byte_level(split_digits, use_regex)
    prompt, encoder = load_prompt("output-from-examples-v1"), parse_encoder(DEFAULT_ENCODER)
    tokens = PromptTokenizer(tokenizer, prompt, encoder)
    assert tokens.method == path
    for task in TASKS:
        asked = _conversation(prompt, task, encoder)
        ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
        assert tokens.prompt_ids(task, 0) == ids
        assert tokens.sample(task, 0).ids == ids + tokens.answer_ids(task, 0)


GROUPING = {"llama3": "triples", "phi": "triples", "qwen3": "cells", "gemma3": "cells", "mistral": "cells"}


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from transformers import AutoTokenizer

    root = tmp_path_factory.mktemp("grouping")
    return {name: AutoTokenizer.from_pretrained(make_tokenizer(name, root / name)) for name in GROUPING}


@cache
def _both_ways(tokenizer: Any, encoder: str) -> tuple[PromptTokenizer, PromptTokenizer]:
    prompt = load_prompt("output-from-examples-v1")
    fast, plain = (PromptTokenizer(tokenizer, prompt, parse_encoder(encoder), fast=fast) for fast in (True, False))
    return fast, plain


@st.composite
def _grids(draw: st.DrawFn) -> Grid:
    height, width = draw(st.integers(1, 30)), draw(st.integers(1, 30))
    colours = draw(st.lists(st.integers(0, 9), min_size=1, max_size=3))  # few, so that runs of one colour are common
    cells = draw(st.lists(st.sampled_from(colours), min_size=height * width, max_size=height * width))
    return Grid(height, width, bytes(cells))


@pytest.mark.parametrize("name", GROUPING)
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(grids=st.lists(_grids(), min_size=4, max_size=4), encoder=st.sampled_from(ENCODERS))
def test_tables_of_grouped_digits_equal_the_tokenizer(
    families: dict[str, Any], name: str, grids: list[Grid], encoder: str
) -> None:
    fast, plain = _both_ways(families[name], encoder)
    if encoder in (DEFAULT_ENCODER, "MinimalGridEncoder()"):
        assert fast.method == GROUPING[name]
    task = Task("t", (Pair(grids[0], grids[1]),), (Pair(grids[2], grids[3]),))
    assert fast.sample(task, 0) == plain.sample(task, 0)
    assert fast.answer_ids(task, 0) == plain.answer_ids(task, 0)


def test_a_token_for_a_run_of_one_digit_rules_out_the_table_of_cells() -> None:
    """Ten sevens in a row are one token. Random grids would hardly contain them; the systematic probes do."""
    from tokenizers import AddedToken

    tokenizer = build_tokenizer()
    assert (
        PromptTokenizer(tokenizer, load_prompt("compact-v0"), parse_encoder("MinimalGridEncoder()")).method == "cells"
    )
    tokenizer.add_tokens([AddedToken("7" * 10, normalized=False)])
    tokens = PromptTokenizer(tokenizer, load_prompt("compact-v0"), parse_encoder("MinimalGridEncoder()"))
    assert tokens.method in ("rows", "tokenizer")
    grid = Grid(3, 12, bytes([7]) * 36)
    task = Task("t", (Pair(grid, grid),), (Pair(grid, grid),))
    plain = PromptTokenizer(tokenizer, load_prompt("compact-v0"), parse_encoder("MinimalGridEncoder()"), fast=False)
    assert tokens.prompt_ids(task, 0) == plain.prompt_ids(task, 0)


def test_a_token_across_a_cut_in_answers_only_rules_out_tables() -> None:
    """Prompts agree with every table here; only answers end with a full stop, which follows the last cell."""
    from tokenizers import AddedToken

    tokenizer = build_tokenizer()
    full_stop = "message['content'] + ('.' if message['role'] == 'assistant' else '') +"
    tokenizer.chat_template = CHATML.replace("message['content'] +", full_stop)
    prompt, encoder = load_prompt("output-from-examples-v1"), parse_encoder("MinimalGridEncoder()")
    assert PromptTokenizer(tokenizer, prompt, encoder).method == "cells"
    tokenizer.add_tokens([AddedToken("9.", normalized=False)])
    assert PromptTokenizer(tokenizer, prompt, encoder).method == "tokenizer"


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{ raise_exception('no system role') }}", "no system role"),
        (
            CHATML.replace("message['content']", "message['content'][:10]"),
            "cannot be trained on",
        ),  # truncates the answer
        (CHATML.replace("message['role'] +", "(loop.length ~ message['role']) +"), "with the answer it renders"),
        (CHATML.replace("<|im_end|>", ""), "no special token ends"),
        (None, "chat_template"),
    ],
)
def test_unusable_templates_are_errors(template: str | None, why: str) -> None:
    tokenizer = build_tokenizer()
    tokenizer.chat_template = template
    prompt, encoder = load_prompt("output-from-examples-v1"), parse_encoder(DEFAULT_ENCODER)
    with pytest.raises(ConfigError, match=why):
        PromptTokenizer(tokenizer, prompt, encoder).sample(TASKS[0], 0)


def test_text_of_the_template_before_the_answer_is_learned(tokenizer: Any) -> None:
    """Templates of reasoning models begin the assistant's turn with an empty thought."""
    thinking = build_tokenizer()
    thinking.chat_template = CHATML.replace(
        "message['content'] +", "(('<think></think>' if message['role'] == 'assistant' else '') + message['content']) +"
    )
    prompt, encoder = load_prompt("output-from-examples-v1"), parse_encoder(DEFAULT_ENCODER)
    sample = PromptTokenizer(thinking, prompt, encoder).sample(TASKS[5], 0)
    learned = thinking.decode(sample.ids[sample.prompt_length :])
    assert learned == "<think></think>" + prompt.answer(TASKS[5], 0, encoder) + "<|im_end|>"
    assert sample.ids[: sample.prompt_length] == PromptTokenizer(tokenizer, prompt, encoder).prompt_ids(TASKS[5], 0)


@pytest.mark.parametrize("fast", [True, False])
def test_a_task_without_output_has_a_prompt_but_no_sample(tokenizer: Any, fast: bool) -> None:
    grid = Grid.from_rows([[1]])
    task = Task("open", (Pair(grid, grid),), (Pair(grid, None),))
    encoder = parse_encoder(DEFAULT_ENCODER)
    tokens = PromptTokenizer(tokenizer, load_prompt("output-from-examples-v1"), encoder, fast=fast)
    assert tokens.prompt_ids(task, 0)
    with pytest.raises(SpecError, match="task open"):
        tokens.sample(task, 0)
    inputs = PromptTokenizer(tokenizer, load_prompt("input-from-inputs-v0"), encoder, fast=fast)
    assert inputs.sample(task, 0).prompt_length > 0
