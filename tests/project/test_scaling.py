"""docs/scaling.md: the tests of its ways, and the model on paper with its arithmetic done again by hand."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.common.marked_block import replace_block
from benchmarks.scaling import figures, paper
from benchmarks.scaling.__main__ import MODULE
from benchmarks.scaling.figures import Gpu, Measured, Model, read_measured
from benchmarks.scaling.page import page

ROOT = Path(__file__).parents[2]
MEASURED = Measured(
    sample_tokens=1000,
    prompt_tokens=1000,
    answer_tokens=100,
    trainer_share=0.5,
    api_seconds=0.01,
    harness_seconds=0.001,
    load_seconds=0.5,
    hash_bytes=1e9,
)
GPU = Gpu(1e12, 1e12, training_share=0.4, prefill_share=0.5, decode_share=0.5, step_seconds=0.006, in_flight=50)
MODEL = Model("1 B", 1e9, 1e8)


def test_make_runs_the_tests_that_the_page_names() -> None:
    """And all of them exist."""
    beginning = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8").partition("\n## ")[0]
    ways = "\n".join(line for line in beginning.splitlines() if line.startswith("|"))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    listed = re.search(r"^SCALE_TESTS := ((?:.*\\\n)*.*)$", makefile, re.MULTILINE)
    assert listed is not None
    modules = re.findall(r"tests/[\w/]+\.py", listed[1])
    assert modules == re.findall(r"tests/[\w/]+\.py", ways)
    assert all((ROOT / module).is_file() for module in modules)
    assert "$(SCALE_TESTS)" in makefile.partition("\nscale-test:")[2].partition("\n\n")[0]


def test_the_page_is_what_the_script_writes() -> None:
    text = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    assert replace_block(text, page(read_measured(), Gpu()), MODULE) == text, "run python -m benchmarks.scaling"


def test_rates_by_hand() -> None:
    """0.5 · 0.4 · 1e12 / 4e9 tokens; 1000 · 2e9 / 5e11 s for a prompt, and 100 steps shared by 50 answers."""
    assert paper.training_rate(MODEL, GPU, MEASURED) == pytest.approx(50)
    step = max(2e9 / 5e11, 50 * 2e9 / 5e11) + 0.006
    assert paper.answer_seconds(MODEL, GPU, MEASURED) == pytest.approx(4 + 100 * step / 50)
    assert paper.load_seconds(MODEL, MEASURED) == pytest.approx(0.5 + 2 * 0.4)


def test_jobs_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper, "answer_seconds", lambda *_: 2.0)
    run = paper.estimate_run(8, 2, MODEL, GPU, MEASURED)
    assert run.parts == pytest.approx({"engines": 25600 * 2 / 8, "API processes": 128, "`bench run`": 25.6})
    assert (run.seconds, run.bottleneck) == (pytest.approx(6400), "engines")
    sweep = paper.estimate_sweep(60, MODEL, GPU, MEASURED)
    assert sweep.parts == pytest.approx({"training": 2 * 16_000_000 / 50, "loading": 64 * 1.3})
    tasks = paper.estimate_task_training(64, MODEL, GPU, MEASURED)
    assert tasks.parts == pytest.approx({"training": 7 * 240_000 / 50, "loading": 7 * 1.3, "answering": 7 * 64})
    assert tasks.seconds == pytest.approx(sum(tasks.parts.values()))
    assert tasks.share == pytest.approx(33600 / (33600 + 9.1 + 448))


@given(st.integers(1, 512), st.floats(1e8, 1e11), st.floats(1e-5, 1))
def test_a_bottleneck_is_what_to_move(gpus: int, weights: float, api_seconds: float) -> None:
    """Halving the cost of another part changes nothing in a run; more GPUs or servers never slow a job."""
    model, measured = Model("m", weights, weights / 100), replace(MEASURED, api_seconds=api_seconds)
    run = paper.estimate_run(gpus, 1, model, GPU, measured)
    cheaper = {
        "API processes": replace(measured, api_seconds=api_seconds / 2),
        "`bench run`": replace(measured, harness_seconds=measured.harness_seconds / 2),
    }
    for part, other in cheaper.items():
        after = paper.estimate_run(gpus, 1, model, GPU, other)
        assert (after.seconds < run.seconds) == (run.bottleneck == part)
    assert paper.estimate_run(gpus, 2, model, GPU, measured).seconds <= run.seconds
    for estimate in (paper.estimate_sweep, paper.estimate_task_training):
        more, fewer = (estimate(count, model, GPU, measured).seconds for count in (gpus + 1, gpus))
        assert more <= fewer


def test_a_page_without_a_figure_names_the_benchmark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(figures, "FOLDER", tmp_path)
    for name in {figures.source(field.name) for field in fields(Measured)}:
        (tmp_path / f"{name}.md").write_text("nothing\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"run python -m benchmarks\.trainer"):
        read_measured()
