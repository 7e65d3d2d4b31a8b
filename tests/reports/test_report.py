"""The report's text: a golden file, equal bytes every time, and warnings about missing, broken or incomparable data."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from harness.core.errors import ConfigError, DataError, RunError
from harness.results.table_format import difference_interval, markdown_table, p_value, percent, points, with_interval
from harness.runs.folder import RunFolder
from harness.runs.schemas.manifest_schema import StopConfig
from harness.stats.intervals import Interval
from harness.stats.paired_test import compare
from reports.loading.runs import load_sections
from reports.report import ReportOptions, write_report
from reports.sections.provenance import provenance, warnings
from reports.sections.tables import cost, duration, failures, losses
from reports.sections.verdict import unfinished_warnings
from tests.support.runs.run_folders import MakeRun, edit_manifest

GOLDEN = Path(__file__).parents[1] / "fixtures" / "report.md"
SPEC = "toy/cross/evaluation#n=20"
OTHER = "toy/copy/evaluation#n=20"


def test_number_formats_of_tables() -> None:
    assert percent(0.1334) == "13.3 %"
    assert with_interval(Interval(0.133, 0.111, 0.159, "bca", 400)) == "13.3 % [11.1, 15.9]"
    assert points(-0.012) == "-1.2"
    assert p_value(0.0004) == "< 0.001"
    assert p_value(0.0768) == "0.077"
    assert [p_value(p) for p in (0.0494, 0.0497, 0.04997, 0.05)] == ["0.049", "0.0497", "0.04997", "0.050"]
    few = compare([1.0, 0.0, 0.0], [0.0, 0.0, 0.0])[0]
    assert difference_interval(few) == "too few tasks differ"
    assert markdown_table(["a", "b"], [["x", "1"], ["yy|", "22"]]) == (
        "| a    |   b |\n| ---- | --: |\n| x    |   1 |\n| yy\\| |  22 |"
    )
    assert [duration(s) for s in (0.34, 47.4, 200, 7500)] == ["0.3 s", "47 s", "3 min 20 s", "2 h 05 min"]


@pytest.mark.slow
def test_the_report_is_golden_and_another_process_writes_the_same_bytes(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [
        make_run("first", SPEC, {"base": 0.05, "adapter": 0.8}),
        make_run("second", OTHER, {"base": 0.6, "adapter": 0.6}),
    ]
    closing = tmp_path / "closing.md"
    closing.write_text("## Closing\n\nwords\n")
    options = ReportOptions(html=True, closing=closing.read_text())
    pages = write_report(runs, tmp_path / "one" / "report.md", options)
    assert [page.name for page in pages] == ["report.md", "report.html"]
    words = ["report", *map(str, runs), "-o", str(tmp_path / "two" / "report.md"), "--html", "--closing", str(closing)]
    done = subprocess.run([sys.executable, "-m", "harness.cli", *words], capture_output=True, text=True, check=True)
    assert done.stdout == "".join(f"wrote {tmp_path / 'two' / page.name}\n" for page in pages)
    files = {path.name for path in (tmp_path / "one").iterdir()}
    assert files == {path.name for path in (tmp_path / "two").iterdir()}
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    text = (tmp_path / "one" / "report.md").read_text()
    # The folder holds exactly the pictures that the page shows.
    assert set(re.findall(r"\(([^()]+\.(?:png|svg))\)", text)) | {"report.md", "report.html"} == files
    assert text == GOLDEN.read_text()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"augment": False}, "--no-augment"),
        ({"min_p": 0.1}, "--min-p 0.1"),
        ({"samples_per_view": 4}, "--samples-per-view 4"),
        ({"extra_body": {"top_k": 5}}, """--extra-body '{"top_k":5}'"""),
        ({"chat_template_kwargs": {"a": 1}}, """--chat-template-kwargs '{"a":1}'"""),
        ({"stop": StopConfig(rule="risk=0.2", rounds=[4])}, "--stop risk=0.2"),
        ({"seed": 7}, "--seed 7"),
        ({"task_ids": [f"cross-{k:06}" for k in range(3)]}, "--limit 3"),
    ],
)
def test_printed_command_repeats_every_setting(make_run: MakeRun, setting: dict[str, object], words: str) -> None:
    (section,) = load_sections([make_run("r", SPEC, {"m": 0.5})])
    (run,) = section.runs
    config = run.manifest.config.model_copy(update=setting)
    changed = replace(run, manifest=run.manifest.model_copy(update={"config": config}))
    assert f" {words} " in provenance([changed])[-1]
    assert (f" {words} " in provenance([run])[-1]) is False


def test_losses_failures_and_cost_are_counted(make_run: MakeRun) -> None:
    (section,) = load_sections([make_run("r", SPEC, {"a": 0.5, "b": 0.4})])
    result = section.results.models["a"].metrics
    gap = 100 * (result["pass_n"].value - result["vote_2"].value)
    row = next(line for line in losses(section).splitlines() if line.startswith("| a "))
    assert [cell.strip() for cell in row.strip("|").split("|")][1:] == [
        percent(result["pass_n"].value),
        percent(result["vote_2"].value),
        percent(result["vote_2"].value / result["pass_n"].value),
        f"{gap:.1f}",
    ]
    lost = section.results.models["a"].failures["unparsed"]
    assert re.search(rf"\| a +\| +80 \| +{lost} \| +{percent(lost / 80)} \| +{lost} \|", failures(section))
    table, note = cost(section, {})
    # 80 predictions of 4 tokens and 0.25 seconds each; the run took a minute.
    assert re.search(r"\| a +\| +80 \| +320 \| +20 \| +16 \| +– \|", table)
    assert "Run r took 1 min 00 s in all, 11 tokens a second." in note


def test_unfinished_runs_are_reported_with_their_missing_predictions(make_run: MakeRun) -> None:
    run = make_run("cut", SPEC, {"m": 0.5, "k": 0.4})
    edit_manifest(run, finished=None)
    lines = (run / "predictions.jsonl").read_text().splitlines(keepends=True)
    (run / "predictions.jsonl").write_text("".join(lines[:50]))
    (section,) = load_sections([run])
    (text,) = unfinished_warnings([section])
    assert "**Unfinished**: cut: 110 of 160 predictions are missing (m 30, k 80)" in text
    assert "bench run … --resume" in text
    assert "(not finished)" in provenance(section.runs)[0]
    assert re.search(r"\| missing \|\n", failures(section))


def test_warnings_of_runs_and_differing_settings(make_run: MakeRun) -> None:
    runs = [make_run("one", SPEC, {"m": 0.5}), make_run("two", SPEC, {"k": 0.5})]
    folder = RunFolder(runs[1])
    old = folder.manifest()
    model = old.config.models[0].model_copy(update={"prompt_digest": "other"})
    config = old.config.model_copy(update={"temperature": 0.7, "top_p": 0.9, "models": [model], "lenient": True})
    changes = {"config": config, "warnings": ["adapter k was trained with another encoder"], "without": ["logprobs"]}
    folder.write_manifest(old.model_copy(update={**changes, "answered_as": {"k": ["k@1", "k@2"]}}))
    (section,) = load_sections(runs)
    assert warnings(section) == [
        "two: adapter k was trained with another encoder",
        "two: the server refused the parameter logprobs; requests were sent without it",
        "two: k was answered by several versions: k@1, k@2",
        "the runs differ in lenient (False, True)",
        "the runs differ in temperature (0.0, 0.7)",
        "the runs differ in top_p (0.9, 1.0)",
        "the runs differ in the parameters that servers refused (logprobs; none)",
        "the models differ in prompt (d, other)",
    ]
    command = provenance(section.runs)[-1]
    assert "--model k --dataset" in command
    for words in ("--temperature 0.7", "--top-p 0.9", "--lenient", "bench reproduce two --out AGAIN"):
        assert words in command


def test_unknown_metrics_of_early_stopping_are_dashes(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("early", SPEC, {"m": 0.9, "k": 0.5}, n=16)
    folder = RunFolder(run)
    old = folder.manifest()
    stop = StopConfig(rule="risk=0.2", rounds=[8, 12])
    folder.write_manifest(old.model_copy(update={"config": old.config.model_copy(update={"stop": stop})}))
    (page,) = write_report([run], tmp_path / "report.md", ReportOptions(tasks=("cross-000003",)))
    text = page.read_text()
    assert "pass_n" not in load_sections([run])[0].results.models["m"].metrics
    assert re.search(r"\| m +\| +– \| +\d+\.\d % \| +– \| +– \|", text)
    assert "m stopped early (risk=0.2)" in text
    assert "--stop risk=0.2" in text
    assert not (tmp_path / "report-reliability.png").exists()


def test_models_and_runs_of_the_same_name_get_unique_names(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run("one", SPEC, {"m": 0.5}), make_run("two", SPEC, {"m": 0.6, "k": 0.1})]
    (section,) = load_sections(runs)
    assert [scores.model for scores in section.scored] == ["one@m", "two@m", "k"]
    assert [model for model, _, _ in section.models_with_runs()] == ["one@m", "two@m", "k"]
    for parent in ("x", "y"):
        (tmp_path / parent).mkdir()
        runs[0].rename(tmp_path / parent / "r") if parent == "x" else runs[1].rename(tmp_path / parent / "r")
    (section,) = load_sections([tmp_path / "x" / "r", tmp_path / "y" / "r"])
    assert [scores.model for scores in section.scored] == ["x/r@m", "y/r@m", "k"]
    paths = [tmp_path / seed / "x" / "r" for seed in ("s1", "s2")]
    for parent, path in zip(("x", "y"), paths, strict=True):
        path.parent.mkdir(parents=True)
        (tmp_path / parent / "r").rename(path)
    (section,) = load_sections(paths)
    assert [scores.model for scores in section.scored] == ["s1/x/r@m", "s2/x/r@m", "k"]
    (tmp_path / "y" / "r").parent.mkdir(exist_ok=True)
    paths[0].rename(tmp_path / "x" / "r")
    with pytest.raises(RunError, match="is named twice"):
        load_sections([tmp_path / "x" / "r", tmp_path / "y" / ".." / "x" / "r"])


def test_sections_of_one_dataset_with_different_seeds_have_unique_headings(make_run: MakeRun) -> None:
    runs = [make_run("a", SPEC, {"m": 0.5}), make_run("b", SPEC, {"m": 0.5}, seed=3), make_run("c", OTHER, {"m": 0.5})]
    headings = [section.heading for section in load_sections(runs)]
    assert headings == [f"{SPEC} (N = 4, seed 0)", f"{SPEC} (N = 4, seed 3)", OTHER]


def test_broken_and_missing_files_are_named(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"manifest\.json is missing"):
        write_report([tmp_path], tmp_path / "report.md")
    with pytest.raises(ConfigError, match=r"report\.pdf: a report ends in \.md, or in \.html"):
        write_report([tmp_path], tmp_path / "report.pdf")
    run = make_run("broken", SPEC, {"m": 0.5})
    lines = (run / "predictions.jsonl").read_text().splitlines(keepends=True)
    (run / "predictions.jsonl").write_text("".join([*lines[:3], "{broken\n", *lines[4:]]))
    with pytest.raises(DataError, match=r"broken/predictions\.jsonl, line 4: not JSON"):
        write_report([run], tmp_path / "report.md")
    (run / "predictions.jsonl").unlink()
    with pytest.raises(RunError, match=r"broken/predictions\.jsonl is missing: the run stopped before"):
        write_report([run], tmp_path / "report.md")
    (run / "manifest.json").write_text("{}")
    with pytest.raises(RunError, match=r"broken/manifest\.json"):
        write_report([run], tmp_path / "report.md")
    assert not (tmp_path / "report.md").exists()
