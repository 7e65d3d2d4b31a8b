"""The cost of a task: a run's time and GPUs at a price, divided among its models and tasks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.runs.environment import now
from reports.loading.loaded_run import load_run
from reports.loading.prices import GpuPrice, dollars
from reports.loading.runs import load_sections
from reports.plots.costs import costs_by_model, costs_figure
from reports.plots.style import styled
from reports.sections.provenance import provenance
from reports.sections.tables import cost
from tests.support.commands import run_bench
from tests.support.runs.run_folders import MakeRun, edit_manifest
from tests.support.runs.trained_runs import base_run, trained_run

SPEC = "toy/cross/evaluation#n=4"


def test_a_run_costs_its_time_on_its_gpus(make_run: MakeRun) -> None:
    path = make_run("run", SPEC, {"a": 0.5, "b": 0.7}, 4)  # a minute, by its manifest; 16 requests of 0.25 s each
    run = load_run(path, "run")
    assert GpuPrice(3.0).task_dollars(run, "a") == pytest.approx(3.0 / 60 / 2 / 4)
    assert GpuPrice(3.0, gpus=8).task_dollars(run, "b") == pytest.approx(8 * 3.0 / 60 / 2 / 4)
    edit_manifest(path, servers=["http://127.0.0.1:1", "http://127.0.0.1:2"])
    two = load_run(path, "run")
    assert GpuPrice(3.0).task_dollars(two, "a") == pytest.approx(2 * 3.0 / 60 / 2 / 4)
    assert GpuPrice(3.0).task_dollars(two, "nobody") is None


def test_models_share_the_time_by_the_seconds_of_their_requests(make_run: MakeRun) -> None:
    path = make_run("run", SPEC, {"a": 0.5, "b": 0.7}, 4)
    lines = (path / "predictions.jsonl").read_text().splitlines(keepends=True)
    slow = [line.replace('"seconds":0.25', '"seconds":0.75') if '"model":"b"' in line else line for line in lines]
    (path / "predictions.jsonl").write_text("".join(slow))
    run = load_run(path, "run")
    costs = [GpuPrice(7.0).task_dollars(run, model) or 0.0 for model in "ab"]
    assert costs[1] == pytest.approx(3 * costs[0])
    assert 4 * sum(costs) == pytest.approx(7.0 / 60)


@pytest.mark.parametrize(
    "changes",
    [{"finished": None}, {"resumed": ["2026-01-01T00:00:30+00:00"]}, {"finished": "2026-01-01T00:00:00+00:00"}],
)
def test_the_cost_of_an_interrupted_run_is_unknown(make_run: MakeRun, changes: dict[str, object]) -> None:
    path = make_run("run", SPEC, {"a": 0.5}, 4)
    edit_manifest(path, **changes)
    assert GpuPrice(3.0).task_dollars(load_run(path, "run"), "a") is None


def test_a_run_of_less_than_a_second_has_a_cost(make_run: MakeRun) -> None:
    """As the demo's smallest one: times are recorded to the millisecond, and printed to the second."""
    path = make_run("run", SPEC, {"a": 0.5}, 4)
    edit_manifest(path, started="2026-01-01T00:00:07.600+00:00", finished="2026-01-01T00:00:07.900+00:00")
    run = load_run(path, "run")
    assert GpuPrice(3600.0).task_dollars(run, "a") == pytest.approx(0.3 / 4)
    assert "2026-01-01T00:00:07+00:00 to 2026-01-01T00:00:07+00:00" in "\n".join(provenance([run]))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", now())


@given(st.floats(1e-9, 1e9))
def test_an_amount_keeps_two_digits(amount: float) -> None:
    text = dollars(amount)
    assert re.fullmatch(r"\$[\d,]+\.\d{2,}", text)
    assert float(text[1:].replace(",", "")) == pytest.approx(amount, rel=0.051, abs=0.0)


def test_amounts_are_written_without_an_exponent() -> None:
    assert [dollars(x) for x in (0.0, 12.3, 1234.5, 0.0045, 0.000012)] == [
        "$0.00", "$12.30", "$1,234.50", "$0.0045", "$0.000012",
    ]  # fmt: skip


def test_the_plot_has_a_point_for_each_model_with_a_known_cost(make_run: MakeRun) -> None:
    first = make_run("first", SPEC, {"a": 0.5, "b": 0.9}, 4)
    second = make_run("second", "toy/diagonal/evaluation#n=3", {"a": 0.2, "c": 0.9}, 4)
    unfinished = make_run("third", "toy/copy/evaluation#n=2", {"a": 0.2}, 4)
    edit_manifest(unfinished, finished=None)
    sections = load_sections([first, second, unfinished])
    price = GpuPrice(2.0)
    expected = [["a", "b"], ["a", "c"], []]
    assert [list(costs_by_model(section, price)) for section in sections] == expected
    with styled():
        figure = costs_figure(sections, price)
    panels = iter(figure.axes)
    for section in sections[:2]:
        for metric in ("accuracy", "vote_2"):
            panel, points = next(panels), []
            assert panel.get_title() == f"{section.heading}: {metric}"
            assert panel.get_xscale() == "log"
            for line in panel.lines[1::2]:
                points.append((line.get_label(), line.get_xdata()[0], line.get_ydata()[0]))
            values = section.results.models
            assert points == [
                (model, cost, 100 * values[model].metrics[metric].value)
                for model, cost in costs_by_model(section, price).items()
            ]
    assert not list(panels)


def test_a_task_of_test_time_training_costs_training_and_answering(make_run: MakeRun) -> None:
    runs = [trained_run(make_run, "ttt", 0.9, 8.0), base_run(make_run)]
    (section,) = load_sections(runs)
    costs = costs_by_model(section, GpuPrice(3.0, gpus=2))
    assert costs["ttt"] == pytest.approx(2 * 3.0 * (8.0 + 1.95) / 3600)
    assert costs["tiny-base"] == pytest.approx(2 * 3.0 * 60 / 20 / 3600)
    assert "the time of training on a task and answering it" in cost(section, {}, GpuPrice(3.0))[1]


def test_the_report_has_the_costs_on_request(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_run("run", SPEC, {"a": 0.5, "b": 0.7}, 4)
    for options in ([], ["--gpu-hour-price", "3", "--gpus", "2"]):
        page = tmp_path / "report.md"
        assert run_bench(capsys, "report", path, "-o", page, "--tasks", "cross-000000", *options)[0] == 0
        text = page.read_text()
        assert ("| cost a task |" in text) == bool(options)
        assert ("### What a task costs" in text) == bool(options)
        assert (tmp_path / "report-costs.png").exists() == bool(options)
    assert f"| {dollars(2 * 3 / 60 / 2 / 4)} |" in " ".join(text.split())
    assert "the run's time on 2 GPUs at $3.00 an hour" in text


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--gpus", "2"], 2, "--gpus counts the GPUs that --gpu-hour-price is for; give both"),
        (["--gpu-hour-price", "0"], 2, "0.0 is not in the range x>0"),
        (["--gpu-hour-price", "3", "--gpus", "0"], 2, "0 is not in the range x>=1"),
        (["--gpu-hour-price", "nan"], 2, "nan is not a finite number"),
    ],
)
def test_bad_prices_are_refused(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], status: int, message: str
) -> None:
    path = make_run("run", SPEC, {"a": 0.5}, 2)
    code, _, err = run_bench(capsys, "report", path, "-o", tmp_path / "report.md", *options)
    assert code == status
    assert message in err
