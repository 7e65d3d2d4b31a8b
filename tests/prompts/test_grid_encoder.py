"""Grid encoders: round trips, layouts, named failures of strict decoding, and lenient decoding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.errors import GridError, SpecError
from harness.core.grid import Grid
from harness.prompts.grid_encoder import DEFAULT_ENCODER, KNOWN_ENCODERS, parse_encoder
from harness.prompts.grid_text import GridEncoder
from harness.prompts.lenient_decoder import decode_lenient
from tests.support.data_samples import grids

GRID = Grid.from_rows([[0, 1, 2], [3, 4, 5]])
PLAIN = (
    "MinimalGridEncoder()",
    "GridWithSeparationEncoder('|')",
    'GridWithSeparationEncoder(" ")',
    "RepeatNumberEncoder(3)",
)
NAMES = [
    *PLAIN,
    "RepeatNumberEncoder(2)",
    *(f"{wrapper}({base})" for wrapper in ("ReplaceNumberEncoder", "RowNumberEncoder") for base in PLAIN),
    *(f"{wrapper}({base})" for wrapper in ("GridCodeBlockEncoder", "GridShapeEncoder") for base in PLAIN),
    DEFAULT_ENCODER,
    "GridShapeEncoder(RowNumberEncoder(ReplaceNumberEncoder(MinimalGridEncoder())))",
    "GridShapeEncoder(ReplaceNumberEncoder(RowNumberEncoder(MinimalGridEncoder())))",
    "ReplaceNumberEncoder(GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder())))",
    "RowNumberEncoder(GridShapeEncoder(RepeatNumberEncoder(4)))",
    "RowNumberEncoder(RowNumberEncoder(GridWithSeparationEncoder(', ')))",
]


@pytest.mark.parametrize("name", NAMES)
@given(grid=grids())
def test_decode_inverts_encode(name: str, grid: Grid) -> None:
    encoder = parse_encoder(name)
    text = encoder.encode(grid)
    assert encoder.decode(text) == grid
    lines = [encoder.line(i, row) for i, row in enumerate(grid.rows(), 1)]
    assert text == encoder.head(*grid.shape) + "\n".join(lines) + encoder.tail(*grid.shape)


@given(
    grid=grids(),
    before=st.sampled_from(["", "### Output\n\n", "Sure!\n"]),
    after=st.sampled_from(["", "\n", "\n\nDone."]),
)
def test_a_block_is_found_among_other_text(grid: Grid, before: str, after: str) -> None:
    encoder = parse_encoder(DEFAULT_ENCODER)
    assert encoder.decode(before + encoder.encode(grid) + after) == grid


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("MinimalGridEncoder()", "012\n345"),
        ("GridWithSeparationEncoder('|')", "0|1|2\n3|4|5"),
        ("RepeatNumberEncoder()", "000111222\n333444555"),
        ("ReplaceNumberEncoder(MinimalGridEncoder())", "ñò÷\nûąć"),
        ("RowNumberEncoder(MinimalGridEncoder())", "1 012\n2 345"),
        ("GridCodeBlockEncoder(MinimalGridEncoder())", "```grid\n012\n345\n```"),
        ("GridShapeEncoder(MinimalGridEncoder())", "```grid shape: 2x3\n012\n345\n```"),
        (DEFAULT_ENCODER, "```grid shape: 2x3\n1 012\n2 345\n```"),
    ],
)
def test_layouts_equal_those_of_the_original(name: str, text: str) -> None:
    assert parse_encoder(name).encode(GRID) == text
    assert decode_lenient(text, parse_encoder(name)) == GRID


SHAPED = "```grid shape: 2x3\n{}\n```"
FAILURES = [
    (DEFAULT_ENCODER, "", "unparsed"),
    (DEFAULT_ENCODER, "I cannot solve this.", "unparsed"),
    (DEFAULT_ENCODER, "1 012\n2 345", "unparsed"),  # no block
    (DEFAULT_ENCODER, "```grid shape: 2x3\n1 012\n2 345", "unparsed"),  # not closed
    (DEFAULT_ENCODER, "```grid shape: 2x3\n1 012\n2 345\n```x", "unparsed"),  # text on the closing line
    (DEFAULT_ENCODER, "```grid\n1 012\n2 345\n```", "unparsed"),  # no shape
    (DEFAULT_ENCODER, SHAPED.format("1 012\n3 345"), "unparsed"),  # row numbers
    (DEFAULT_ENCODER, SHAPED.format("012\n345"), "unparsed"),
    (DEFAULT_ENCODER, SHAPED.format(""), "unparsed"),
    (DEFAULT_ENCODER, SHAPED.format("1 012\n2 34"), "bad_shape"),  # ragged
    (DEFAULT_ENCODER, SHAPED.format("1 012"), "bad_shape"),  # not as declared
    (DEFAULT_ENCODER, "```grid shape: 3x2\n1 012\n2 345\n```", "bad_shape"),
    (DEFAULT_ENCODER, "```grid shape: 02x3\n1 012\n2 345\n```", "bad_shape"),
    (DEFAULT_ENCODER, SHAPED.format("1 012\n2 34x"), "bad_value"),
    (DEFAULT_ENCODER, SHAPED.format("1 012\n2 34٣"), "bad_value"),  # a digit, but not an ASCII one
    (DEFAULT_ENCODER, SHAPED.format("1 012\n2 34 "), "bad_value"),
    ("MinimalGridEncoder()", "\n".join(["00"] * 31), "bad_shape"),
    ("MinimalGridEncoder()", "0" * 129, "bad_shape"),
    ("MinimalGridEncoder()", "01\n\n23", "bad_shape"),
    ("MinimalGridEncoder()", "-1", "bad_value"),
    ("GridWithSeparationEncoder('|')", "0|1\n2|10", "bad_value"),
    ("GridWithSeparationEncoder('|')", "0||1\n2|3|4", "bad_value"),
    ("RepeatNumberEncoder(3)", "000112\n000111", "unparsed"),
    ("RepeatNumberEncoder(3)", "00011\n00011", "unparsed"),
    ("ReplaceNumberEncoder(MinimalGridEncoder())", "ñò1", "bad_value"),
]


@pytest.mark.parametrize(("name", "text", "kind"), FAILURES)
def test_strict_failures_have_kinds(name: str, text: str, kind: str) -> None:
    with pytest.raises(GridError) as error:
        parse_encoder(name).decode(text)
    assert error.value.kind == kind


@given(st.text(alphabet="0123456789 |`grid shape:x\n٣ñ", max_size=80), st.sampled_from(NAMES))
def test_any_text_gives_a_grid_or_a_named_failure(text: str, name: str) -> None:
    """Strict and lenient decoding raise nothing but GridError of a known kind."""
    encoder = parse_encoder(name)
    for decode in (encoder.decode, lambda answer: decode_lenient(answer, encoder)):
        kind = "grid"
        try:
            grid = decode(text)
        except GridError as error:
            kind = error.kind
        else:
            assert Grid.from_rows(grid.to_rows()) == grid
        assert kind in ("grid", "unparsed", "bad_shape", "bad_value")


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("```grid shape: 9x9\n1 012\n7 345", [[0, 1, 2], [3, 4, 5]]),  # wrong shape, wrong number, not closed
        (" shape: 2x3\n1 012\n2 345\n```", [[0, 1, 2], [3, 4, 5]]),  # the original's prompts ended with ```grid
        ("```grid shape: 1x1\nx ٣\n```", [[3]]),
    ],
)
def test_lenient_accepts_what_the_original_accepted(text: str, rows: list[list[int]]) -> None:
    encoder = parse_encoder(DEFAULT_ENCODER)
    assert decode_lenient(text, encoder).to_rows() == rows
    with pytest.raises(GridError):
        encoder.decode(text)


def test_lenient_failures_have_kinds() -> None:
    for text, kind in (("1 01\n2 0", "bad_shape"), ("1 0a", "unparsed"), ("", "unparsed"), ("01", "unparsed")):
        with pytest.raises(GridError) as error:
            decode_lenient(SHAPED.format(text), parse_encoder(DEFAULT_ENCODER))
        assert error.value.kind == kind


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Minimal",
        "MinimalGridEncoder",
        "MinimalGridEncoder(1)",
        "GridShapeEncoder()",
        "GridShapeEncoder(Unknown())",
        "RepeatNumberEncoder(0)",
        "RepeatNumberEncoder(99)",
        "GridWithSeparationEncoder(|)",
        "GridWithSeparationEncoder('')",
        "GridWithSeparationEncoder('1')",
        "GridWithSeparationEncoder('ñ')",
        "__import__('os').system('true')",
        "MinimalGridEncoder() + MinimalGridEncoder()",
        "RowNumberEncoder(" * 2000 + "MinimalGridEncoder()" + ")" * 2000,
    ],
)
def test_the_error_of_an_unknown_encoder_lists_the_known_ones(name: str) -> None:
    with pytest.raises(SpecError) as error:
        parse_encoder(name)
    assert all(known in str(error.value) for known in KNOWN_ENCODERS)
    assert len(str(error.value)) < 1000
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    "name",
    [
        "GridShapeEncoder(GridCodeBlockEncoder(MinimalGridEncoder()))",
        "GridCodeBlockEncoder(RowNumberEncoder(GridShapeEncoder(MinimalGridEncoder())))",
        "ReplaceNumberEncoder(RowNumberEncoder(ReplaceNumberEncoder(MinimalGridEncoder())))",
    ],
)
def test_nestings_that_cannot_be_decoded_are_errors(name: str) -> None:
    with pytest.raises(SpecError, match="cannot be decoded"):
        parse_encoder(name)


def test_spaces_in_an_encoder_string_are_ignored() -> None:
    one: GridEncoder = parse_encoder(" GridShapeEncoder( RowNumberEncoder(MinimalGridEncoder( )) ) ")
    assert one == parse_encoder(DEFAULT_ENCODER)
