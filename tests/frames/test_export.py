"""A table of bench export holds what scoring needs: the scores of every kind of predictions survive every form."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core.errors import ConfigError, DataError, RunError
from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from harness.frames.export import export_predictions
from harness.predictions.files.table_rows import TABLE_ENDINGS
from harness.results.score_sheet import score_saved_predictions
from harness.runs.logs.prediction_log import PredictionLog
from harness.runs.schemas.prediction_schema import FAILURES
from harness.runs.schemas.results_schema import ModelResult
from harness.scoring.prediction_loader import open_predictions
from tests.conftest import ROOT
from tests.support.commands import run_bench
from tests.support.runs.pools import make_pool, write_submission
from tests.support.runs.run_folders import MakeRun, append_record, prediction_record, run_manifest, wrong_grid
from tests.support.runs.view_runs import write_view_run

SPEC = "toy/cross/evaluation#n=3"
SAVED = ROOT / "tests" / "fixtures" / "saved"


def scored(path: Path, spec: str | None = None, n: int | None = None) -> dict[str, ModelResult]:
    """Return the results of every model, with intervals of few resamples."""
    return score_saved_predictions(open_predictions(path, spec, n=n), resamples=100).results.models


def metrics(results: dict[str, ModelResult]) -> dict[str, dict[str, object]]:
    return {name: {**dict(result.metrics), **result.failures} for name, result in results.items()}


NAMES = st.one_of(
    st.sampled_from(["", "NA", "nan", "null", 'a,"b"', "line\nbreak", "\ufeffx", "-"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6),
)
ROW = st.tuples(
    st.sampled_from([None, "exact", 1, 2]),
    st.one_of(st.none(), st.floats(max_value=0, allow_nan=False, allow_infinity=False)),
    st.one_of(st.none(), st.integers(0, 10**6)),
    st.sampled_from(["identity", "rot90", "transpose"]),
    st.sampled_from(FAILURES),
)


@given(
    data=st.data(), names=st.lists(NAMES, min_size=1, max_size=2, unique=True), ending=st.sampled_from(TABLE_ENDINGS)
)
@settings(max_examples=25)
def test_drawn_predictions_score_the_same_as_a_table(data: st.DataObject, names: list[str], ending: str) -> None:
    with TemporaryDirectory() as folder:
        run, n = Path(folder) / "run", data.draw(st.integers(1, 3))
        run.mkdir()
        log = PredictionLog(run / "predictions.jsonl")
        for name in names:
            for task in iterate_tasks(open_dataset(SPEC)):
                truth = task.test[0].output
                assert truth is not None
                for sample in range(data.draw(st.integers(0, n))):
                    kind, logprob, tokens, symmetry, failure = data.draw(ROW)
                    grid = None if kind is None else truth if kind == "exact" else wrong_grid(truth, kind)
                    record = prediction_record(name, task, 0, sample, grid, failure if grid is None else "grid")
                    view = record.augmentation.model_copy(update={"symmetry": symmetry})
                    fields = {"cumulative_logprob": logprob, "n_tokens": tokens, "augmentation": view}
                    append_record(log, record.model_copy(update=fields))
        log.append(b"")
        log.close()
        (run / "manifest.json").write_bytes(run_manifest(SPEC, names, n).model_dump_json().encode())
        table = Path(folder) / f"table{ending}"
        if not (run / "predictions.jsonl").stat().st_size:
            with pytest.raises(DataError, match="holds no prediction"):
                export_predictions(run, table)
            assert not table.exists()
            return
        export_predictions(run, table)
        expected = scored(run)
        present = {line["model"] for line in map(orjson.loads, (run / "predictions.jsonl").read_bytes().splitlines())}
        assert metrics(scored(table, SPEC, n)) == {k: v for k, v in metrics(expected).items() if k in present}


@given(seed=st.integers(0, 10**6), share=st.floats(0, 1), n=st.integers(1, 5), ending=st.sampled_from(TABLE_ENDINGS))
@settings(max_examples=15)
def test_enumerated_views_score_the_same_as_a_table(seed: int, share: float, n: int, ending: str) -> None:
    with TemporaryDirectory() as folder:
        run = write_view_run(Path(folder), "run", SPEC, {f"a{seed}": share, f"b{seed}": 0.5}, n)
        table = Path(folder) / f"table{ending}"
        export_predictions(run, table)
        again = scored(table, SPEC, n)
        assert again == scored(run)
        second = Path(folder) / f"second{ending}"
        export_predictions(table, second, SPEC)
        assert scored(second, SPEC, n) == again


@pytest.mark.parametrize("ending", TABLE_ENDINGS)
def test_a_pool_scores_the_same_as_a_table(make_run: MakeRun, tmp_path: Path, ending: str) -> None:
    drawn = make_run("drawn", SPEC, {"x": 0.3, "y": 0.5}, 6)
    views = write_view_run(tmp_path, "views", SPEC, {"z": 0.4}, 4)
    submission = write_submission(tmp_path / "submission.json", SPEC, 2)
    pool = make_pool(tmp_path / "pool", drawn, views, submission, dataset=SPEC)
    table = tmp_path / f"table{ending}"
    rows = export_predictions(pool, table)
    saved = open_predictions(pool)
    assert saved.pool is not None
    assert rows == sum(len(votes) for member in saved.pool.members for votes in member.votes.values())
    assert scored(table, SPEC, saved.n) == scored(pool)


@pytest.mark.parametrize("ending", TABLE_ENDINGS)
@pytest.mark.parametrize("name", ["arc24_task_results.json", "submission.json", "arcprize", "predictions.jsonl"])
def test_files_of_other_programs_score_the_same_as_a_table(tmp_path: Path, name: str, ending: str) -> None:
    table, tasks = tmp_path / f"table{ending}", str(SAVED / "tasks.json")
    export_predictions(SAVED / name, table, tasks)
    assert scored(table, tasks) == scored(SAVED / name, tasks)


def test_the_command_writes_every_form_and_score_reads_it(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run("run", SPEC, {"m": 0.5}, 4)
    for ending in TABLE_ENDINGS:
        table = tmp_path / f"new folder/table{ending}"
        status, out, err = run_bench(capsys, "export", run, "-o", table)
        assert (status, out, err) == (0, f"wrote {table}: 12 rows\n", "")
        status, out, _ = run_bench(capsys, "score", table, "--dataset", SPEC, "--json", "-")
        expected = run_bench(capsys, "score", run, "--json", "-")[1]
        assert status == 0
        assert json.loads(out)["models"] == json.loads(expected)["models"]
    assert pd.read_parquet(tmp_path / "new folder/table.parquet")["model"].dtype == "category"
    with (tmp_path / "new folder/table.csv").open(newline="") as file:
        texts = [row["grid"] for row in csv.DictReader(file)]
    lines = map(orjson.loads, (tmp_path / "new folder/table.jsonl").read_bytes().splitlines())
    assert [json.loads(text) if text else None for text in texts] == [line["grid"] for line in lines]
    assert any(texts)


def test_texts_are_written_on_request(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("run", SPEC, {"m": 0.5}, 2)
    for texts in (False, True):
        export_predictions(run, tmp_path / "table.csv", texts=texts)
        assert ("text" in pd.read_csv(tmp_path / "table.csv")) is texts
    assert set(pd.read_csv(tmp_path / "table.csv")["text"]) == {"text"}


def test_refusals_leave_the_old_table(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("run", SPEC, {"m": 0.5}, 2)
    table = tmp_path / "table.csv"
    table.write_text("old")
    with pytest.raises(ConfigError, match=r"table\.xlsx: a table ends in \.parquet, \.csv, \.jsonl"):
        export_predictions(run, tmp_path / "table.xlsx")
    with pytest.raises(ConfigError, match="name the tasks that it answers with --dataset"):
        export_predictions(SAVED / "submission.json", table)
    copy = shutil.copytree(run, tmp_path / "copy")
    with (copy / "predictions.jsonl").open("ab") as file:
        file.write(b"{}\n")
    with pytest.raises(DataError, match="line 7: field 'grid' is missing"):
        export_predictions(copy, table)
    lines = tmp_path / "lines.jsonl"
    shutil.copy(run / "predictions.jsonl", lines)
    with pytest.raises(ConfigError, match="is the file that is read"):
        export_predictions(lines, lines, SPEC)
    with pytest.raises(RunError, match="is missing"):
        export_predictions(tmp_path, table, form="run")
    assert table.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "lines.jsonl", "run", "table.csv"]


def test_without_pyarrow_the_message_names_the_extra(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("run", SPEC, {"m": 0.5}, 2)
    hide = "import sys; sys.modules['pyarrow'] = None; from harness.cli import main; main()"
    for words in (["export", str(run), "-o", "t.parquet"], ["score", "t.parquet", "--dataset", SPEC]):
        (tmp_path / "t.parquet").touch()
        done = subprocess.run([sys.executable, "-c", hide, *words], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert "needs pyarrow; pip install -e '.[export]'" in done.stderr
    done = subprocess.run([sys.executable, "-c", hide, "export", str(run), "-o", "t.csv"], cwd=tmp_path, check=True)
    assert done.returncode == 0
