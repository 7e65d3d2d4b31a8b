"""The grid encoders, and the parser for strings that name and nest them.

An encoder is named by a string such as ``GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))``. Names and text
layouts are those of the arc24 scripts, so that adapters trained with those scripts can be used here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache

from harness.core.errors import GridError, SpecError
from harness.core.grid import Grid, is_allowed
from harness.prompts.grid_text import DIGITS, GridEncoder, LineEncoder, find_block, parse_rows, split_rows

DEFAULT_ENCODER = "GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))"
REPLACEMENTS = "ñò÷ûąćďęĚĞ"
_DEEPEST = 32
"""Greatest number of brackets in an encoder string; a string with more is not parsed."""
_MAX_SHOWN = 200
"""Characters of an unknown encoder string that an error message shows."""
_TO_ASCII = bytes.maketrans(bytes(range(10)), DIGITS.encode())
_FROM_ASCII = bytes.maketrans(DIGITS.encode(), bytes(range(10)))
_TO_SYMBOLS = str.maketrans(DIGITS, REPLACEMENTS)
TO_DIGITS = str.maketrans(REPLACEMENTS, DIGITS)


def _digits(cells: bytes) -> str:
    return cells.translate(_TO_ASCII).decode("ascii")


@dataclass(frozen=True)
class MinimalGridEncoder(LineEncoder):
    """Writes one digit per cell and one line per row."""

    def line(self, number: int, row: bytes) -> str:
        return _digits(row)

    def lines(self, grid: Grid) -> list[str]:
        text, width = _digits(grid.cells), grid.width
        return [text[i : i + width] for i in range(0, len(text), width)]

    def decode(self, text: str) -> Grid:
        lines = split_rows(text)
        width, cells = len(lines[0]), "".join(lines)
        # Most answers are valid and take this fast path; parse_rows finds the error of all others.
        if (
            cells.isascii()
            and cells.isdigit()
            and is_allowed(len(lines), width, long_rows=True)
            and {width} == set(map(len, lines))
        ):
            return Grid(len(lines), width, cells.encode().translate(_FROM_ASCII))
        return parse_rows([list(line) for line in lines])


@dataclass(frozen=True)
class GridWithSeparationEncoder(LineEncoder):
    """Writes digits with a separator between them."""

    separator: str

    def line(self, number: int, row: bytes) -> str:
        return self.separator.join(_digits(row))

    def decode(self, text: str) -> Grid:
        return parse_rows([line.split(self.separator) for line in split_rows(text)])


@dataclass(frozen=True)
class RepeatNumberEncoder(LineEncoder):
    """Writes each digit ``n`` times."""

    n: int = 3

    def line(self, number: int, row: bytes) -> str:
        return "".join([digit * self.n for digit in _digits(row)])

    def decode(self, text: str) -> Grid:
        rows = []
        for i, line in enumerate(split_rows(text)):
            cells = [line[k : k + self.n] for k in range(0, len(line), self.n)]
            if any(cell != cell[:1] * self.n for cell in cells):
                raise GridError("unparsed", f"row {i + 1}: {line!r} does not repeat each digit {self.n} times")
            rows.append([cell[0] for cell in cells])
        return parse_rows(rows)


@dataclass(frozen=True)
class ReplaceNumberEncoder(LineEncoder):
    """Replaces the digits in the base encoder's text with other symbols."""

    base: GridEncoder

    def head(self, height: int, width: int) -> str:
        return self.base.head(height, width).translate(_TO_SYMBOLS)

    def line(self, number: int, row: bytes) -> str:
        return self.base.line(number, row).translate(_TO_SYMBOLS)

    def tail(self, height: int, width: int) -> str:
        return self.base.tail(height, width).translate(_TO_SYMBOLS)

    def decode(self, text: str) -> Grid:
        if any(c in DIGITS for c in text):
            raise GridError("bad_value", "digits where replacement symbols were expected")
        return self.base.decode(text.translate(TO_DIGITS))


@dataclass(frozen=True)
class RowNumberEncoder(LineEncoder):
    """Numbers the lines of the base encoder's text from 1, including its head and tail."""

    base: GridEncoder

    def head(self, height: int, width: int) -> str:
        return "".join(f"{i} {line}\n" for i, line in enumerate(self.base.head(height, width).split("\n")[:-1], 1))

    def line(self, number: int, row: bytes) -> str:
        return f"{number + self._head_lines} {self.base.line(number, row)}"

    def lines(self, grid: Grid) -> list[str]:
        return [f"{i} {line}" for i, line in enumerate(self.base.lines(grid), 1 + self._head_lines)]

    def tail(self, height: int, width: int) -> str:
        after = self.base.tail(height, width).split("\n")[1:]
        return "".join(f"\n{i} {line}" for i, line in enumerate(after, 1 + self._head_lines + height))

    @cached_property
    def _head_lines(self) -> int:
        """Number of lines in the base's head."""
        return self.base.head(1, 1).count("\n")

    def decode(self, text: str) -> Grid:
        plain = []
        for i, line in enumerate(split_rows(text), 1):
            number, space, rest = line.partition(" ")
            if not space or number != str(i):
                raise GridError("unparsed", f"row {i} does not begin with its number: {line!r}")
            plain.append(rest)
        return self.base.decode("\n".join(plain))


