"""The order of requests: every sample once, and with a deadline no test output far ahead of another."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from harness.sampling.request_order import RequestedSamples


@st.composite
def requested_samples(draw: st.DrawFn) -> RequestedSamples:
    models, n, all_outputs = draw(st.integers(1, 5)), draw(st.integers(1, 20)), draw(st.integers(1, 9))
    outputs = sorted(draw(st.sets(st.integers(0, all_outputs - 1), min_size=1)))
    at_once, size = draw(st.integers(1, 6)), draw(st.integers(1, 8))
    return RequestedSamples(models, outputs, n, all_outputs * n, at_once, size)


def place(samples: RequestedSamples, number: int) -> tuple[int, int, int]:
    """Return the model, the test output and the sample index of a number."""
    model, rest = divmod(number, samples.per_model)
    return (model, *divmod(rest, samples.n))


@given(requested_samples())
def test_both_orders_have_every_sample_once_in_blocks_of_one_model(samples: RequestedSamples) -> None:
    expected = {
        (model, output, sample)
        for model in range(samples.models)
        for output in samples.outputs
        for sample in range(samples.n)
    }
    for blocks in (list(samples.by_output()), list(samples.in_rounds())):
        places = [place(samples, number) for block in blocks for number in block]
        assert len(places) == len(expected)
        assert set(places) == expected
        assert all(0 < len(block) <= samples.size for block in blocks)
        assert all(len({place(samples, number)[0] for number in block}) == 1 for block in blocks)
    assert all(len({place(samples, number)[:2] for number in block}) == 1 for block in samples.by_output())


@given(requested_samples())
def test_rounds_can_be_cut_anywhere(samples: RequestedSamples) -> None:
    drawn = Counter({(model, output): 0 for model in range(samples.models) for output in samples.outputs})
    for block in samples.in_rounds():
        for number in block:
            model, output, sample = place(samples, number)
            assert drawn[model, output] == sample
            drawn[model, output] += 1
        for model in range(samples.models):
            counts = [drawn[model, output] for output in samples.outputs]
            assert max(counts) - min(counts) <= 1
        assert max(drawn.values()) <= max(1, 2 * min(drawn.values()))


def test_groups_of_models_change_rarely() -> None:
    samples = RequestedSamples(models=3, outputs=range(10), n=64, per_model=640, models_at_once=1, size=4)
    models = [place(samples, block[0])[0] for block in samples.in_rounds()]
    assert sum(a != b for a, b in pairwise(models)) == 3 * 7 - 1
