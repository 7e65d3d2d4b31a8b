"""The comparison with other tools, as a table of figures of RESULTS.md."""

from __future__ import annotations

from dataclasses import dataclass

from harness.results.table_format import markdown_table


@dataclass(frozen=True)
class Row:
    """A row of the comparison.

    Attributes:
        what: what is measured, for readers.
        section, measured, beside: heading, first cell and third cell of the row in RESULTS.md.
        peer: what it is compared with, for readers; None: as in RESULTS.md.
        is_short: whether README.md has the row too.
    """

    what: str
    section: str
    measured: str
    beside: str
    peer: str | None = None
    is_short: bool = False


ROWS = (
    Row("asking and recording, without the model", "The harness beside the model", "bench run", "lm-eval", None, True),
    Row("the same", "The harness beside the model", "bench run", "inspect", None, True),
    Row(
        "the same", "The harness beside the model", "bench run", "bare loop, log-probabilities",
        "a bare loop that discards the answers",
    ),
    Row(
        "a run on a model of 87 M parameters", "Share of a real vLLM's throughput", "random, 87 M, completions",
        "bare client, completions", "the same requests from a bare client", True,
    ),
    Row(
        "the same", "Share of a real vLLM's throughput", "random, 87 M, completions", "`LLM.generate`, offline",
        "offline generation, without a server",
    ),
    Row("answers of 4 adapters at once", "Swapping adapters", "throughput, 4 adapters", "plain vLLM", None, True),
    Row("answers of 16 adapters at once", "Swapping adapters", "throughput, 16 adapters", "plain vLLM"),
    Row(
        "failed or wrong while 8 adapters are swapped under load", "Swapping adapters",
        "failed or wrong under swaps, 8 adapters", "plain vLLM, load in place", "plain vLLM, `load_inplace`", True,
    ),
    Row("training on one thread", "Training", "training", "`SFTTrainer`, defaults", None, True),
    Row("the same", "Training", "training", "bare loop", "a bare PyTorch loop"),
    Row(
        "training for one task", "Test-time training", "a task", "one `SFTTrainer` process per task", None, True,
    ),
    Row(
        "8 answers under 8 prompts of 4,000 tokens rescored", "Candidates", "scoring 8 × 8, prompts of 4,000",
        "`prompt_logprobs`", None, True,
    ),
    Row("160 intervals", "Intervals", "160 intervals", "one `scipy.stats.bootstrap` a cell", None, True),
    Row("scoring a million predictions", "Scoring saved predictions", "1,000,000 predictions", "plain script"),
    Row(
        "a million predictions as a data frame", "Predictions as a data frame", "1,000,000 predictions, memory",
        "plain script", "pandas and orjson",
    ),
    Row("opening a 320 MB file of tasks", "Reading BARC at size", "opened the first time", "Hugging Face datasets"),
)  # fmt: skip


def read_results(text: str) -> dict[tuple[str, str, str], list[str]]:
    """Return the first row of RESULTS.md for each heading, first and third cell, as its cells."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    heading = ""
    for line in text.splitlines():
        if line.startswith("## "):
            heading = line[3:]
        elif line.startswith("|") and len(cells := [cell.strip() for cell in line.strip("|").split(" | ")]) == 7:
            rows.setdefault((heading, cells[0], cells[2]), cells)
    return rows


def comparison(text: str, *, is_short: bool) -> str:
    """Return the comparison as a markdown table.

    Args:
        text: RESULTS.md.
        is_short: only the rows of README.md.

    Raises:
        KeyError: RESULTS.md lacks a row.
    """
    measured = read_results(text)
    lines = []
    for row in ROWS:
        if row.is_short or not is_short:
            _, ours, beside, value, ahead, *_ = measured[row.section, row.measured, row.beside]
            times = ahead.partition(" ")[0]
            lines.append([row.what, ours, row.peer or beside, value, times])
    return markdown_table(["what is measured", "arc-bench", "compared with", "its figure", "times ahead"], lines)
