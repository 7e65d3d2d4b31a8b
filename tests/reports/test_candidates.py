"""The report of enumerated and rescored candidates: a golden file, a recount of the lost grids, and gain and cost."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from math import exp, fsum
from operator import eq, gt
from pathlib import Path
from statistics import fmean

import pytest

from harness.core.errors import ConfigError
from harness.core.grid import Grid
from harness.scoring.prediction_loader import open_predictions
from harness.scoring.run_scores import run_results
from harness.voting.ranking import Vote
from reports.gallery.choose import named_tasks
from reports.gallery.votes import top_grids
from reports.loading.runs import load_sections
from reports.plots.reliability import reliability
from reports.report import ReportOptions, write_report
from reports.sections.candidates import lost_grids, section_rules
from reports.sections.gains import gains_section
from reports.sections.tables import losses
from reports.sections.verdict import verdict
from tests.support.chromium import DEAD_LINKS, Page, find_chromium, in_browser
from tests.support.runs.rescores import write_rescores
from tests.support.runs.run_folders import MakeRun, edit_manifest
from tests.support.runs.view_runs import write_view_run

GOLDEN = Path(__file__).parents[1] / "fixtures" / "report-candidates.md"
SPEC = "toy/cross/evaluation#n=24"
SKILL = {"good": 0.6, "bad": 0.2}


@pytest.fixture
def runs(tmp_path: Path, make_run: MakeRun) -> list[Path]:
    """Write an enumerated run with rescores, a greedy one with as many views, and a sampled one with more draws."""
    views = write_view_run(tmp_path, "views", SPEC, SKILL, n=6)
    truths = {task.id: task.test[0].output for task in open_predictions(views).tasks}

    def logprob(scorer: str, task_id: str, test_index: int, grid: Grid, view: int) -> float:
        return -1.0 - view if grid == truths[task_id] and scorer == "good" else -3.0 - sum(grid.cells) % 7

    write_rescores(views, value=logprob)
    edit_manifest(views, rule="poe")
    sampled = make_run("sampled", SPEC, SKILL, n=12)
    edit_manifest(sampled, temperature=1.0)
    return [views, make_run("greedy", SPEC, SKILL, n=6), sampled]


def table_cells(text: str) -> list[list[str]]:
    """Return the cells of the rows of a markdown table."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[0] == "|"][2:]


def test_the_sections_on_candidates_are_golden(runs: list[Path]) -> None:
    sections = load_sections(runs)
    parts = [verdict(sections)]
    for section in sections:
        parts += [f"## {section.heading}", losses(section), *lost_grids(section)]
    assert "\n\n".join([*parts, *gains_section(sections)]) + "\n" == GOLDEN.read_text()


def test_reports_of_drawn_runs_have_no_such_sections(make_run: MakeRun) -> None:
    sections = load_sections([make_run("drawn", SPEC, SKILL)])
    assert lost_grids(sections[0]) == []
    assert gains_section(sections) == []
    assert "rule" not in verdict(sections)


def keys_of(votes: Sequence[Vote], rescores: Sequence[float], rule: str) -> tuple[float, ...]:
    """Return what a rule ranks a candidate by, written out once more."""
    logprobs = [vote.sum_logprob or 0.0 for vote in votes]
    return {
        "vote": (len(votes), fmean(vote.mean_logprob or 0.0 for vote in votes)),
        "logprob": (fsum(map(exp, logprobs)),),
        "count-nll": (len(votes) + fmean(logprobs),),
        "poe": (fsum(rescores),),
        "kgmon": (len(votes) + fmean(rescores),),  # no view proposes a grid twice
    }[rule]


