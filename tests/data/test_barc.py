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
from harness.data.line_index import LineIndex, index_path
from harness.data.spec import open_dataset
from harness.prompts.grid_encoder import parse_encoder
from harness.prompts.prompt_template import load_prompt
from harness.prompts.prompt_tokenizer import PromptTokenizer
from harness.scoring.run_scores import score_run
from tests.conftest import edit_manifest, write_run
from tests.support.data_samples import barc_lines, write_lines
from tests.trainers.test_mixture import tokenizer
from trainers.run.validation import open_validation

N = 30


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ARC_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HOME", raising=False)
    return tmp_path / "cache"


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


def test_draws_depend_on_their_stream_alone(rows_file: Path) -> None:
    one, two = rows(rows_file), rows(rows_file)
    forward = [one.task(i % N, Stream("d", i)) for i in range(90)]
    backward = [two.task(i % N, Stream("d", i)) for i in reversed(range(90))]
    assert forward == backward[::-1]
    assert one.task(4) == two.task(4) == rows(f"{rows_file}#n=5").task(4)
    assert len({one.task(4, Stream(i)) for i in range(20)}) > 10


def test_zipped_rows_are_unpacked_once(tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
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


def test_the_index_is_kept_and_rebuilt_when_stale(rows_file: Path) -> None:
    built: list[tuple[int, int]] = []
    LineIndex(rows_file, lambda done, total: built.append((done, total)))
    assert built[-1] == (rows_file.stat().st_size,) * 2
    built.clear()
    assert len(LineIndex(rows_file, lambda done, total: built.append((done, total)))) == N
    assert not built
    before = open_dataset(str(rows_file)).digest()
    write_lines(rows_file, barc_lines(N + 1))
    assert len(LineIndex(rows_file, lambda done, total: built.append((done, total)))) == N + 1
    assert built
    assert open_dataset(str(rows_file)).digest() != before
    os.utime(rows_file, ns=(1, 1))
    built.clear()
    LineIndex(rows_file, lambda done, total: built.append((done, total)))
    assert built


@pytest.mark.parametrize("damage", [b"", b"garbage", b"arcbench" + b"\xff" * 40])
def test_a_damaged_index_is_made_again(rows_file: Path, damage: bytes) -> None:
    LineIndex(rows_file)
    index_path(rows_file).write_bytes(damage)
    assert len(LineIndex(rows_file)) == N
    whole = index_path(rows_file).read_bytes()
    index_path(rows_file).write_bytes(whole[:-5])
    assert len(rows(rows_file).ids) == N


def test_an_unwritable_cache_is_no_obstacle(
    rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ARC_BENCH_CACHE", str(tmp_path / "file"))
    assert len(list(iterate_tasks(rows(rows_file)))) == N
    assert "cannot keep the index" in caplog.text


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


def test_damaged_lines_are_reported_and_do_not_stop_the_rest(
    damaged_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = rows(damaged_file)
    good = [line for line in range(1, N + 1) if line not in DAMAGED and line != 20]
    assert [task.id for task in iterate_tasks(dataset)] == [f"rows-{line}" for line in good]
    for line in (*DAMAGED, N + 1):
        assert f"{damaged_file}, line {line}: " in caplog.text
    assert dataset.skipped == {"row: damaged line": len(DAMAGED) + 1}
    list(iterate_tasks(dataset))
    assert dataset.skipped == {"row: damaged line": len(DAMAGED) + 1}  # each counted once


def test_strict_makes_them_errors(damaged_file: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl, line 3: truncated"):
        rows(damaged_file, strict=True)
    lines = barc_lines(4)
    lines[2] = '{"examples": }'
    inner = rows(write_lines(tmp_path / "inner.jsonl", lines), strict=True)
    with pytest.raises(DataError, match=r"inner\.jsonl, line 3: not JSON"):
        list(iterate_tasks(inner))


def test_a_draw_passes_over_bad_rows_and_the_fixed_draw_names_them(damaged_file: Path) -> None:
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


def test_chosen_rows_stay_among_themselves(damaged_file: Path, tmp_path: Path) -> None:
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
def test_several_processes_share_a_file_from_the_first_moment(rows_file: Path, method: str) -> None:
    with ProcessPoolExecutor(2, mp_context=get_context(method)) as pool:
        results = list(pool.map(_draws, repeat(str(rows_file), 4), range(4)))
    assert set(results) == {_draws(str(rows_file), 0)}


def test_an_opened_file_can_be_sent_to_a_worker(rows_file: Path) -> None:
    dataset = rows(rows_file)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(dataset.task, 3, None).result() == dataset.task(3)


def test_files_that_are_not_there(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match="is empty"):
        rows(tmp_path / "empty.jsonl")
    with pytest.raises(DataError, match="no rows"):
        rows(write_lines(tmp_path / "none.jsonl", ["", "x"]))
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


def test_fetching_without_a_network_says_what_to_place_where(cache: Path) -> None:
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


def test_real_rows(shared_data: Path) -> None:
    dataset = rows(shared_data / "barc_sample.jsonl.gz")
    assert len(list(iterate_tasks(dataset))) == 100
    assert {len(pairs) for _, pairs in dataset.pairs_by_id()} <= set(range(8, 11))
    assert not dataset.skipped


def test_a_byte_order_mark_costs_no_row(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", barc_lines(3))
    plain = list(iterate_tasks(rows(path)))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    for _ in range(2):  # from the file, then from the kept index
        marked = rows(path)
        assert (list(iterate_tasks(marked)), marked.skipped) == (plain, Counter())


def test_virtual_ids_are_made_on_demand(rows_file: Path) -> None:
    few, many = open_dataset(f"barc-7-8-{rows_file}"), open_dataset(f"barc-400000-8-{rows_file}")
    assert list(few.ids) == [f"barc-{i}" for i in range(7)]
    assert (len(many.ids), many.ids[399_999]) == (400_000, "barc-399999")
    for index in (-1, 400_000):
        with pytest.raises(IndexError):
            many.ids[index]
    began = time.process_time()
    for _ in range(1000):  # as training samples do
        assert len(many.ids) == 400_000
    assert time.process_time() - began < 1  # 40 ms each where all were made


def test_scoring_the_first_tasks_reads_no_others(
    rows_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = write_run(tmp_path, "run", f"{rows_file}#n=3", {"m": 0.5})
    lines = rows_file.read_text().splitlines()
    lines[5] = '{"examples": []}'  # told when it is read
    write_lines(rows_file, lines)
    edit_manifest(run, dataset=str(rows_file), dataset_digest=open_dataset(str(rows_file)).digest())
    assert score_run(run).models["m"].tasks == 3
    assert "line 6" not in caplog.text
    list(iterate_tasks(open_dataset(str(rows_file))))
    assert "line 6" in caplog.text


def test_a_bad_row_ends_neither_a_validation_nor_a_look_at_the_first_task(tmp_path: Path) -> None:
    lines = barc_lines(3)
    lines[0] = '{"examples": []}'
    dataset = open_dataset(str(write_lines(tmp_path / "rows.jsonl", lines)))
    assert find_task(dataset, None).id == "rows-2"
    tokens = PromptTokenizer(tokenizer(), load_prompt("compact-v0"), parse_encoder("MinimalGridEncoder()"))
    found = open_validation(dataset, tokens, max_tasks=9, exact_tasks=1, max_seq_len=4096, pad_id=0)
    assert (len(found.tasks), found.skipped) == (2, 0)
    with pytest.raises(BadRow, match="line 1"):
        find_task(dataset, "rows-1")
