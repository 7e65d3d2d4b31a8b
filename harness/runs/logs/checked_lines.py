"""Lines of JSON that each end with a checksum: the CRC-32 of their other fields."""

from __future__ import annotations

from binascii import crc32
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from harness.core.errors import DataError
from harness.runs.checked_json import first_problem

R = TypeVar("R", bound=BaseModel)


def encode_line(record: BaseModel) -> bytes:
    """Return a record as a line of JSON with its checksum in the last field, ``check``."""
    fields = orjson.dumps(record.model_dump())
    return fields[:-1] + b',"check":"%08x"}\n' % crc32(fields)


def decode_line(kind: type[R], line: bytes, where: str, remedy: str) -> R:
    """Return the record in a line, after comparing its checksum.

    Args:
        where: file and line number, for messages.
        remedy: what to do about a damaged line, for messages.

    Raises:
        DataError: the line is not JSON with a checksum, does not match it, or is no such record.
    """
    try:
        fields: Any = orjson.loads(line)
        check = fields.pop("check")
    except orjson.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error}); {remedy}") from None
    except (AttributeError, KeyError, TypeError):
        raise DataError(f"{where}: expected an object with a checksum (check); {remedy}") from None
    if check != f"{crc32(orjson.dumps(fields)):08x}":
        raise DataError(f"{where}, check: the line does not match its checksum, so it was changed; {remedy}")
    try:
        return kind.model_validate(fields, strict=True)
    except ValidationError as error:
        raise DataError(f"{where}, {first_problem(error)}; {remedy}") from None
