"""JSON files that hold one record, with a checksum of their content."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from harness.core.errors import RunError
from harness.core.files import write_atomically

R = TypeVar("R", bound=BaseModel)


def write_record(path: Path, record: BaseModel) -> None:
    """Write a record as JSON atomically, with a checksum of its content.

    Raises:
        RunError: the file cannot be written.
    """
    fields = record.model_dump()
    content = {**fields, "checksum": _checksum(fields)}
    write_atomically(path, orjson.dumps(content, option=orjson.OPT_INDENT_2))


def read_record(path: Path, kind: type[R], noun: str, has_checksum: bool = False) -> R:
    """Return a JSON file as a record.

    Args:
        noun: what a folder with this file is, such as ``run``.
        has_checksum: whether the file may have a checksum, which is compared.

    Raises:
        RunError: the file is missing, unreadable or invalid, or does not match its checksum.
    """
    try:
        content = path.read_bytes()
        return kind.model_validate_json(_remove_checksum(path, content) if has_checksum else content)
    except FileNotFoundError:
        raise RunError(f"{path} is missing: {path.parent} is not a {noun}, or it did not get that far") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        raise RunError(_other_kind(path, content, noun) or f"{path}: {first_problem(error)}") from None


def first_problem(error: ValidationError) -> str:
    """Return field and message of the first validation error."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}"


def _other_kind(path: Path, content: bytes, noun: str) -> str | None:
    """Return a message if the file is of another kind of folder, by its field ``kind``, which runs do not have."""
    try:
        fields = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    kind = fields.get("kind", "run") if isinstance(fields, dict) else noun
    if kind == noun:
        return None
    remedy = " (bench score, report, submit and rescore take it)" if kind == "pool" else ""
    return f"{path.parent} is a {kind}, not a {noun}{remedy}"


def _checksum(fields: dict[str, object]) -> str:
    """Return the SHA-256 of the fields as JSON with sorted keys."""
    return hashlib.sha256(orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _remove_checksum(path: Path, content: bytes) -> bytes:
    """Return JSON without its checksum, after comparing it; JSON of older runs has none.

    Raises:
        RunError: the content does not match the checksum.
    """
    try:
        fields = orjson.loads(content)
    except orjson.JSONDecodeError:
        return content  # validation will report it
    if not isinstance(fields, dict) or "checksum" not in fields:
        return content
    if fields.pop("checksum") != _checksum(fields):
        raise RunError(
            f"{path}: does not fit its checksum, so that it was changed since it was written; restore it, or take the "
            'line "checksum" out of it if the change was meant'
        )
    return orjson.dumps(fields)
