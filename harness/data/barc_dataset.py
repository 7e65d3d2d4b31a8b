"""Datasets of BARC rows: one task per row, or virtual tasks that each draw a random row."""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

from harness.core.errors import DataError
from harness.core.files import uncompressed_path
from harness.core.grid import Pair, Task
from harness.core.random_stream import Stream
from harness.data.barc_download import BARC_FILES, barc_paths
from harness.data.barc_reader import BadRow, BarcFile
from harness.data.line_index import LineIndex, Progress
from harness.data.task_sources import MIN_PAIRS, TRAIN_PAIRS, draw_from_pairs, fixed_stream

VIRTUAL_MIN_PAIRS = 6
"""The fewest examples of a row that a ``barc-...`` spec draws from, as in the original scripts."""
MAX_REDRAWS = 1000


class RowIds(Sequence[str]):
    """The ids ``<file>-<line>`` of all rows, computed on access so that opening 100,000 rows takes no time."""

    def __init__(self, dataset: BarcDataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return self._dataset.n_rows

    def __getitem__(self, index: int) -> str:  # type: ignore[override]
        file, row = self._dataset.locate_row(index)
        return file.row_id(row)


@dataclass(frozen=True)
class VirtualIds(Sequence[str]):
    """The ids ``barc-0``, ``barc-1``, …, computed on access because every training sample reads their number."""

    n: int

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> str:  # type: ignore[override]
        if not 0 <= index < self.n:
            raise IndexError(index)
        return f"barc-{index}"


@dataclass
class BarcDataset:
    """The rows of one or several files. Each draw of a task takes different pairs of its row."""

    spec: str
    files: tuple[BarcFile, ...]
    chosen: Sequence[int] | None = None
    """Indices of the selected rows, counted through all files; None selects all."""
    origin: str = "BARC"

    def __post_init__(self) -> None:
        self._ends = list(accumulate(len(file.index) for file in self.files))

    @property
    def n_rows(self) -> int:
        """Number of rows, without damaged lines."""
        return self._ends[-1] if self.chosen is None else len(self.chosen)

    @property
    def ids(self) -> Sequence[str]:
        return RowIds(self)

    @property
    def skipped(self) -> Counter[str]:
        """Number of pairs and rows skipped so far, by reason."""
        return sum((file.skipped for file in self.files), Counter())

    def locate_row(self, index: int) -> tuple[BarcFile, int]:
        """Return the file of row ``index`` and the row's index within that file."""
        if not 0 <= index < self.n_rows:
            raise IndexError(index)
        if self.chosen is not None:
            index = self.chosen[index]
        file = bisect_right(self._ends, index)
        return self.files[file], index - (self._ends[file - 1] if file else 0)

    def task(self, index: int, stream: Stream | None = None) -> Task:
        """Return a task of row ``index``.

        With a stream, a row without enough usable pairs is replaced by a random other row. Without a stream, the draw
        depends on the row's id only, and such a row is an error.

        Raises:
            BadRow: without a stream, the row has too few usable pairs.
            DataError: none of MAX_REDRAWS drawn rows has enough usable pairs.
        """
        file, row = self.locate_row(index)
        if stream is None:
            name = file.row_id(row)
            return draw_from_pairs(name, file.pairs(row), fixed_stream(name), *TRAIN_PAIRS)
        for _ in range(MAX_REDRAWS):
            try:
                return draw_from_pairs(file.row_id(row), file.pairs(row), stream, *TRAIN_PAIRS)
            except BadRow:
                file, row = self.locate_row(stream.below(self.n_rows))
        raise DataError(f"{self.spec}: none of {MAX_REDRAWS} rows drawn has as many usable pairs as are needed")

    def digest(self) -> str:
        """Return 16 hex digits over the files' content, as hashed at indexing, and over the selected rows."""
        parts = [f"{file.index.sha256} {file.max_examples} {file.min_pairs}" for file in self.files]
        if self.chosen is not None:
            parts.append(hashlib.sha256(array("q", self.chosen).tobytes()).hexdigest())
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def pairs_by_id(self) -> Iterator[tuple[str, tuple[Pair, ...]]]:
        """Yield the id and all usable pairs of each row. Bad rows are skipped and counted in ``skipped``."""
        for index in range(self.n_rows):
            file, row = self.locate_row(index)
            with suppress(BadRow):
                yield file.row_id(row), file.pairs(row)

    def select_tasks(self, indices: Sequence[int], spec: str) -> BarcDataset:
        """Return a dataset of the rows at ``indices``."""
        rows = range(self._ends[-1]) if self.chosen is None else self.chosen
        return replace(self, spec=spec, chosen=array("q", (rows[i] for i in indices)))


@dataclass
class VirtualBarc:
    """``n`` tasks that each draw a random BARC row. ``n`` is BARC's weight in a mixture, as in the original scripts."""

    spec: str
    rows: BarcDataset
    n: int
    origin: str = "BARC"

    @property
    def ids(self) -> Sequence[str]:
        return VirtualIds(self.n)

    @property
    def skipped(self) -> Counter[str]:
        """Number of pairs and rows skipped so far, by reason."""
        return self.rows.skipped

    def task(self, index: int, stream: Stream | None = None) -> Task:
        """Return a task of a random row, with the virtual task's id.

        Raises:
            DataError: none of MAX_REDRAWS drawn rows has enough usable pairs.
        """
        name = f"barc-{index}"
        stream = fixed_stream(name) if stream is None else stream
        return replace(self.rows.task(stream.below(self.rows.n_rows), stream), id=name)

    def digest(self) -> str:
        """Return 16 hex digits over the rows' digest and the number of virtual tasks."""
        return hashlib.sha256(f"{self.rows.digest()} {self.n}".encode()).hexdigest()[:16]

    def pairs_by_id(self) -> Iterator[tuple[str, tuple[Pair, ...]]]:
        """Yield the id of each row that can be drawn, with all its usable pairs."""
        return self.rows.pairs_by_id()

    def select_tasks(self, indices: Sequence[int], spec: str) -> VirtualBarc:
        """Return as many virtual tasks over the rows at ``indices``."""
        return replace(self, spec=spec, rows=self.rows.select_tasks(indices, spec))


def open_barc_files(
    spec: str,
    paths: Sequence[str],
    *,
    max_examples: int | None = None,
    min_pairs: int = MIN_PAIRS,
    strict: bool = False,
    progress: Progress | None = None,
) -> BarcDataset:
    """Open BARC files, and index those that have no fresh index yet.

    Args:
        max_examples: use only that many examples of a row, from its first.
        min_pairs: the fewest usable pairs of a row.
        strict: raise an error for a damaged line instead of skipping it.

    Raises:
        DataError: a file is missing or empty, or with ``strict`` has a damaged line.
    """
    files = [
        BarcFile(LineIndex(uncompressed_path(Path(path)), progress, strict), path, max_examples, min_pairs)
        for path in paths
    ]
    return BarcDataset(spec, tuple(files))


def open_barc(name: str, strict: bool, progress: Progress | None) -> BarcDataset:
    """Open a ``.jsonl`` file of BARC rows, or one of BARC's Hugging Face datasets by its name.

    Raises:
        DataError: there is no such file, it is not a ``.jsonl``, or it is damaged.
    """
    if name in BARC_FILES:
        return open_barc_files(name, barc_paths(name), strict=strict, progress=progress)
    if not name.endswith((".jsonl", ".jsonl.gz")) or not Path(name).is_file():
        raise DataError(f"{name}: not a .jsonl or .jsonl.gz file, nor one of BARC's names ({', '.join(BARC_FILES)})")
    return open_barc_files(name, [name], strict=strict, progress=progress)


def read_all_rows(rows: BarcDataset) -> Iterator[None]:
    """Read every row, so that ``rows.skipped`` counts all that is skipped. Yield once per row, for progress."""
    for index in range(rows.n_rows):
        file, row = rows.locate_row(index)
        with suppress(BadRow):  # counted in ``skipped``
            file.pairs(row)
        yield None
