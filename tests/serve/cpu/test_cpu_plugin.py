"""The CPU patches: grouped operators compared with a plain loop, and patched layers with those of vLLM."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.cpu.lora_ops import (
    PromptRows,
    RowsBySlot,
    add_lora,
    apply_expand,
    apply_expand_slice,
    apply_shrink,
    group_rows,
)

SLOTS = st.lists(st.integers(-1, 3), min_size=1, max_size=12)
BATCHES = st.lists(st.tuples(st.integers(-1, 7), st.sampled_from([1, 2, 16, 17, 40])), min_size=1, max_size=8).map(
    lambda runs: [slot for slot, count in runs for _ in range(count)]
)
"""Slots of the rows of prompts and of next tokens: adapters with few rows and with many, together and apart, and in
slots side by side and far apart."""


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(SLOTS)
def test_groups_hold_every_row_of_an_adapter_once(slots: list[int]) -> None:
    groups = group_rows(torch.tensor(slots))
    rows = [(slot, row) for slot, of in groups for row in (range(len(slots)) if of is None else of.tolist())]
    assert sorted(rows) == sorted((slot, row) for row, slot in enumerate(slots) if slot >= 0)


@settings(deadline=None)
@given(BATCHES, st.integers(0, 99))
def test_a_batched_layer_equals_a_loop_over_its_rows(slots: list[int], seed: int) -> None:
    widths, inner, scale, rank = (5, 3), 7, 0.5, 2
    x, y = random(seed, len(slots), inner), random(seed + 1, len(slots), sum(widths))
    a = tuple(random(seed + 2 + i, 8, 1, rank, inner) for i in range(2))
    b = tuple(random(seed + 5 + i, 8, 1, width, rank) for i, width in enumerate(widths))
    expected = y.clone()
    for row, slot in enumerate(slots):
        if slot >= 0:
            expected[row] += torch.cat(
                [scale * bi[slot, 0] @ (ai[slot, 0] @ x[row]) for ai, bi in zip(a, b, strict=True)]
            )
    add_lora(y, x, a, b, scale, widths, RowsBySlot.of(torch.tensor(slots)))
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)


def test_an_overflow_stays_in_its_own_rows() -> None:
    a, b = torch.full((2, 1, 2, 3), 1e38), torch.ones(2, 1, 4, 2)
    a[1] = 1.0
    y = torch.zeros(3, 4)
    add_lora(y, torch.full((3, 3), 1e30), (a,), (b,), 1.0, (4,), RowsBySlot.of(torch.tensor([0, 1, -1])))
    assert torch.isinf(y[0]).all()
    torch.testing.assert_close(y[1], torch.full((4,), 6e30))
    assert (y[2] == 0).all()


def test_what_an_idle_slot_holds_changes_nothing() -> None:
    a, b = torch.ones(3, 1, 2, 3), torch.ones(3, 1, 4, 2)
    a[1] = b[1] = torch.nan
    y = torch.zeros(4, 4)
    add_lora(y, torch.ones(4, 3), (a,), (b,), 1.0, (4,), RowsBySlot.of(torch.tensor([0, 2, -1, 0])))
    torch.testing.assert_close(y, torch.tensor([6.0, 6.0, 0.0, 6.0])[:, None].expand(4, 4))


@settings(deadline=None)
@given(SLOTS, st.integers(0, 99), st.booleans())
def test_operators_do_not_change_rows_of_the_base(slots: list[int], seed: int, add: bool) -> None:
    index = torch.tensor(slots)
    base = index < 0
    x, weights = random(seed, len(slots), 6), random(seed + 1, 4, 1, 3, 6)
    shrunk = random(seed + 2, len(slots), 3)
    apply_shrink(x, weights, shrunk, index, 2.0)
    plain = 2.0 * torch.einsum("ti,tri->tr", x, weights[index.clamp_min(0), 0])
    torch.testing.assert_close(shrunk, plain.masked_fill(base[:, None], 0))
    before = random(seed + 3, len(slots), 8)
    after, sliced = before.clone(), before.clone()
    apply_expand(x, weights, after, index, add)
    apply_expand_slice(x, weights, sliced, index, 4, 3, add)
    delta = plain / 2
    for got, start in ((after, 0), (sliced, 4)):
        want = before.clone()
        columns = want[:, start : start + 3]
        want[:, start : start + 3] = torch.where(base[:, None], columns, columns + delta if add else delta)
        torch.testing.assert_close(got, want)


@given(SLOTS, st.integers(1, 5))
def test_rows_of_a_prompt_get_the_slots_of_their_tokens(slots: list[int], rows: int) -> None:
    tokens = torch.tensor(slots)
    assert PromptRows.slots(len(slots), tokens, tokens[:0]).tolist() == slots
    assert PromptRows.slots(rows, tokens[:1], tokens).tolist() == slots[:1] * rows
    for first in range(len(slots)):
        with PromptRows.start_at(first):
            assert PromptRows.slots(rows, tokens[:1], tokens).tolist() == slots[first : first + rows]


@given(st.integers(-1, 3), st.integers(0, 99), st.booleans())
def test_a_single_slot_applies_to_all_rows(slot: int, seed: int, add: bool) -> None:
    x, weights, one = random(seed, 5, 6), random(seed + 1, 4, 1, 3, 6), torch.tensor([slot])
    for apply in (apply_expand, lambda *a: apply_expand_slice(*a[:4], 0, 3, a[4])):
        got, want = (random(seed + 2, 5, 8) for _ in range(2))
        apply(x, weights, got, one, add)
        apply(x, weights, want, one.expand(5), add)
        torch.testing.assert_close(got, want)


def run_in_a_process(module: str) -> dict[str, Any]:
    """Return what a module of tests.support.vllm prints as JSON; its patches of vLLM end with its process."""
    command = [sys.executable, "-m", f"tests.support.vllm.{module}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.slow
def test_patched_layers_equal_those_of_vllm_and_do_not_change_rows_of_the_base() -> None:
    result = run_in_a_process("cpu_probe")
    assert result["still_wrong"] is False
    # In a vLLM without the defects no patch is applied.
    assert (result["in_use_when_mended"], result["replaced"]) == ([], False)
    for dtype, tolerance in (("torch.float32", 1e-5), ("torch.bfloat16", 0.02)):
        got = result[dtype]
        assert got["adapters"] < tolerance * got["size"]
        assert got["rows"] < tolerance * got["size"]
        assert got["base_mended"] == 0
        assert (got["base_stock"] > 1) == result["probes"]["base_rows_get_an_adapter"]


@pytest.mark.slow
def test_a_patch_whose_names_vllm_lacks_changes_nothing_and_warns_once() -> None:
    for name, seen in run_in_a_process("cpu_missing_names").items():
        assert seen["torn"] == [], name
        assert all(line.startswith("not patched: ") for line in seen["warnings"])
        patches = [line.partition(";")[0] for line in seen["warnings"]]
        assert len(set(patches)) == len(patches), name
