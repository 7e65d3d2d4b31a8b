"""Checks of the fields of records that are read without pydantic, for speed."""

from __future__ import annotations

from harness.core.errors import DataError, short_repr


def check_text(value: object, where: str, field: str) -> str:
    """Return the value if it is a text, else raise DataError naming ``where`` and the field."""
    if type(value) is not str:
        raise DataError(f"{where}, {field}: expected a text, got {short_repr(value)}")
    return value


def check_object(value: object, where: str) -> dict[str, object]:
    """Return the value if it is a JSON object, else raise DataError naming ``where``."""
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected an object, got {short_repr(value)}")
    return value


def check_index(value: object, where: str, field: str) -> int:
    """Return the value if it is an integer in [0, 2**63), else raise DataError naming ``where`` and the field."""
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise DataError(f"{where}, {field}: expected a whole number from 0, got {short_repr(value)}")
    return value


def check_number(value: object, where: str, field: str) -> float | None:
    """Return the value if it is a number or null, else raise DataError naming ``where`` and the field."""
    if value is not None and type(value) is not float and type(value) is not int:
        raise DataError(f"{where}, {field}: expected a number or null, got {short_repr(value)}")
    try:
        return None if value is None else float(value)
    except OverflowError:
        raise DataError(f"{where}, {field}: {short_repr(value)} is too large") from None