def recount(run: Path, model: str, rule: str) -> list[float]:
    """Return the shares of tasks whose exact grid is chosen, ranked lower, and never proposed."""
    saved = open_predictions(run)
    (predictions,) = [one for one in saved.predictions if one.model == model]
    shares = [0.0, 0.0, 0.0]
    for task in saved.tasks:
        votes = predictions.outputs[task.id][0].votes_by_grid
        rescores = saved.rescores[model].outputs[task.id, 0]
        keys = {grid: tuple(round(x, 9) for x in keys_of(votes[grid], rescores[grid], rule)) for grid in votes}
        truth = task.test[0].output
        if truth not in keys:
            shares[2] += 1 / len(saved.tasks)
            continue
        ahead, tied = (sum(test(key, keys[truth]) for key in keys.values()) for test in (gt, eq))
        chosen = min(max(2 - ahead, 0), tied) / tied
        shares[0] += chosen / len(saved.tasks)
        shares[1] += (1 - chosen) / len(saved.tasks)
    return shares


@pytest.mark.parametrize("rule", ["vote", "logprob", "count-nll", "poe", "kgmon"])
def test_lost_grids_equal_a_recount(runs: list[Path], rule: str) -> None:
    (section,) = load_sections(runs[:1])
    rows = {(cells[0], cells[1].strip("*")): cells for cells in table_cells(lost_grids(section)[2])}
    for model in SKILL:
        shares = [float(cell.split(" ")[0]) / 100 for cell in rows[model, rule][2:5]]
        assert shares == pytest.approx(recount(runs[0], model, rule), abs=5.1e-4)
        ranks = [float(cell.split(" ")[0]) / 100 for cell in rows[model, rule][5:]]
        assert sum(ranks) == pytest.approx(shares[1], abs=2.1e-3)


def test_the_headline_rule_is_in_bold_and_gives_the_tables(runs: list[Path]) -> None:
    (section,) = load_sections(runs[:1])
    rows = table_cells(lost_grids(section)[2])
    assert [cells[1] for cells in rows if cells[1].startswith("**")] == ["**poe**", "**poe**"]
    for model in SKILL:
        (row,) = [row for row in section_rules(section)[model] if row.rule.name == "poe"]
        assert section.results.models[model].metrics["vote_2"].value == pytest.approx(
            row.scores.tasks.values_of("vote_2").mean()
        )
    assert "(chosen before sampling: it is in the run's manifest)" in lost_grids(section)[1]
    (section,) = load_sections(runs[:1], rule="kgmon")
    rows = table_cells(lost_grids(section)[2])
    assert [cells[1] for cells in rows if cells[1].startswith("**")] == ["**kgmon**", "**kgmon**"]
    assert "default rule" not in verdict([section])
    assert "Here vote_1 and vote_2 are by the rule kgmon (chosen after sampling, with --rule" in verdict([section])


def test_rules_without_rescores_are_named_with_the_remedy(runs: list[Path]) -> None:
    (runs[0] / "rescores.jsonl").unlink()
    edit_manifest(runs[0], rule=None)
    (section,) = load_sections(runs[:1])
    text = lost_grids(section)[-1]
    assert text == (
        "- Left out for good, bad: poe and kgmon, as the candidates were not rescored (bench rescore RUN --server URL)."
    )
    assert "Here vote_1 and vote_2 are by the default rule vote." in lost_grids(section)[1]
    assert "Rescoring" not in "\n".join(gains_section([section]))


def only_row(text: str, label: str) -> list[str]:
    (row,) = [cells for cells in table_cells(text) if cells[0] == label]
    return row


