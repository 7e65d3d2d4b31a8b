"""What ``bench sweep`` reports, read back from TensorBoard's files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from harness.cli.report_to import report_sweep
from harness.runs.schemas.sweep_record import SweepRecord, SweepRow
from harness.trackers.sent_file import read_links
from reports.loading.runs import load_sections
from reports.loading.sweep import sweep_tables, tables_json
from tests.support.runs.run_folders import MakeRun

SPEC = "toy/cross/evaluation#n=24"
SKILL = {"a-s0": 0.8, "a-s1": 0.7, "b-s0": 0.1, "b-s1": 0.2}
RECORD = SweepRecord(
    header="mixture",
    rows=[SweepRow(label="100 %", models=["a-s0", "a-s1"]), SweepRow(label="0 %", models=["b-s0", "b-s1"])],
    seeds=[0, 1],
)


@pytest.fixture
def swept(make_run: MakeRun, tmp_path: Path) -> tuple[Path, list[Path]]:
    """The folder of a finished sweep, as ``bench sweep`` leaves it, and its runs."""
    runs = [make_run(name, SPEC, {name: skill}) for name, skill in SKILL.items()]
    out = tmp_path / "mix"
    trained = out / "trained" / "a-s0"
    trained.mkdir(parents=True)
    there = {"wandb": {"id": "abc", "project": "arc-bench", "url": "https://trackers.test/a-s0"}}
    (trained / "manifest.json").write_text(json.dumps({"tracker_runs": there}))
    (out / "results.json").write_text(json.dumps(tables_json(sweep_tables(load_sections(runs), RECORD))))
    for name in ("report-intervals.png", "report-task-1.png"):
        Image.new("RGB", (4, 3), "white").save(out / name)
    (runs[0] / "trackers.jsonl").write_text(
        '{"tracker":"trackio","command":"run","run":{"id":"1","name":"a-s0@a-s0","project":"arc-bench"}}\n'
    )
    return out, runs


def test_the_table_of_a_sweep_is_one_run_with_links(
    swept: tuple[Path, list[Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    out, runs = swept
    report_sweep(["tensorboard"], out, "Mixtures", out / "results.json", runs)
    assert capsys.readouterr().err == f"reported to tensorboard: mix ({out}/tensorboard/mix)\n"
    events = EventAccumulator(str(out / "tensorboard" / "mix"))
    events.Reload()
    scalars = {tag: events.Scalars(tag)[0].value for tag in events.Tags()["scalars"]}
    [table] = json.loads((out / "results.json").read_text())
    interval = table["rows"][1]["metrics"]["vote_2"]
    expected = [interval["value"], interval["low"], interval["high"]]
    assert [scalars[f"0__/vote_2{end}"] for end in ("", "/low", "/high")] == pytest.approx(expected)
    [row] = [row for row in table["recipes"] if row["metric"] == "accuracy"]
    assert scalars["accuracy/0___vs_100__/p_holm"] == pytest.approx(row["comparison"]["p_holm"])
    [links] = events.Tensors("links/text_summary")[0].tensor_proto.string_val
    assert b"training a-s0 wandb: https://trackers.test/a-s0" in links
    assert b"trackio a-s0@a-s0: arc-bench/1" in links
    assert events.Tags()["images"] == ["pictures/intervals"]
    assert list(read_links(out)) == ["tensorboard mix"]


def test_a_sweep_without_its_table_costs_one_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report_sweep(["tensorboard"], tmp_path, "Mixtures", tmp_path / "results.json", [])
    [warning] = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: not reported to tensorboard: FileNotFoundError: ")
