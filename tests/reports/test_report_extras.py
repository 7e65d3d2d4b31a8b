"""Data that a report adds to its runs: published results, a sweep's table, and the training of the adapters."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.cli.entry import run_cli
from harness.core.digests import content_hash
from harness.core.errors import ConfigError, DataError, RunError
from harness.results.table_format import with_interval
from harness.runs.folder import RunFolder
from harness.runs.schemas.sweep_record import SweepRecord, SweepRow
from harness.stats.intervals import wilson
from reports.cli import report
from reports.loading.runs import load_sections
from reports.loading.training import find_training
from reports.report import ReportOptions, write_report
from reports.sections.reference import load_reference, published_section, reference_table
from reports.sections.tables import cost
from tests.support.runs.run_folders import MakeRun

SPEC = "toy/cross/evaluation#n=20"
TASK = "cross-000003"
"""One task in the gallery, to save time."""
MANIFEST = {"steps": 3, "seconds": 83.0, "tokens": 900, "losses": {"first": 2.0}, "weights_sha256": "ab", "more": 1}
LOG = [
    {"step": 1, "loss": 2.0, "seconds": 1},
    {"step": 2, "loss": 1.5},
    {"step": 2, "eval_loss": 1.2},
    {"step": 3, "loss": 1.0},
]


def trained_folder(folder: Path, weights: bytes, log: bool = True, lora: bool = True) -> Path:
    """Write a folder as the trainer does, with an incomplete last line in its log."""
    folder.mkdir(parents=True)
    if lora:
        (folder / "adapter_config.json").write_text('{"r": 8}')
    (folder / f"{'adapter_model' if lora else 'model'}.safetensors").write_bytes(weights)
    (folder / "manifest.json").write_text(json.dumps(MANIFEST | {"weights_sha256": sha256(weights).hexdigest()}))
    if log:
        (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LOG) + '{"step": 4, "lo')
    return folder


def set_hashes(run: Path, hashes: dict[str, str]) -> None:
    """Write model hashes into a run's manifest."""
    folder = RunFolder(run)
    manifest = folder.manifest()
    models = [m.model_copy(update={"hash": hashes.get(m.name)}) for m in manifest.config.models]
    folder.write_manifest(manifest.model_copy(update={"config": manifest.config.model_copy(update={"models": models})}))


def test_iteration_48_is_as_published() -> None:
    reference = load_reference("iteration48")
    assert reference.tasks == 400
    rows = {row.label: (row.accuracy, row.pass_n, row.vote_2, row.vote_1) for row in reference.rows}
    assert rows == {
        "100 %": (0.128, 0.334, 0.236, 0.194),
        "50 %": (0.133, 0.309, 0.239, 0.191),
        "33 %": (0.133, 0.310, 0.234, 0.198),
        "20 %": (0.116, 0.283, 0.204, 0.165),
        "0 %": (0.092, 0.231, 0.173, 0.148),
    }
    with pytest.raises(ConfigError, match="there is no reference 'iteration49'; known: iteration48"):
        load_reference("iteration49")


def test_rows_follow_the_published_row_of_the_same_mixture(make_run: MakeRun) -> None:
    names = ["w100", "w33_3", "mix-0-s1", "mix-0-s2", "base", "qwen2.5"]
    (section,) = load_sections([make_run("r", SPEC, dict.fromkeys(names, 0.4))])
    results = section.results.models
    reference = load_reference("iteration48")
    table = reference_table(reference, [(name, result.metrics) for name, result in results.items()])
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert [row[:2] for row in rows] == [
        ["100 %", "published"], ["100 %", "here: w100"], ["50 %", "published"], ["33 %", "published"],
        ["33 %", "here: w33_3"], ["20 %", "published"], ["0 %", "published"], ["0 %", "here: mix-0-s1"],
        ["0 %", "here: mix-0-s2"], ["–", "here: base"], ["–", "here: qwen2.5"],
    ]  # fmt: skip
    # Published figures have no intervals, ours have.
    assert all(("[" in row[2]) == (row[1] != "published") for row in rows)
    assert rows[1][4] == with_interval(results["w100"].metrics["vote_2"])
    note = published_section(reference, [section], [])[-1]
    assert "published figures have no intervals" in note
    narrow, wide = (50 * (ends[1] - ends[0]) for ends in (wilson(0.198, 400), wilson(0.334, 400)))
    assert f"± {narrow:.0f} to {wide:.0f} points on 400 tasks" in note


def test_sweep_table_and_published_results_come_first(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run(name, SPEC, {name: skill}) for name, skill in {"w100": 0.7, "w0": 0.1}.items()]
    rows = [SweepRow(label="100 %", models=["w100"]), SweepRow(label="0 %", models=["w0"])]
    record = tmp_path / "sweep.json"
    record.write_text(SweepRecord(header="original datasets weight", rows=rows, seeds=[0]).model_dump_json())
    words = [*map(str, runs), "-o", str(tmp_path / "r.md"), "--sweep", str(record), "--reference", "iteration48"]
    words += ["--tasks", TASK]
    done = CliRunner().invoke(report, words, catch_exceptions=False)
    assert done.output == f"wrote {tmp_path / 'r.md'}\n"
    text = (tmp_path / "r.md").read_text()
    assert text.index("2 mixtures, one training run each") < text.index("## Published results")
    assert text.index("## Published results") < text.index(f"\n## {SPEC}\n")
    assert re.search(r"\| original datasets weight \| +accuracy \| +pass_n \| +vote_2 \| +vote_1 \|", text)


