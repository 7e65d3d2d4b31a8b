"""A large JSON file read one element at a time: memory follows the largest element, not the file."""

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
_TAIL = 16
"""Longer than any literal, number sign or escape that the end of a block can cut."""

_CUT_NUMBER = 2
"""Characters that a number may have behind a shorter number: ``1.`` and ``1e+`` begin with 1."""


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return an object, or raise ValueError where it names a field twice: a plain reader would lose one of them."""
    members = dict(pairs)
    if len(members) < len(pairs):
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise ValueError(f"the name {twice!r} is there twice in one object")
    return members


_DECODER = json.JSONDecoder(object_pairs_hook=_members)


def parse_json(content: bytes, where: str) -> object:
    """Return the value of a whole JSON text in UTF-8, with or without a byte order mark.

    Raises:
        DataError: it is not JSON (naming ``where`` and the line), or an object in it names a field twice.
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
    except ValueError as error:  # a repeated name, or a number of thousands of digits
        raise DataError(f"{where}: not JSON as expected ({error})") from None


@dataclass(frozen=True, slots=True)
class Element:
    """One element of the outermost list (``key`` is None) or member of the outermost object."""

    key: str | None
    value: object
    index: int
    line: int
    """Where it begins in the file, from 1."""


def first_character(path: Path) -> str:
    """The first character of the file that is not blank; empty where there is none.

    Raises:
        DataError: the file cannot be read as text.
    """
    with _reading(path) as file:
        while block := _read(file, path, 256):
            if block := block.lstrip(_BLANK):
                return block[0]
    return ""


def iterate_elements(path: Path, block: int = _BLOCK) -> Iterator[Element]:
    """The elements of the outermost list or object of a file, in order.

    Args:
        block: characters read at a time.

    Raises:
        DataError: the file is not JSON (with the line), or is neither a list nor an object.
    """
    with _reading(path) as file:
        yield from _Reader(path, file, block).iterate_elements()


class _Reader:
    """A window on the file that slides from element to element and grows where one does not fit."""

    def __init__(self, path: Path, file: TextIO, block: int) -> None:
        self.path = path
        self.file = file
        self.block = block
        self.text = ""
        self.at = 0
        self.line = 1
        self.ended = False

    def iterate_elements(self) -> Iterator[Element]:
        start = self._next()
        if start not in _CLOSING:
            raise self._wrong("expected a list or an object")
        self._skip()
        index, more = 0, self._next() != _CLOSING[start]
        while more:
            line = self.line
            key: str | None = None
            if start == "{":
                name = self._value()
                if not isinstance(name, str) or self._next() != ":":
                    raise self._wrong("expected a name and a colon")
                key = name
                self._skip()
                self._next()
            yield Element(key, self._value(), index, line)
            index += 1
            mark = self._next()
            if mark not in (",", _CLOSING[start]):
                raise self._wrong(f"expected a comma or {_CLOSING[start]!r}")
            more = mark == ","
            if more:
                self._skip()
                self._next()
        self._skip()
        if self._next():
            raise self._wrong("something follows the end")

    def _next(self) -> str:
        """The next character that is not blank, not taken; empty at the end of the file."""
        while True:
            while self.at < len(self.text):
                if self.text[self.at] not in _BLANK:
                    return self.text[self.at]
                self._skip()
            if not self._more():
                return ""

    def _skip(self) -> None:
        self.line += self.text[self.at] == "\n"
        self.at += 1

    def _value(self) -> object:
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                cut = error.pos > len(self.text) - _TAIL or error.msg.startswith("Unterminated string")
                if cut and self._more():
                    continue
                line = self.line + self.text.count("\n", self.at, error.pos)
                raise DataError(f"{self.path}, line {line}: not JSON ({error.msg})") from None
            except RecursionError:
                raise self._wrong("nested too deep") from None
            except ValueError as error:  # a repeated name, or a number of thousands of digits
                raise self._wrong(str(error)) from None
            length = end - self.at
            # A number may go on in the next block, even where it is cut behind its point or exponent.
            if len(self.text) - end <= _CUT_NUMBER and self._more():
                continue
            self.line += self.text.count("\n", self.at, self.at + length)
            self.at += length
            return value

    def _more(self) -> bool:
        """Drop what was taken and read on: as much again as is kept, so that a long element costs linear time."""
        if self.ended:
            return False
        kept = self.text[self.at :]
        block = _read(self.file, self.path, max(self.block, len(kept)))
        self.text, self.at, self.ended = kept + block, 0, not block
        return not self.ended

    def _wrong(self, what: str) -> DataError:
        return DataError(f"{self.path}, line {self.line}: not JSON as expected ({what})")


def _reading(path: Path) -> TextIO:
    try:
        return path.open(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None


def _read(file: TextIO, path: Path, size: int) -> str:
    try:
        return file.read(size)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not text in UTF-8 ({error.reason} at byte {error.start} of a block)") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
