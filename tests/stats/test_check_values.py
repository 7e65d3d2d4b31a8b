"""Published values that the statistics must reproduce, and a test that they do no input or output."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from harness.stats.intervals import intervals
from harness.stats.paired_test import compare
from harness.stats.sign_tests import mcnemar
from harness.voting.subset_curves import pass_at_k, vote_at_m
from tests.conftest import ROOT
from tests.support.data_samples import solved_and_unsolved


def test_the_check_values() -> None:
    votes = vote_at_m(2, [2, 1], 1, [3, 6])
    np.testing.assert_allclose(votes, [[0.41667, 0.5], [0.73333, 1.0]], atol=5e-6)
    assert pass_at_k(8, [2], [4])[0, 0] == pytest.approx(0.785714, abs=5e-7)
    result = intervals(solved_and_unsolved(94, 400))[0]
    assert (result.low, result.high) == (0.1950, 0.2775)
    zeros_first = intervals(solved_and_unsolved(94, 400)[::-1])[0]
    assert (zeros_first.low, zeros_first.high) != (0.1950, 0.2775)
    difference = compare(solved_and_unsolved(94, 400), np.zeros(400))[0]
    assert (difference.low, difference.high) == (0.1925, 0.2775)
    assert mcnemar(12, 4) == pytest.approx(0.076813, abs=5e-7)
    assert intervals(np.zeros(50))[0].high == pytest.approx(0.071, abs=5e-4)


def test_the_statistics_do_no_input_or_output_and_import_no_heavy_package() -> None:
    code = """
import sys
import numpy as np
import harness.stats.gate
from harness.stats.intervals import intervals
from harness.stats.paired_test import compare
from harness.voting.metrics import average_outputs, score_votes
from harness.voting.ranking import Vote
from harness.voting.subset_curves import vote_at_m
from harness.core.grid import Grid
print(sorted({"click", "aiohttp", "torch", "pydantic", "orjson", "scipy", "pandas"} & set(sys.modules)))

def work():
    a, b = np.linspace(0, 1, 60), np.linspace(1, 0, 60)
    intervals([a, b], 59, resamples=199)
    compare(a, b, 59, resamples=199)
    vote_at_m(2, [2, 1], 1, [3, 6])
    grid = Grid(1, 1, b"\\1")
    average_outputs({"t": [score_votes([Vote(grid)], grid, 2)]})

work()  # imports of scipy's parts happen once
events = []
sys.addaudithook(lambda event, args: events.append(event) if event.split(".")[0] in ("open", "socket", "os") else None)
work()
print(events)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n[]\n"