def test_training_runs_are_matched_by_content_hash(make_run: MakeRun, tmp_path: Path) -> None:
    folder = trained_folder(tmp_path / "trained" / "some-name", b"weights")
    registered = trained_folder(tmp_path / "registry" / "m" / content_hash(folder)[:12], b"weights", log=False)
    trained_folder(tmp_path / "trained" / "k", b"other weights")
    run = make_run("r", SPEC, {"m": 0.5, "k": 0.4})
    set_hashes(run, {"m": content_hash(folder), "k": "of a server with newer weights"})
    sections = load_sections([run])
    (only,) = find_training([tmp_path / "registry"], sections).values()
    assert only.folder == registered
    assert only.losses == ()
    for folders in (("trained", "registry"), ("registry", "trained")):
        trained = find_training([tmp_path / name for name in folders], sections)
        assert trained["m"].folder == folder  # the one with a log, in whichever order
    # The k that was benched has another hash than the k that was trained.
    assert list(trained) == ["m"]
    assert trained["m"].losses == ((1, 2.0), (2, 1.5), (3, 1.0))
    assert trained["m"].validation == ((2, 1.2),)
    table, _ = cost(sections[0], trained)
    assert re.search(r"\| m .* 1 min 23 s \|", table)
    assert re.search(r"\| k .* – \|", table)


def test_training_runs_are_matched_by_folder_name_if_there_is_no_hash(make_run: MakeRun, tmp_path: Path) -> None:
    trained_folder(tmp_path / "trained" / "m", b"weights")
    run = make_run("r", SPEC, {"base": 0.1, "m": 0.5})
    write_report([run], tmp_path / "report.md", ReportOptions(tasks=(TASK,), training=(tmp_path / "trained",)))
    text = (tmp_path / "report.md").read_text()
    assert "1 min 23 s" in text
    assert "](report-losses.png)" in text
    assert (tmp_path / "report-losses.svg").exists()


@pytest.mark.parametrize("lora", [True, False])
def test_folders_of_one_name_are_told_apart(make_run: MakeRun, tmp_path: Path, lora: bool) -> None:
    trained_folder(tmp_path / "trained" / "m", b"weights", lora=lora)
    trained_folder(tmp_path / "copy" / "m", b"weights", log=False, lora=lora)
    trained_folder(tmp_path / "other" / "m", b"other weights", lora=lora)
    sections = load_sections([make_run("r", SPEC, {"m": 0.5})])
    assert find_training([tmp_path / "copy", tmp_path / "trained"], sections)["m"].losses
    with pytest.raises(RunError, match="have different weights, and the run has only the name m"):
        find_training([tmp_path / "trained", tmp_path / "other"], sections)


def test_log_with_infinite_gradient_norm_is_read(make_run: MakeRun, tmp_path: Path) -> None:
    """Older versions of the trainer continued after such a step and logged it."""
    folder = trained_folder(tmp_path / "trained" / "m", b"weights")
    (folder / "log.jsonl").write_text('{"step": 1, "loss": 2.0, "grad_norm": Infinity}\n{"step": 2, "loss": 1.5}\n')
    trained = find_training([tmp_path / "trained"], load_sections([make_run("r", SPEC, {"m": 0.5})]))
    assert trained["m"].losses == ((1, 2.0), (2, 1.5))


def test_missing_and_broken_training_folders_are_errors(make_run: MakeRun, tmp_path: Path) -> None:
    sections = load_sections([make_run("r", SPEC, {"m": 0.5})])
    folder = trained_folder(tmp_path / "trained" / "x", b"weights")
    with pytest.raises(RunError, match="trained: none of the 1 trained adapters there is a model of these runs"):
        find_training([tmp_path / "trained"], sections)
    (folder / "log.jsonl").write_text('{"step": 1}\nbroken\n')
    with pytest.raises(DataError, match=r"x/log\.jsonl, line 2: not JSON"):
        find_training([tmp_path / "trained"], sections)
    (folder / "manifest.json").write_text('{"losses": {}, "steps": 1}')
    with pytest.raises(DataError, match=r"x/manifest\.json: seconds: Field required"):
        find_training([tmp_path / "trained"], sections)


@pytest.mark.slow
def test_closing_file_must_be_text_and_may_show_other_pictures(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(make_run("r", SPEC, {"m": 0.5})), "-o", str(tmp_path / "r.md"), "--html", "--tasks", TASK, "--closing"]
    (tmp_path / "end.md").write_text("## End\n\n![a photo](x.jpg)\n")
    assert run_cli(report, [*words, str(tmp_path / "end.md")]) == 0
    assert "![a photo](x.jpg)" in (tmp_path / "r.html").read_text()
    (tmp_path / "x.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    capsys.readouterr()
    assert run_cli(report, [*words, str(tmp_path / "x.jpg")]) == 2
    assert "x.jpg is not text in UTF-8" in capsys.readouterr().err
