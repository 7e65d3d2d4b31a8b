"""The statistics of the project behind one name: intervals, comparisons and the gate, pure and vectorised.

    from harness.stats import compare, intervals, tasks_needed

Nothing here reads a file or knows what a task is; values come as arrays of shape (rows, tasks). docs/statistics.md
says what each of these means and what was measured about it.
"""

from __future__ import annotations

from harness.stats.gate import Gate, gate, gate_interval, gate_margin
from harness.stats.intervals import Interval, intervals, small_sample_level, wilson
from harness.stats.paired_test import Comparison, compare, holm, mcnemar, resolvable_difference, tasks_needed

__all__ = [
    "Comparison",
    "Gate",
    "Interval",
    "compare",
    "gate",
    "gate_interval",
    "gate_margin",
    "holm",
    "intervals",
    "mcnemar",
    "resolvable_difference",
    "small_sample_level",
    "tasks_needed",
    "wilson",
]
