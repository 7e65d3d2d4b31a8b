"""The statistics of the project behind one name: curves, intervals, comparisons and the gate, pure and vectorised.

    from harness.stats import compare, intervals, tasks_needed

Nothing here reads a file or knows what a task is; values come as arrays of shape (rows, tasks). docs/statistics.md
says what each of these means and what was measured about it.
"""

from __future__ import annotations

from harness.comparison import Comparison, compare, holm, mcnemar, resolvable_difference, tasks_needed
from harness.curves import curve_points, pass_at_k, vote_at_m
from harness.gate import Gate, gate, gate_interval, gate_margin
from harness.intervals import Interval, intervals, small_sample_level, wilson

__all__ = [
    "Comparison",
    "Gate",
    "Interval",
    "compare",
    "curve_points",
    "gate",
    "gate_interval",
    "gate_margin",
    "holm",
    "intervals",
    "mcnemar",
    "pass_at_k",
    "resolvable_difference",
    "small_sample_level",
    "tasks_needed",
    "vote_at_m",
    "wilson",
]
