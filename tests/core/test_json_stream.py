"""Streamed JSON files: the same values as when parsed at once, errors with line numbers, bounded memory."""

from __future__ import annotations

import json
import tracemalloc
from collections import deque
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.core.errors import DataError
from harness.core.json_stream import first_character, iterate_elements

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def read(path: Path, block: int) -> object:
    """Return the list or object that the streamed elements make up."""
    elements = list(iterate_elements(path, block))
    assert [element.index for element in elements] == list(range(len(elements)))
    if first_character(path) == "[":
        return [element.value for element in elements]
    return {element.key: element.value for element in elements}


@given(
    value=st.lists(VALUES, max_size=6) | st.dictionaries(st.text(max_size=5), VALUES, max_size=6),
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
    block=st.integers(1, 40),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_streamed_elements_equal_the_parsed_file_for_every_block_size(
    tmp_path: Path, value: object, indent: int | None, ascii_only: bool, block: int
) -> None:
    path = tmp_path / "file.json"
    path.write_text("\n " + json.dumps(value, indent=indent, ensure_ascii=ascii_only) + " \n", encoding="utf-8")
    assert read(path, block) == value


def test_elements_have_the_line_on_which_they_begin(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text('[\n{"a":\n1},\n\n[2],\n"x"]\n')
    assert [element.line for element in iterate_elements(path)] == [2, 5, 6]


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"line 1: .*expected a list or an object"),
        ("7", r"line 1: .*expected a list or an object"),
        ("[1,\n2", r"line 2: .*expected a comma or '\]'"),
        ("[1,\n]", r"line 2: not JSON \(Expecting value\)"),
        ('{"a": 1,\n "a" 2}', r"line 2: .*expected a name and a colon"),
        ('{"a": {"b": 1,\n "b": 2}}', r"line 1: .*'b' occurs twice"),
        ('[{"a": [1,\n2}]', r"line 2: not JSON"),
        ('["a\nb"]', r"line [12]: not JSON \(Invalid control character"),
        ("[1] [2]", r"something follows the end"),
        ("[" + "9" * 5_000 + "]", r"line 1: .*4300"),
        ("[" * 100_000, r"nested too deep|not JSON"),
    ],
)
def test_invalid_json_is_refused_with_its_line(tmp_path: Path, content: str, message: str, block: int) -> None:
    path = tmp_path / "file.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        list(iterate_elements(path, block))


def test_missing_files_and_files_that_are_not_utf_8_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(b"[\xff\xfe]")
    with pytest.raises(DataError, match="not text in UTF-8"):
        list(iterate_elements(path))
    with pytest.raises(DataError, match="No such file"):
        list(iterate_elements(tmp_path / "nothing.json"))


def peak_memory(path: Path) -> int:
    """Return the most bytes allocated at once while a file's elements are iterated, errors included."""
    tracemalloc.start()
    try:
        with suppress(DataError):
            deque(iterate_elements(path), maxlen=0)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("first", ["1", '{"a" 1}'], ids=["valid", "invalid"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, first: str) -> None:
    """A valid file is read block by block, and one with an error not beyond it."""
    path = tmp_path / "file.json"
    path.write_text("[" + ",\n".join([first, *['{"grid": [[1, 2], [3, 4]]}'] * 400_000]) + "]")
    assert path.stat().st_size > 10 << 20
    assert peak_memory(path) < 6 << 20


@pytest.mark.parametrize("block", range(1, 14))
def test_numbers_split_between_blocks_are_read_completely(tmp_path: Path, block: int) -> None:
    path = tmp_path / "file.json"
    path.write_text("[1.5, -0.0, 1e+30, 1E-7, 10, 12345.678e-12]\n")
    assert [repr(element.value) for element in iterate_elements(path, block)] == [
        "1.5", "-0.0", "1e+30", "1e-07", "10", "1.2345678e-08",
    ]  # fmt: skip
