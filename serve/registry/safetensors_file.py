"""Read the header and check the numbers of a safetensors file with NumPy, without loading torch or a pickle."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from harness.core.errors import AdapterError

LARGEST = 65504.0
"""The largest float16. A larger weight is damage, and overflows in a model that computes in float16."""
_CHUNK = 4 << 20
"""How many numbers ``are_close`` compares at a time."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a file: safetensors dtype name, shape, and byte range counted from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Return the tensors of a safetensors file by name, without reading their data.

    The safetensors library checks that the header describes the data exactly: every byte belongs to one tensor, so
    the byte ranges follow from the order and sizes of the tensors.

    Raises:
        AdapterError: the file cannot be read, is truncated, or its header does not describe its data exactly.
    """
    try:
        size = path.stat().st_size
        with path.open("rb"), safe_open(path, framework="numpy") as file:
            slices = [(name, file.get_slice(name)) for name in file.offset_keys()]
    except SafetensorError as error:
        raise AdapterError(
            f"{path}: damaged, cut short or not a safetensors file ({str(error)[:300]}); copy it again"
        ) from error
    except OSError as error:
        raise AdapterError(f"{path}: cannot be read: {error.strerror or error}") from error
    shapes = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices}
    lengths = {name: prod(shape) * _bits(dtype) // 8 for name, (dtype, shape) in shapes.items()}
    end = size - sum(lengths.values())
    tensors = {}
    for name, (dtype, shape) in shapes.items():
        start, end = end, end + lengths[name]
        tensors[name] = TensorInfo(dtype, shape, start, end)
    return tensors


def _bits(dtype: str) -> int:
    """Return the size of one number of a safetensors dtype in bits: the first number in its name, such as BF16."""
    digits = re.search(r"\d+", dtype)
    return int(digits[0]) if digits else 8  # BOOL


def count_bad_numbers(path: Path, tensor: TensorInfo) -> int:
    """Return how many numbers of a floating point tensor are NaN, infinite or of a magnitude above LARGEST."""
    numbers = _read_numbers(path, tensor)
    return len(numbers) - int(np.count_nonzero(np.abs(numbers) <= LARGEST))


def largest_number(path: Path, tensor: TensorInfo) -> float:
    """Return the largest absolute value of a floating point tensor, 0 for an empty one."""
    numbers = _read_numbers(path, tensor)
    return float(np.abs(numbers).max()) if len(numbers) else 0.0


def are_close(one: tuple[Path, TensorInfo], other: tuple[Path, TensorInfo]) -> bool:
    """Return whether two floating point tensors of the same shape are equal.

    Tensors of different dtypes may differ by the rounding of the coarser dtype.
    """
    (path, first), (other_path, second) = one, other
    coarse = {"BF16": 2.0**-8, "F16": 2.0**-10}
    tolerance = (
        max(coarse.get(tensor.dtype, 2.0**-20) for tensor in (first, second)) if first.dtype != second.dtype else 0.0
    )
    for start in range(0, prod(first.shape), _CHUNK):
        a, b = (_read_numbers(p, t, start, _CHUNK).astype("<f8") for p, t in ((path, first), (other_path, second)))
        if not bool(np.all(np.abs(a - b) <= tolerance * np.abs(b) + tolerance * 1e-6)):
            return False
    return True


def _read_numbers(path: Path, tensor: TensorInfo, start: int = 0, count: int | None = None) -> np.ndarray:
    """Return numbers of a floating point tensor as a flat array: at most ``count`` (None for all) from ``start`` on."""
    kinds = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
    left = prod(tensor.shape) - start
    count = left if count is None else min(count, left)
    offset = tensor.start + start * _bits(tensor.dtype) // 8
    numbers = np.fromfile(path, dtype=kinds[tensor.dtype], count=count, offset=offset)
    return (numbers.astype("<u4") << 16).view("<f4") if tensor.dtype == "BF16" else numbers
