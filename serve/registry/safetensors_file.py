"""Read the header and check the numbers of a safetensors file with NumPy alone (no torch, no pickle).

Format: 8 bytes of little-endian header length, a JSON header of names with dtype, shape and byte range, then the data.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path

import numpy as np

from harness.core.errors import AdapterError

LARGEST = 65504.0
"""The largest float16. A weight beyond it is damage, and overflows where a model computes in that type."""
_MAX_HEADER = 64 << 20
_CHUNK = 4 << 20
"""Numbers that are compared at a time."""
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_BYTES |= {"U16": 2, "U32": 4, "U64": 8, "F8_E4M3": 1, "F8_E5M2": 1}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a file: safetensors dtype name, shape, and byte range counted from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(path: Path) -> dict[str, TensorInfo]:
    """The tensors of a safetensors file by name.

    Raises:
        AdapterError: the file is unreadable, truncated, or its header does not describe its data exactly.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(8)
            length = struct.unpack("<Q", head)[0] if len(head) == 8 else _MAX_HEADER + 1
            if length > min(_MAX_HEADER, size):
                raise AdapterError(f"{path}: not a safetensors file (its first 8 bytes are no header length)")
            raw = json.loads(file.read(length))
    except OSError as error:
        raise AdapterError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"{path}: not a safetensors file (its header is not JSON: {error})") from error
    if not isinstance(raw, dict):
        raise AdapterError(f"{path}: not a safetensors file (its header is not an object)")
    base = 8 + length
    tensors = {name: _tensor(path, name, entry, base) for name, entry in raw.items() if name != "__metadata__"}
    _check_layout(path, tensors, base, size)
    return tensors


def _tensor(path: Path, name: str, entry: object, base: int) -> TensorInfo:
    try:
        if not isinstance(entry, dict):
            raise TypeError("not an object")
        dtype, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        if dtype not in _BYTES:
            raise ValueError(f"unknown dtype {dtype!r}")
        numbers = [*shape, start, end]
        if not all(type(n) is int and n >= 0 for n in numbers) or end - start != prod(shape) * _BYTES[dtype]:
            raise ValueError("its shape and byte range disagree")
    except (KeyError, TypeError, ValueError) as error:
        raise AdapterError(f"{path}: damaged safetensors header at tensor {name!r}: {error}") from error
    return TensorInfo(dtype, tuple(shape), base + start, base + end)


def _check_layout(path: Path, tensors: dict[str, TensorInfo], base: int, size: int) -> None:
    ranges = sorted((t.start, t.end) for t in tensors.values())
    if any(after[0] < before[1] for before, after in pairwise(ranges)):
        raise AdapterError(f"{path}: damaged safetensors header: two tensors share bytes")
    # The format allows no holes; one is where a damaged name hid a tensor behind another of the same name.
    if ranges and (ranges[0][0] != base or any(after[0] > before[1] for before, after in pairwise(ranges))):
        raise AdapterError(f"{path}: damaged safetensors header: some bytes belong to no tensor")
    needed = ranges[-1][1] if ranges else base
    if size != needed:
        word = "truncated" if size < needed else "followed by foreign bytes"
        raise AdapterError(f"{path}: {word}: {size} bytes, but its header describes {needed}")


def count_bad_numbers(path: Path, tensor: TensorInfo) -> int:
    """How many entries of a floating point tensor are NaN, or beyond LARGEST in size (infinities among them)."""
    numbers = _numbers(path, tensor)
    return len(numbers) - int(np.count_nonzero(np.abs(numbers) <= LARGEST))


def largest_number(path: Path, tensor: TensorInfo) -> float:
    """The largest absolute value of a floating point tensor, 0 for an empty one."""
    numbers = _numbers(path, tensor)
    return float(np.abs(numbers).max()) if len(numbers) else 0.0


def are_close(one: tuple[Path, TensorInfo], other: tuple[Path, TensorInfo]) -> bool:
    """Whether two floating point tensors of one shape are equal but for the rounding of the coarser type."""
    (path, first), (other_path, second) = one, other
    coarse = {"BF16": 2.0**-8, "F16": 2.0**-10}
    tolerance = (
        max(coarse.get(tensor.dtype, 2.0**-20) for tensor in (first, second)) if first.dtype != second.dtype else 0.0
    )
    for start in range(0, prod(first.shape), _CHUNK):
        a, b = (_numbers(p, t, start, _CHUNK).astype("<f8") for p, t in ((path, first), (other_path, second)))
        if not bool(np.all(np.abs(a - b) <= tolerance * np.abs(b) + tolerance * 1e-6)):
            return False
    return True


def _numbers(path: Path, tensor: TensorInfo, start: int = 0, count: int | None = None) -> np.ndarray:
    """The entries of a floating point tensor, flat; ``count`` of them from ``start`` on."""
    kinds = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
    left = prod(tensor.shape) - start
    count = left if count is None else min(count, left)
    offset = tensor.start + start * _BYTES[tensor.dtype]
    numbers = np.fromfile(path, dtype=kinds[tensor.dtype], count=count, offset=offset)
    return (numbers.astype("<u4") << 16).view("<f4") if tensor.dtype == "BF16" else numbers