@dataclass(frozen=True)
class GridCodeBlockEncoder(LineEncoder):
    """Puts the base encoder's text into a fenced block."""

    base: GridEncoder

    def head(self, height: int, width: int) -> str:
        return "```grid\n" + self.base.head(height, width)

    def line(self, number: int, row: bytes) -> str:
        return self.base.line(number, row)

    def lines(self, grid: Grid) -> list[str]:
        return self.base.lines(grid)

    def tail(self, height: int, width: int) -> str:
        return self.base.tail(height, width) + "\n```"

    def decode(self, text: str) -> Grid:
        return self.base.decode(find_block(text, r"```grid")[1])


@dataclass(frozen=True)
class GridShapeEncoder(GridCodeBlockEncoder):
    """Puts the base encoder's text into a fenced block that declares the grid's shape; decoding checks the shape."""

    def head(self, height: int, width: int) -> str:
        return f"```grid shape: {height}x{width}\n" + self.base.head(height, width)

    def decode(self, text: str) -> Grid:
        head, body = find_block(text, r"```grid shape: ([0-9]+x[0-9]+)")
        grid = self.base.decode(body)
        if f"{grid.height}x{grid.width}" != head[1]:
            raise GridError("bad_shape", f"declared {head[1]}, but the grid is {grid.height}x{grid.width}")
        return grid


_WRAPPERS: dict[str, type[GridCodeBlockEncoder | GridShapeEncoder | ReplaceNumberEncoder | RowNumberEncoder]] = {
    "GridCodeBlockEncoder": GridCodeBlockEncoder,
    "GridShapeEncoder": GridShapeEncoder,
    "ReplaceNumberEncoder": ReplaceNumberEncoder,
    "RowNumberEncoder": RowNumberEncoder,
}
KNOWN_ENCODERS = (
    "MinimalGridEncoder()",
    "GridWithSeparationEncoder('|')",
    "RepeatNumberEncoder(3)",
    *(f"{name}(ENCODER)" for name in _WRAPPERS),
)
_CALL = re.compile(r"\s*(\w+)\s*\((.*)\)\s*", re.DOTALL)
_SEPARATOR = re.compile(rf"'([^'\n0-9{REPLACEMENTS}]+)'|\"([^\"\n0-9{REPLACEMENTS}]+)\"")


@lru_cache(maxsize=64)
def parse_encoder(text: str) -> GridEncoder:
    """Return the encoder that a string names, e.g. ``GridShapeEncoder(MinimalGridEncoder())``.

    Raises:
        SpecError: a name or argument is unknown (the message lists the known encoders), or the nesting could not be
            decoded: a block inside a block, or two replacements of digits.
    """
    call = _CALL.fullmatch(text) if text.count("(") <= _DEEPEST else None
    if call is None:
        raise _unknown_encoder(text)
    name, argument = call[1], call[2].strip()
    if name == "MinimalGridEncoder" and not argument:
        return MinimalGridEncoder()
    if name == "GridWithSeparationEncoder" and (quoted := _SEPARATOR.fullmatch(argument)):
        return GridWithSeparationEncoder(quoted[1] or quoted[2])
    if name == "RepeatNumberEncoder" and (repeat := re.fullmatch(r"(?:n\s*=\s*)?([1-9])|", argument)):
        return RepeatNumberEncoder(int(repeat[1] or 3))
    if name not in _WRAPPERS:
        raise _unknown_encoder(text)
    base = parse_encoder(argument)
    kind = "Block" if issubclass(_WRAPPERS[name], GridCodeBlockEncoder) else name
    if kind in _unrepeatable_kinds(base):
        raise SpecError(f"grid encoder {text!r} cannot be decoded: one {name} inside another of its kind")
    return _WRAPPERS[name](base)


def _unrepeatable_kinds(encoder: GridEncoder) -> set[str]:
    """Return the kinds of wrappers in an encoder that must not occur twice."""
    kinds: set[str] = set()
    while isinstance(encoder, GridCodeBlockEncoder | ReplaceNumberEncoder | RowNumberEncoder):
        if isinstance(encoder, GridCodeBlockEncoder):
            kinds.add("Block")
        elif isinstance(encoder, ReplaceNumberEncoder):
            kinds.add("ReplaceNumberEncoder")
        encoder = encoder.base
    return kinds


def _unknown_encoder(text: str) -> SpecError:
    shown = text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "…"
    return SpecError(f"grid encoder {shown!r} is not known; known: {', '.join(KNOWN_ENCODERS)}")