def test_gain_and_cost_stand_side_by_side(runs: list[Path]) -> None:
    sections = load_sections(runs)
    assert len(sections) == 2  # the sampled run has another N, and still stands in one table with the others
    _, _, gains, costs, note, _, rescoring = gains_section(sections)
    kinds = {cells[0]: cells[1:4] for cells in table_cells(gains)}
    assert kinds["views@good"] == ["enumerated, p ≥ 0.05", "6", "poe"]
    assert kinds["greedy@good"] == ["greedy", "6", "vote"]
    assert kinds["sampled@bad"] == ["sampled, temperature 1", "12", "vote"]
    assert " + at most " in only_row(gains, "views@good")[4]
    assert only_row(gains, "greedy@good")[4] == only_row(gains, "greedy@good")[5]
    assert only_row(gains, "sampled@good")[5] == "–"
    for run in runs:
        spent = run_results(run).cost
        assert spent is not None
        for model in SKILL:
            cells = only_row(costs, f"{run.name}@{model}")
            assert cells[1:3] == [f"{spent[model].requests:,}", f"{spent[model].tokens:,}"]
            assert cells[3] == f"{spent[model].tokens / 24:,.0f}"
    assert only_row(costs, "greedy@good")[5:] == ["–", "–"]
    assert re.fullmatch(r"[+-]\d+\.\d [\[(].*[\])], (better|worse|not resolved)", only_row(costs, "views@good")[6])
    assert "to greedy@good, greedy@bad for the same model" in note
    candidates = sum(len(o[0].votes_by_grid) for o in open_predictions(runs[0]).predictions[0].outputs.values())
    rows = [cells for cells in table_cells(rescoring) if cells[0] == "views@good"]
    assert [cells[5] for cells in rows] == ["poe", "kgmon"]
    assert {tuple(cells[1:5]) for cells in rows} == {("good", "3", f"{3 * candidates:,}", f"{15 * candidates:,}")}


def test_several_scorers_need_a_choice(runs: list[Path]) -> None:
    (runs[0] / "rescores.jsonl").unlink()
    for scorer in ("judge", "other"):
        write_rescores(runs[0], scorer)
    with pytest.raises(ConfigError, match="rescored the candidates; choose one with --scorer NAME"):
        load_sections(runs[:1])
    (section,) = load_sections(runs[:1], scorer="judge")
    assert {cells[1] for cells in table_cells(gains_section([section])[-1])} == {"judge"}


def test_plots_of_votes_are_of_the_vote(runs: list[Path]) -> None:
    (section,) = load_sections(runs[:1])
    assert [scores.rule for scores in section.fully_sampled] == [None, None]
    (by_vote,) = load_sections(runs[:1], rule="vote")
    for scores, voted in zip(section.fully_sampled, by_vote.scored, strict=True):
        assert reliability(scores) == reliability(voted)


def test_the_gallery_shows_grids_by_the_headline_rule(runs: list[Path]) -> None:
    """The scorer of ``good`` prefers the exact grid, which the vote loses in some tasks."""
    exact_first = {}
    for rule in ("poe", "vote"):
        (section,) = load_sections(runs[:1], rule=rule)
        gallery = named_tasks([section], [task.id for task in section.tasks])
        ranks = [next(iter(tops.values()))[0].exact_rank for tops in top_grids(gallery)]
        exact_first[rule] = ranks.count(1)
        assert len(ranks) == 24
    assert exact_first["poe"] > exact_first["vote"] > 0


@pytest.mark.slow
def test_the_pages_of_such_a_report(runs: list[Path], tmp_path: Path) -> None:
    page, html = write_report(runs, tmp_path / "report.md", ReportOptions(html=True))
    text = page.read_text()
    assert text.index("### Where the exact grid was lost") < text.index("## Candidates: gain and cost")
    assert "--search dfs --min-prob 0.05 --rule poe --out views" in text
    assert "best grids of each model by its rule" in text
    assert "<strong>poe</strong>" in html.read_text()
    find_chromium()

    async def steps(tab: Page) -> None:
        assert all(url.startswith(("file:", "data:")) for url in tab.requested())
        assert await tab.evaluate(f"{DEAD_LINKS}.map((a) => a.hash)") == []
        links = await tab.evaluate("[...document.querySelectorAll('nav a')].map((a) => a.textContent)")
        assert "Candidates: gain and cost" in links
        headings = await tab.evaluate("[...document.querySelectorAll('h3')].map((h) => h.textContent)")
        assert headings.count("Where the exact grid was lost") == 1
        levels = await tab.evaluate("[...document.querySelectorAll('h1, h2, h3')].map((h) => Number(h.tagName[1]))")
        assert all(after - before <= 1 for before, after in pairwise(levels))
        assert await tab.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert tab.complaints() == []

    in_browser(tmp_path, html, steps)
