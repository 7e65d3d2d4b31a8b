"""Large JSON files element by element: the same as reading them whole, and errors that name the line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.core.errors import DataError
from harness.core.json_stream import _Reader, first_character, iterate_elements

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def read(path: Path, block: int) -> object:
    """What the elements of a file add up to."""
    found = list(iterate_elements(path, block))
    assert [element.index for element in found] == list(range(len(found)))
    if first_character(path) == "[":
        return [element.value for element in found]
    return {element.key: element.value for element in found}


@given(
    value=st.lists(VALUES, max_size=6) | st.dictionaries(st.text(max_size=5), VALUES, max_size=6),
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
    block=st.integers(1, 40),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_elements_equal_the_whole_file_for_every_block_size(
    tmp_path: Path, value: object, indent: int | None, ascii_only: bool, block: int
) -> None:
    path = tmp_path / "file.json"
    path.write_text("\n " + json.dumps(value, indent=indent, ensure_ascii=ascii_only) + " \n", encoding="utf-8")
    assert read(path, block) == value


def test_elements_tell_the_line_on_which_they_begin(tmp_path: Path) -> None:
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
        ('{"a": {"b": 1,\n "b": 2}}', r"line 1: .*'b' is there twice"),
        ('[{"a": [1,\n2}]', r"line 2: not JSON"),
        ('["a\nb"]', r"line [12]: not JSON \(Invalid control character"),
        ("[1] [2]", r"something follows the end"),
        ("[" + "9" * 5_000 + "]", r"line 1: .*4300"),
        ("[" * 100_000, r"nested too deep|not JSON"),
    ],
)
def test_what_is_not_json_is_refused_with_its_line(tmp_path: Path, content: str, message: str, block: int) -> None:
    path = tmp_path / "file.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        list(iterate_elements(path, block))


def test_what_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(b"[\xff\xfe]")
    with pytest.raises(DataError, match="not text in UTF-8"):
        list(iterate_elements(path))
    with pytest.raises(DataError, match="No such file"):
        list(iterate_elements(tmp_path / "nothing.json"))


def test_a_broken_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    with path.open("w") as file:
        file.write('[{"a" 1},\n')
        file.write("[1, 2, 3],\n" * 500_000)
    with path.open() as file:
        reader = _Reader(path, file, 1 << 20)
        with pytest.raises(DataError, match="line 1: not JSON"):
            list(reader.iterate_elements())
        assert len(reader.text) <= 1 << 20


def test_the_window_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text("[" + ",\n".join(['{"grid": [[1, 2], [3, 4]]}'] * 200_000) + "]")
    widest = 0
    with path.open() as file:
        reader = _Reader(path, file, 1 << 20)
        for element in reader.iterate_elements():
            widest = max(widest, len(reader.text)) if element.index % 1_000 == 0 else widest
    assert element.index == 199_999
    assert widest <= 2 << 20


@pytest.mark.parametrize("block", range(1, 14))
def test_numbers_that_a_block_cuts_are_read_whole(tmp_path: Path, block: int) -> None:
    path = tmp_path / "file.json"
    path.write_text("[1.5, -0.0, 1e+30, 1E-7, 10, 12345.678e-12]\n")
    assert [repr(element.value) for element in iterate_elements(path, block)] == [
        "1.5", "-0.0", "1e+30", "1e-07", "10", "1.2345678e-08",
    ]  # fmt: skip
