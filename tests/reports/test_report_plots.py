"""Plots: the values in the axes of each figure are those that were computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.scoring.model_scores import ModelScores
from harness.scoring.paired_comparison import HEADLINE
from harness.stats.intervals import intervals, running_mean, wilson
from harness.voting.metrics import OutputScore, task_curves
from reports.loading.runs import Section, load_sections
from reports.loading.training import Training
from reports.plots.curves import curves_figure, section_curves
from reports.plots.differences import differences_figure, pair_name
from reports.plots.intervals import intervals_figure
from reports.plots.losses import losses_figure
from reports.plots.rates import rates_figure
from reports.plots.reliability import reliability, reliability_figure, winner_share
from reports.plots.style import look, render, styled
from tests.support.runs.run_folders import MakeRun

SPEC = "toy/cross/evaluation#n=60"
MODELS = {"base": 0.05, "half": 0.5, "good": 0.55}


@pytest.fixture
def section(make_run: MakeRun) -> Section:
    return load_sections([make_run("run", SPEC, MODELS, n=8)])[0]


def labels(panel: Axes) -> list[str]:
    return [tick.get_text() for tick in panel.get_yticklabels()]


def drawn(figure: Figure) -> list[Axes]:
    return [panel for panel in figure.axes if panel.axison]


def test_intervals_are_drawn_at_their_values(section: Section) -> None:
    figure = intervals_figure([section])
    assert [panel.get_title() for panel in figure.axes] == list(HEADLINE)
    assert labels(figure.axes[0]) == list(MODELS)
    for metric, panel in zip(HEADLINE, figure.axes, strict=True):
        for k, (name, result) in enumerate(section.results.models.items()):
            bar, point = panel.lines[2 * k : 2 * k + 2]
            value = result.metrics[metric]
            assert list(bar.get_xdata()) == [100 * value.low, 100 * value.high], name
            assert list(point.get_xdata()) == [100 * value.value]
            assert (point.get_color(), point.get_marker()) == (look(k).colour, look(k).marker)
            assert list(point.get_ydata()) == [panel.get_yticks()[k]]
            low, high = panel.get_xlim()
            assert low <= 100 * value.low < 100 * value.high <= high


def test_several_datasets_are_grouped_under_headings(make_run: MakeRun, section: Section) -> None:
    runs = [section.runs[0].path, make_run("other", "toy/copy/evaluation#n=20", {"base": 0.9})]
    sections = load_sections(runs)
    figure = intervals_figure(sections)
    assert labels(figure.axes[0]) == [SPEC, *MODELS, "toy/copy/evaluation#n=20", "base"]
    bold = [tick.get_fontweight() == "bold" for tick in figure.axes[0].get_yticklabels()]
    assert bold == [True, False, False, False, True, False]
    # A model has the same colour in every section.
    assert figure.axes[0].lines[1].get_color() == figure.axes[0].lines[-1].get_color()
    assert len(drawn(rates_figure(sections))) == 2


def test_curves_go_from_accuracy_to_the_metric_within_their_bands(section: Section) -> None:
    curves = {(curve.model, curve.metric): curve for curve in section_curves(section)}
    figure = curves_figure([section])
    for metric, panel in zip(HEADLINE, figure.axes, strict=True):
        for line, name in zip(panel.lines, MODELS, strict=True):
            result = section.results.models[name].metrics
            values = list(line.get_ydata())
            assert list(line.get_xdata()) == [1, 2, 4, 8]
            assert values == [100 * point.value for point in curves[name, metric].points]
            assert values[0] == pytest.approx(100 * result["accuracy"].value)
            if metric in ("accuracy", "pass_n"):
                assert values[-1] == pytest.approx(100 * result[metric].value)
            assert all(point.low <= point.value <= point.high > point.low for point in curves[name, metric].points)
        assert len(panel.collections) == len(MODELS)
        band = panel.collections[1].get_paths()[0].vertices[:, 1]
        points = curves["half", metric].points
        assert band.min() == pytest.approx(100 * min(p.low for p in points))
        assert band.max() == pytest.approx(100 * max(p.high for p in points))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(MODELS)


def test_curves_resample_with_the_seed_of_the_run(make_run: MakeRun) -> None:
    (section,) = load_sections([make_run("run", SPEC, {"m": 0.4}, n=4, seed=5)])
    (curve,) = [curve for curve in section_curves(section) if curve.metric == "pass_n"]
    values = task_curves(section.scored[0].outputs, [1])["pass_n"]
    assert [curve.points[0]] == intervals(values, 1, 5) != intervals(values, 1, 0)


def test_differences_are_drawn_against_zero_and_unresolved_ones_are_hollow(section: Section) -> None:
    figure = differences_figure([section])
    assert labels(figure.axes[0]) == ["half − base", "good − base", "good − half"]
    verdicts = set()
    for metric, panel in zip(HEADLINE, figure.axes, strict=True):
        assert list(panel.lines[0].get_xdata()) == [0, 0]
        rows = {pair_name(row): row.comparison for row in section.pairs if row.metric == metric}
        points = [line for line in panel.lines[1:] if len(line.get_xdata()) == 1]
        bars = [line for line in panel.lines[1:] if len(line.get_xdata()) == 2]
        assert [p.get_xdata()[0] for p in points] == [100 * c.delta for c in rows.values()]
        assert [p.get_markerfacecolor() == "white" for p in points] == [
            c.verdict == "not resolved" for c in rows.values()
        ]
        ends = [[100 * c.low, 100 * c.high] for c in rows.values() if c.low is not None and c.high is not None]
        assert [list(bar.get_xdata()) for bar in bars] == ends
        verdicts |= {c.verdict for c in rows.values()}
    assert verdicts == {"better", "not resolved"}


def test_solve_rates_show_every_task(section: Section) -> None:
    figure = rates_figure([section])
    assert len(drawn(figure)) == 2
    base, half = (section.scored[k].tasks.values_of("accuracy") for k in (0, 1))
    panel = figure.axes[0]
    below, equal, above = panel.collections
    areas = [np.concatenate([c.get_sizes() for c in (below, equal, above)]), above.get_sizes(), below.get_sizes()]
    counts = [round(float(((area / areas[0].min()) ** 2).sum())) for area in areas]
    assert counts == [60, (half > base).sum(), (half < base).sum()]
    assert panel.get_title().splitlines()[0] == (
        f"{(half > base).sum()} tasks above, {(half < base).sum()} below, {(half == base).sum()} equal"
    )
    assert {tuple(p) for p in np.asarray(above.get_offsets())} == {
        (100 * x, 100 * y) for x, y in zip(base, half, strict=True) if y > x
    }
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("base, %", "half, %")


def output(exact: int, wrong: tuple[int, ...], vote_1: float, n: int = 10) -> OutputScore:
    return OutputScore(n, exact, wrong, n - exact - sum(wrong), 0.0, 0.0, vote_1, vote_1)


def test_reliability_bins_outputs_by_the_winners_share(section: Section) -> None:
    outputs = {
        "a": [output(9, (1,), 1.0)],
        "b": [output(0, (9,), 0.0), output(0, (), 0.0)],
        "c": [output(3, (3, 2), 0.5)],
        "d": [output(1, (3, 2), 0.0), output(3, (3, 2), 0.5)],
        "e": [output(10, (), 1.0)],
    }
    assert winner_share(outputs["d"][0]) == 0.3
    scores = ModelScores("m", section.scored[0].tasks, outputs, {}, 60)
    low, high = reliability(scores)
    # Of ten bins 0.3 is in the fourth, 0.9 and 1.0 in the last; the output without any grid is in none.
    assert (low.share, low.right, low.outputs) == (pytest.approx(0.3), pytest.approx(1 / 3), 3)
    assert (low.low, low.high) == wilson(1 / 3, 2)  # two tasks: outputs of one task are not independent
    assert (high.share, high.right, high.outputs) == (pytest.approx(2.8 / 3), pytest.approx(2 / 3), 3)
    assert (high.low, high.high) == wilson(2 / 3, 3)
    figure = reliability_figure([section])
    for scores, panel in zip(section.scored, drawn(figure), strict=True):
        bins = reliability(scores)
        assert list(panel.lines[-1].get_xdata()) == [100 * b.share for b in bins]
        assert list(panel.lines[-1].get_ydata()) == [100 * b.right for b in bins]
        heights = [bar.get_height() for bar in panel.patches]
        assert sum(heights) == pytest.approx(100)


def test_loss_curves_are_running_means_with_validation() -> None:
    losses = tuple((step, 2.0 / step) for step in range(1, 101))
    trained = {
        "b": Training(Path("b"), 100, 5.0, 10, losses, ((50, 0.3), (100, 0.2)), "ab"),
        "registered": Training(Path("r"), 100, 5.0, 10, (), (), "cd"),
    }
    (panel,) = losses_figure(trained, ["a", "b", "registered"]).axes
    curve, checks = panel.lines
    assert list(curve.get_xdata()) == list(range(1, 101))
    assert list(curve.get_ydata()) == running_mean([loss for _, loss in losses])
    assert list(checks.get_xdata()) == [50, 100]
    assert list(checks.get_ydata()) == [0.3, 0.2]
    assert curve.get_color() == look(1).colour
    assert running_mean([3.0, 3.0, 3.0]) == pytest.approx([3.0, 3.0, 3.0])
    assert panel.get_yscale() == "log"


def test_looks_of_models_differ_also_in_greyscale() -> None:
    assert len({(look(k).colour, look(k).marker) for k in range(49)}) == 49
    assert len({(look(k).marker, look(k).line) for k in range(7)}) == 7


def test_files_do_not_depend_on_the_users_matplotlib_settings(section: Section) -> None:
    import matplotlib

    files = []
    for settings in ({}, {"font.size": 30, "axes.facecolor": "red", "savefig.dpi": 20}):
        with matplotlib.rc_context(settings), styled():
            files.append(render(intervals_figure([section]), "x"))
    assert set(files[0]) == {"x.png", "x.svg"}
    assert files[0] == files[1]
    assert b"<dc:date>" not in files[0]["x.svg"]
