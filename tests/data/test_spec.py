"""What stands behind a spec's #: a number of tasks, a seed, a list of ids."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.core.errors import ArcBenchError, DataError
from harness.core.random_stream import Stream
from harness.data.spec import open_dataset
from tests.support.data_samples import pair_json, random_task


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
def test_bad_id_files(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "ids.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        open_dataset(f"arc1/training#ids={path}")
    with pytest.raises(ArcBenchError, match="cannot read the ids"):
        open_dataset(f"arc1/training#ids={tmp_path / 'none'}")


def test_selection_from_lists_of_pairs(tmp_path: Path) -> None:
    spec = tmp_path / "re.json"
    pairs = [pair_json(pair) for k in range(12) for pair in random_task(Stream("pool", k), 1).train]
    spec.write_text(json.dumps(dict.fromkeys("abcde", pairs)))
    some = open_dataset(f"{spec}#n=2")
    assert list(some.ids) == ["a", "b"]
    assert some.task(1, Stream(3)) == open_dataset(str(spec)).task(1, Stream(3))
