"""Datasets of BARC rows: draws, virtual tasks, damaged lines, unusable pairs, several processes and the download."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

import pytest

from harness.core.errors import DataError, SpecError
from harness.core.random_stream import Stream
from harness.data.barc_dataset import BarcDataset, VirtualBarc
from harness.data.barc_reader import BadRow
from harness.data.dataset import find_task, iterate_tasks
from harness.data.export import export_dataset
from harness.data.spec import open_dataset
from harness.prompts.grid_encoder import parse_encoder
from harness.prompts.prompt_template import load_prompt
from harness.prompts.prompt_tokenizer import PromptTokenizer
from harness.scoring.run_scores import score_run
from tests.support.data_samples import barc_lines, write_lines
from tests.support.runs.run_folders import edit_manifest, write_run
from trainers.run.validation import open_validation
from trainers.tiny.tokenizer import build_tokenizer

N = 30


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "rows.jsonl", barc_lines(N))


def rows(spec: object, **options: bool) -> BarcDataset:
    dataset = open_dataset(str(spec), **options)
    assert isinstance(dataset, BarcDataset)
    return dataset


def test_every_row_is_a_task(rows_file: Path) -> None:
    dataset = rows(rows_file)
    assert list(dataset.ids) == [f"rows-{line}" for line in range(1, N + 1)]
    tasks = list(iterate_tasks(dataset))
    assert [task.id for task in tasks] == list(dataset.ids)
    assert {len(task.train) for task in tasks} == {3, 4, 5}
    assert {len(task.test) for task in tasks} == {1}
    assert [len(pairs) for _, pairs in dataset.pairs_by_id()] == [8] * N
    for task, (_, pairs) in zip(tasks, dataset.pairs_by_id(), strict=True):
        assert len({*task.train, *task.test} & set(pairs)) == len(task.train) + 1


def test_draws_depend_only_on_their_stream(rows_file: Path) -> None:
    one, two = rows(rows_file), rows(rows_file)
    forward = [one.task(i % N, Stream("d", i)) for i in range(90)]
    backward = [two.task(i % N, Stream("d", i)) for i in reversed(range(90))]
    assert forward == backward[::-1]
    assert one.task(4) == two.task(4) == rows(f"{rows_file}#n=5").task(4)
    assert len({one.task(4, Stream(i)) for i in range(20)}) > 10


def test_gzipped_rows_are_unpacked_once(tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(barc_lines(N)).encode()))
    first = rows(path)
    assert list(first.ids)[:2] == ["rows-1", "rows-2"]
    assert "unpacking" in caplog.text
    assert "kB" in caplog.text
    caplog.clear()
    assert list(iterate_tasks(rows(path))) == list(iterate_tasks(first))
    assert not caplog.text
    path.write_bytes(gzip.compress("\n".join(barc_lines(3)).encode()))
    assert len(rows(path).ids) == 3
    assert len(list(cache.glob("unpacked/*/*/rows.jsonl"))) == 1  # the stale one is gone
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="not a whole gzip file"):
        rows(path)


DAMAGED = {
    3: '{"source": "x", "examples": [[[[1',
    7: "not json at all",
    9: '{"examples": }',
    11: '{"examples": 5}',
    12: "[]",
}


@pytest.fixture
def damaged_file(tmp_path: Path) -> Path:
    lines = barc_lines(N)
    for line, text in DAMAGED.items():
        lines[line - 1] = text
    lines[19] = "   "
    path = write_lines(tmp_path / "rows.jsonl", lines)
    with path.open("a") as file:
        file.write(barc_lines(1)[0][:-30])  # killed while writing
    return path


def test_damaged_lines_are_skipped_with_a_warning(damaged_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = rows(damaged_file)
    good = [line for line in range(1, N + 1) if line not in DAMAGED and line != 20]
    assert [task.id for task in iterate_tasks(dataset)] == [f"rows-{line}" for line in good]
    for line in (*DAMAGED, N + 1):
        assert f"{damaged_file}, line {line}: " in caplog.text
    assert dataset.skipped == {"row: damaged line": len(DAMAGED) + 1}
    list(iterate_tasks(dataset))
    assert dataset.skipped == {"row: damaged line": len(DAMAGED) + 1}  # counted once, however often they are read


def test_damaged_lines_are_errors_if_strict(damaged_file: Path, tmp_path: Path, cache: Path) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl, line 3: truncated"):
        rows(damaged_file, strict=True)
    lines = barc_lines(4)
    lines[2] = '{"examples": }'
    inner = rows(write_lines(tmp_path / "inner.jsonl", lines), strict=True)
    with pytest.raises(DataError, match=r"inner\.jsonl, line 3: not JSON"):
        list(iterate_tasks(inner))
    hugging_face_name = "barc0/100k-gpt4omini-description-gpt4omini-code_generated_problems"
    (cache / "barc").mkdir(parents=True)
    write_lines(cache / "barc" / "100k_gpt4o-mini_generated_problems.jsonl", [*barc_lines(1), "{"])
    for spec in (hugging_face_name, f"barc-7-10-{damaged_file}"):
        open_dataset(spec)
        with pytest.raises(DataError, match="truncated"):
            open_dataset(spec, strict=True)


def test_a_draw_replaces_a_bad_row_and_the_fixed_draw_raises(damaged_file: Path) -> None:
    dataset = rows(damaged_file)
    bad = list(dataset.ids).index("rows-11")
    with pytest.raises(BadRow, match="line 11"):
        dataset.task(bad)
    drawn = dataset.task(bad, Stream(0))
    assert drawn.id != "rows-11"
    assert drawn == rows(damaged_file).task(bad, Stream(0))


def test_unusable_pairs_are_skipped_and_counted(tmp_path: Path) -> None:
    row = json.loads(barc_lines(1)[0])
    row["examples"][0][0] = [[0] * 31]
    row["examples"][1][1] = [[0], [0, 1]]
    row["examples"][2][1] = [[10]]
    row["examples"][3] = [[[1]]]
    few = {**row, "examples": row["examples"][:6]}
    dataset = rows(write_lines(tmp_path / "rows.jsonl", [json.dumps(row), json.dumps(few)]))
    assert [len(pairs) for _, pairs in dataset.pairs_by_id()] == [4]
    assert dataset.skipped == {
        "pair: a side over 30": 2,
        "pair: ragged or empty": 2,
        "pair: a value outside 0-9": 2,
        "pair: not [input, output]": 2,
        "row: fewer usable pairs than needed": 1,
    }
    assert len(dataset.task(0).train) == 3


def test_virtual_tasks(rows_file: Path) -> None:
    dataset = open_dataset(f"barc-400-6-{rows_file}")
    assert isinstance(dataset, VirtualBarc)
    assert len(dataset.ids) == 400
    drawn = [dataset.task(i, Stream("v", i)) for i in range(400)]
    assert [task.id for task in drawn] == list(dataset.ids)
    assert drawn == [dataset.task(i, Stream("v", i)) for i in range(400)]
    shown = Counter(pair for task in drawn for pair in task.train + task.test)
    assert set(shown) == {pair for _, pairs in rows(rows_file).pairs_by_id() for pair in pairs[:6]}
    assert dataset.task(3) == dataset.task(3)


def test_virtual_tasks_need_six_examples(rows_file: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="6 examples"):
        open_dataset(f"barc-400-5-{rows_file}")
    five = write_lines(tmp_path / "five.jsonl", barc_lines(3, n_pairs=5))
    with pytest.raises(DataError, match="none of 1000 rows"):
        open_dataset(f"barc-400-10-{five}").task(0, Stream(1))
    assert len(list(iterate_tasks(rows(five)))) == 3


def test_draws_are_limited_to_selected_rows(damaged_file: Path, tmp_path: Path) -> None:
    ids = tmp_path / "clean_ids.txt"
    ids.write_text("rows-1\nrows-9\nrows-2\n")  # line 9 is damaged
    dataset = rows(f"{damaged_file}#ids={ids}")
    assert {dataset.task(i % 3, Stream(i)).id for i in range(60)} == {"rows-1", "rows-2"}
    virtual = open_dataset(f"barc-50-10-{damaged_file}#ids={ids}")
    some = {pair for name, pairs in rows(damaged_file).pairs_by_id() for pair in pairs if name in ("rows-1", "rows-2")}
    assert {pair for i in range(50) for pair in virtual.task(i).train} <= some
    assert virtual.digest() != open_dataset(f"barc-50-10-{damaged_file}").digest()


def _draws(path: str, _worker: int) -> str:
    dataset = open_dataset(path)
    return repr([dataset.task(i % N, Stream(0, i)) for i in range(50)])


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_several_processes_can_index_and_read_a_file_at_once(rows_file: Path, method: str) -> None:
    with ProcessPoolExecutor(2, mp_context=get_context(method)) as pool:
        results = list(pool.map(_draws, repeat(str(rows_file), 4), range(4)))
    assert set(results) == {_draws(str(rows_file), 0)}


def test_an_open_dataset_can_be_pickled(rows_file: Path) -> None:
    dataset = rows(rows_file)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(dataset.task, 3, None).result() == dataset.task(3)


def test_hugging_face_names_open_files_placed_by_hand(cache: Path) -> None:
    name = "barc0/200k_HEAVY_gpt4o-description-gpt4omini-code_generated_problems"
    with pytest.raises(DataError, match=r"fetch barc.*data_100k\.jsonl, data_suggestfunction_100k\.jsonl"):
        rows(name)
    (cache / "barc").mkdir(parents=True)
    write_lines(cache / "barc" / "data_100k.jsonl", barc_lines(2))
    write_lines(cache / "barc" / "data_suggestfunction_100k.jsonl", barc_lines(3))
    dataset = rows(name)
    assert list(dataset.ids)[1:3] == ["data_100k-2", "data_suggestfunction_100k-1"]
    assert [task.id for task in iterate_tasks(dataset)] == list(dataset.ids)
    assert len(open_dataset(f"barc-7-10-{name}").ids) == 7


def test_download_without_a_network_names_the_files_to_place_by_hand(cache: Path) -> None:
    code = "from harness.cli.entry import run_cli; from harness.cli import cli; raise SystemExit(run_cli(cli))"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(cache / "hf")}
    done = subprocess.run(
        [sys.executable, "-c", code, "data", "fetch", "barc"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("error: cannot download BARC")
    assert "data_suggestfunction_100k.jsonl" in line
    assert str(cache / "barc") in line


def test_published_rows_are_read_without_skips(shared_data: Path) -> None:
    dataset = rows(shared_data / "barc_sample.jsonl.gz")
    assert len(list(iterate_tasks(dataset))) == 100
    assert {len(pairs) for _, pairs in dataset.pairs_by_id()} <= set(range(8, 11))
    assert not dataset.skipped


def test_virtual_ids_take_no_time(rows_file: Path) -> None:
    few, many = open_dataset(f"barc-7-8-{rows_file}"), open_dataset(f"barc-400000-8-{rows_file}")
    assert list(few.ids) == [f"barc-{i}" for i in range(7)]
    assert (len(many.ids), many.ids[399_999]) == (400_000, "barc-399999")
    for index in (-1, 400_000):
        with pytest.raises(IndexError):
            many.ids[index]
    began = time.process_time()
    for _ in range(1000):  # every training sample reads it
        assert len(many.ids) == 400_000
    assert time.process_time() - began < 1  # a list of all ids would take 40 ms each


def test_scoring_reads_only_the_tasks_of_the_run(
    rows_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = write_run(tmp_path, "run", f"{rows_file}#n=3", {"m": 0.5})
    lines = rows_file.read_text().splitlines()
    lines[5] = '{"examples": []}'  # logged when it is read
    write_lines(rows_file, lines)
    edit_manifest(run, dataset=str(rows_file), dataset_digest=open_dataset(str(rows_file)).digest())
    assert score_run(run).models["m"].tasks == 3
    assert "line 6" not in caplog.text
    list(iterate_tasks(open_dataset(str(rows_file))))
    assert "line 6" in caplog.text


def test_bad_rows_are_skipped_in_a_validation_and_as_the_first_task(tmp_path: Path) -> None:
    lines = barc_lines(3)
    lines[0] = '{"examples": []}'
    dataset = open_dataset(str(write_lines(tmp_path / "rows.jsonl", lines)))
    assert find_task(dataset, None).id == "rows-2"
    tokens = PromptTokenizer(build_tokenizer(), load_prompt("compact-v0"), parse_encoder("MinimalGridEncoder()"))
    validation = open_validation(dataset, tokens, max_tasks=9, exact_tasks=1, max_seq_len=4096, pad_id=0)
    assert (len(validation.tasks), validation.skipped) == (2, 0)
    with pytest.raises(BadRow, match="line 1"):
        find_task(dataset, "rows-1")
    empty = open_dataset(str(write_lines(tmp_path / "empty.jsonl", lines[:1])))
    with pytest.raises(DataError, match="no task could be read"):
        find_task(empty, None)
    with pytest.raises(DataError, match="nothing to export"):
        export_dataset(empty, tmp_path / "empty.json")
    assert not (tmp_path / "empty.json").exists()
