"""Streaming of large JSON files element by element; memory use depends on the largest element, not on the file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from harness.core.errors import DataError

_BLOCK = 1 << 20
_BLANK = " \t\n\r"
_CLOSING = {"[": "]", "{": "}"}
_MAX_CUT_TOKEN = 16
"""A parse error this close to the end of a block may come from a literal or escape that the block cuts."""
_MAX_CUT_NUMBER = 2
"""A number may continue after this many characters that are not part of a number yet: ``1.`` and ``1e+``."""


def _unique_members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return the members of an object, or raise ValueError if two have the same name (json keeps the last only)."""
    members = dict(pairs)
    if len(members) < len(pairs):
        duplicate = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the name {duplicate!r} occurs twice in one object")
    return members


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_members)


def parse_json(content: bytes, where: str) -> object:
    """Return the value of a JSON text in UTF-8, with or without a byte order mark.

    Args:
        where: what error messages call the text, such as its path.

    Raises:
        DataError: it is not JSON (the message names the line), or an object has two members of the same name.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not text in UTF-8 ({error.reason} at byte {error.start})") from None
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}, line {error.lineno}, column {error.colno}: not JSON ({error.msg})") from None
    except RecursionError:
        raise DataError(f"{where}: not JSON as expected (nested too deep)") from None
    except ValueError as error:  # a repeated name, or an integer of thousands of digits
        raise DataError(f"{where}: not JSON as expected ({error})") from None


@dataclass(frozen=True, slots=True)
class Element:
    """An element of the outermost list (``key`` is None) or a member of the outermost object."""

    key: str | None
    value: object
    index: int
    line: int
    """Line of the file on which it begins, from 1."""


def first_character(path: Path) -> str:
    """Return the first character of a file that is not whitespace; an empty text if there is none.

    Raises:
        DataError: the file cannot be read, or is not UTF-8.
    """
    with _open_text(path) as file:
        while block := _read_block(file, path, 256):
            if block := block.lstrip(_BLANK):
                return block[0]
    return ""


def iterate_elements(path: Path, block: int = _BLOCK) -> Iterator[Element]:
    """Yield the elements of a file's outermost list or object, in order.

    Args:
        block: characters to read at a time.

    Raises:
        DataError: the file is not JSON (the message names the line), or holds neither a list nor an object.
    """
    with _open_text(path) as file:
        yield from _Reader(path, file, block).iterate_elements()


class _Reader:
    """A window of text that moves through the file and grows while an element does not fit into it."""

    def __init__(self, path: Path, file: TextIO, block: int) -> None:
        self.path = path
        self.file = file
        self.block = block
        self.text = ""
        self.position = 0
        """Of the next unread character in ``text``."""
        self.line = 1
        self.at_end = False

    def iterate_elements(self) -> Iterator[Element]:
        start = self._peek()
        if start not in _CLOSING:
            raise self._syntax_error("expected a list or an object")
        self._skip_character()
        index, more = 0, self._peek() != _CLOSING[start]
        while more:
            line = self.line
            key: str | None = None
            if start == "{":
                name = self._read_value()
                if not isinstance(name, str) or self._peek() != ":":
                    raise self._syntax_error("expected a name and a colon")
                key = name
                self._skip_character()
                self._peek()
            yield Element(key, self._read_value(), index, line)
            index += 1
            mark = self._peek()
            if mark not in (",", _CLOSING[start]):
                raise self._syntax_error(f"expected a comma or {_CLOSING[start]!r}")
            more = mark == ","
            if more:
                self._skip_character()
                self._peek()
        self._skip_character()
        if self._peek():
            raise self._syntax_error("something follows the end")

    def _peek(self) -> str:
        """Skip whitespace and return the next character without consuming it; empty at the end of the file."""
        while True:
            while self.position < len(self.text):
                if self.text[self.position] not in _BLANK:
                    return self.text[self.position]
                self._skip_character()
            if not self._extend():
                return ""

    def _skip_character(self) -> None:
        self.line += self.text[self.position] == "\n"
        self.position += 1

    def _read_value(self) -> object:
        """Parse and consume one JSON value, reading further blocks until it is complete."""
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.position)
            except json.JSONDecodeError as error:
                cut = error.pos > len(self.text) - _MAX_CUT_TOKEN or error.msg.startswith("Unterminated string")
                if cut and self._extend():
                    continue
                line = self.line + self.text.count("\n", self.position, error.pos)
                raise DataError(f"{self.path}, line {line}: not JSON ({error.msg})") from None
            except RecursionError:
                raise self._syntax_error("nested too deep") from None
            except ValueError as error:  # a repeated name, or an integer of thousands of digits
                raise self._syntax_error(str(error)) from None
            length = end - self.position  # _extend() moves the position
            # A number at the end of the block may continue in the next one, even after a point or an exponent.
            if len(self.text) - end <= _MAX_CUT_NUMBER and self._extend():
                continue
            self.line += self.text.count("\n", self.position, self.position + length)
            self.position += length
            return value

    def _extend(self) -> bool:
        """Drop the consumed text and read another block; return False at the end of the file.

        The block is at least as long as the unread text, so that the time for a long element stays linear.
        """
        if self.at_end:
            return False
        unread = self.text[self.position :]
        block = _read_block(self.file, self.path, max(self.block, len(unread)))
        self.text, self.position, self.at_end = unread + block, 0, not block
        return not self.at_end

    def _syntax_error(self, what: str) -> DataError:
        return DataError(f"{self.path}, line {self.line}: not JSON as expected ({what})")


def _open_text(path: Path) -> TextIO:
    """Open a file as UTF-8, with or without a byte order mark; raise DataError if it cannot be opened."""
    try:
        return path.open(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None


def _read_block(file: TextIO, path: Path, size: int) -> str:
    """Return up to ``size`` characters; raise DataError if they cannot be read or are not UTF-8."""
    try:
        return file.read(size)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not text in UTF-8 ({error.reason} at byte {error.start} of a block)") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
