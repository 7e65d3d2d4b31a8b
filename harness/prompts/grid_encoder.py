"""Grid encoders: a grid as text for a model, and strictly back.

Encoders compose by strings such as ``GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))``, read by a
small grammar. The names and layouts are those of the arc24 scripts, so that adapters trained there are served alike.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache

from harness.core.errors import GridError, SpecError
from harness.core.grid import MAX_SIDE, Grid
from harness.prompts.grid_text import DIGITS, LineEncoder, find_block, parse_rows, split_rows
from harness.prompts.grid_text import GridEncoder as GridEncoder
from harness.prompts.grid_text import GridWriter as GridWriter

DEFAULT_ENCODER = "GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))"
REPLACEMENTS = "ñò÷ûąćďęĚĞ"
_DEEPEST = 32
"""Brackets of an encoder; a longer text is no encoder, and not worth reading."""
_SHOWN = 200
_TO_ASCII = bytes.maketrans(bytes(range(10)), DIGITS.encode())
_FROM_ASCII = bytes.maketrans(DIGITS.encode(), bytes(range(10)))
_TO_SYMBOLS = str.maketrans(DIGITS, REPLACEMENTS)
_TO_DIGITS = str.maketrans(REPLACEMENTS, DIGITS)


def _digits(row: bytes) -> str:
    return row.translate(_TO_ASCII).decode("ascii")


@dataclass(frozen=True)
class MinimalGridEncoder(LineEncoder):
    """One digit a cell, one line a row."""

    def line(self, number: int, row: bytes) -> str:
        return _digits(row)

    def lines(self, grid: Grid) -> list[str]:
        text, width = _digits(grid.cells), grid.width
        return [text[i : i + width] for i in range(0, len(text), width)]

    def decode(self, text: str) -> Grid:
        lines = split_rows(text)
        width, cells = len(lines[0]), "".join(lines)
        # What is a grid at a glance, as most answers are; anything else is named by the slower way.
        if (
            cells.isascii()
            and cells.isdigit()
            and max(width, len(lines)) <= MAX_SIDE
            and {width} == set(map(len, lines))
        ):
            return Grid(len(lines), width, cells.encode().translate(_FROM_ASCII))
        return parse_rows([list(line) for line in lines])


@dataclass(frozen=True)
class GridWithSeparationEncoder(LineEncoder):
    """Digits with a separator between them."""

    separator: str

    def line(self, number: int, row: bytes) -> str:
        return self.separator.join(_digits(row))

    def decode(self, text: str) -> Grid:
        return parse_rows([line.split(self.separator) for line in split_rows(text)])


@dataclass(frozen=True)
class RepeatNumberEncoder(LineEncoder):
    """Each digit n times."""

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
    """Other symbols in place of the digits of the base encoder."""

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
        return self.base.decode(text.translate(_TO_DIGITS))


@dataclass(frozen=True)
class RowNumberEncoder(LineEncoder):
    """Each line of the base encoder behind its number, from 1; a head and tail of the base are numbered along."""

    base: GridEncoder

    def head(self, height: int, width: int) -> str:
        return "".join(f"{i} {line}\n" for i, line in enumerate(self.base.head(height, width).split("\n")[:-1], 1))

    def line(self, number: int, row: bytes) -> str:
        return f"{number + self._before} {self.base.line(number, row)}"

    def lines(self, grid: Grid) -> list[str]:
        return [f"{i} {line}" for i, line in enumerate(self.base.lines(grid), 1 + self._before)]

    def tail(self, height: int, width: int) -> str:
        after = self.base.tail(height, width).split("\n")[1:]
        return "".join(f"\n{i} {line}" for i, line in enumerate(after, 1 + self._before + height))

    @cached_property
    def _before(self) -> int:
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
    """The base encoder inside a find_block block."""

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
    """A find_block block that declares its shape, which must hold."""

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
    """The encoder that a string names, e.g. ``GridShapeEncoder(MinimalGridEncoder())``.

    Raises:
        SpecError: an unknown name or argument, or a nesting that could not be decoded (a block in a block, replacement
            of what is replaced already); the message lists the known encoders.
    """
    call = _CALL.fullmatch(text) if text.count("(") <= _DEEPEST else None
    if call is None:
        raise _unknown(text)
    name, argument = call[1], call[2].strip()
    if name == "MinimalGridEncoder" and not argument:
        return MinimalGridEncoder()
    if name == "GridWithSeparationEncoder" and (quoted := _SEPARATOR.fullmatch(argument)):
        return GridWithSeparationEncoder(quoted[1] or quoted[2])
    if name == "RepeatNumberEncoder" and (repeat := re.fullmatch(r"(?:n\s*=\s*)?([1-9])|", argument)):
        return RepeatNumberEncoder(int(repeat[1] or 3))
    if name not in _WRAPPERS:
        raise _unknown(text)
    base = parse_encoder(argument)
    once = "Block" if issubclass(_WRAPPERS[name], GridCodeBlockEncoder) else name
    if once in _nested(base):
        raise SpecError(f"grid encoder {text!r} cannot be decoded: one {name} inside another of its kind")
    return _WRAPPERS[name](base)


def _nested(encoder: GridEncoder) -> set[str]:
    """The kinds of wrapper inside an encoder that may occur once only."""
    found: set[str] = set()
    while isinstance(encoder, GridCodeBlockEncoder | ReplaceNumberEncoder | RowNumberEncoder):
        if isinstance(encoder, GridCodeBlockEncoder):
            found.add("Block")
        elif isinstance(encoder, ReplaceNumberEncoder):
            found.add("ReplaceNumberEncoder")
        encoder = encoder.base
    return found


def _unknown(text: str) -> SpecError:
    shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
    return SpecError(f"grid encoder {shown!r} is not known; known: {', '.join(KNOWN_ENCODERS)}")
