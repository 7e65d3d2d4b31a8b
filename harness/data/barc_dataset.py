"""Datasets of BARC rows: every row under its own id, or virtual ids that stand for random rows."""

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
from harness.data.task_sources import MIN_PAIRS, TRAIN_PAIRS, draw_task, fixed_stream

VIRTUAL_MIN_PAIRS = 6
"""The fewest examples of a row that the original's ``barc-...`` specs draw from."""
MAX_REDRAWS = 1000


class RowIds(Sequence[str]):
    """Ids ``<file>-<line>`` made on demand, so that a hundred thousand cost nothing."""

    def __init__(self, dataset: BarcDataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return self._dataset.n_rows

    def __getitem__(self, index: int) -> str:  # type: ignore[override]
        file, row = self._dataset.locate(index)
        return file.row_id(row)


@dataclass(frozen=True)
class VirtualIds(Sequence[str]):
    """Ids ``barc-0`` … made on demand: a training sample asks how many there are."""

    n: int

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> str:  # type: ignore[override]
        if not 0 <= index < self.n:
            raise IndexError(index)
        return f"barc-{index}"


@dataclass
class BarcDataset:
    """Rows of one or several files; each draw of a task shows other pairs of its row."""

    spec: str
    files: tuple[BarcFile, ...]
    chosen: Sequence[int] | None = None
    """Which rows, counted through all files; None for all."""
    origin: str = "BARC"

    def __post_init__(self) -> None:
        self._ends = list(accumulate(len(file.index) for file in self.files))

    @property
    def n_rows(self) -> int:
        """How many rows there are, damaged lines left out."""
        return self._ends[-1] if self.chosen is None else len(self.chosen)

    @property
    def ids(self) -> Sequence[str]:
        return RowIds(self)

    @property
    def skipped(self) -> Counter[str]:
        """What was left out so far, by reason."""
        return sum((file.skipped for file in self.files), Counter())

    def locate(self, index: int) -> tuple[BarcFile, int]:
        """The file of row ``index`` and its place in it."""
        if not 0 <= index < self.n_rows:
            raise IndexError(index)
        if self.chosen is not None:
            index = self.chosen[index]
        which = bisect_right(self._ends, index)
        return self.files[which], index - (self._ends[which - 1] if which else 0)

    def task(self, index: int, stream: Stream | None = None) -> Task:
        """A task of row ``index``. A draw passes over a row that gives none to a random other; the fixed draw does not.

        Raises:
            BadRow: the row gives no task, in the fixed draw. DataError: no row of MAX_REDRAWS drawn gives one.
        """
        file, row = self.locate(index)
        if stream is None:
            name = file.row_id(row)
            return draw_task(name, file.pairs(row), fixed_stream(name), *TRAIN_PAIRS)
        for _ in range(MAX_REDRAWS):
            try:
                return draw_task(file.row_id(row), file.pairs(row), stream, *TRAIN_PAIRS)
            except BadRow:
                file, row = self.locate(stream.below(self.n_rows))
        raise DataError(f"{self.spec}: none of {MAX_REDRAWS} rows drawn has as many usable pairs as are needed")

    def digest(self) -> str:
        """A hash of the files' content, taken when they were indexed, and of the choice of rows."""
        parts = [f"{file.index.sha256} {file.max_examples} {file.min_pairs}" for file in self.files]
        if self.chosen is not None:
            parts.append(hashlib.sha256(array("q", self.chosen).tobytes()).hexdigest())
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def pairs_by_id(self) -> Iterator[tuple[str, tuple[Pair, ...]]]:
        """Every good row with all its usable pairs; bad rows are counted in ``skipped``."""
        for index in range(self.n_rows):
            file, row = self.locate(index)
            try:
                yield file.row_id(row), file.pairs(row)
            except BadRow:
                continue

    def select(self, indices: Sequence[int], spec: str) -> BarcDataset:
        """Some of the rows."""
        own = range(self._ends[-1]) if self.chosen is None else self.chosen
        return replace(self, spec=spec, chosen=array("q", (own[i] for i in indices)))


@dataclass
class VirtualBarc:
    """``n`` ids that stand for BARC rows drawn at random: the original's way of weighting BARC in a mixture."""

    spec: str
    rows: BarcDataset
    n: int
    origin: str = "BARC"

    @property
    def ids(self) -> Sequence[str]:
        return VirtualIds(self.n)

    @property
    def skipped(self) -> Counter[str]:
        """What was left out so far, by reason."""
        return self.rows.skipped

    def task(self, index: int, stream: Stream | None = None) -> Task:
        """A task from a random row, under the virtual id.

        Raises:
            DataError: no row of MAX_REDRAWS drawn gives a task.
        """
        name = f"barc-{index}"
        stream = fixed_stream(name) if stream is None else stream
        return replace(self.rows.task(stream.below(self.rows.n_rows), stream), id=name)

    def digest(self) -> str:
        """A hash of the files' content and the number of ids."""
        return hashlib.sha256(f"{self.rows.digest()} {self.n}".encode()).hexdigest()[:16]

    def pairs_by_id(self) -> Iterator[tuple[str, tuple[Pair, ...]]]:
        """Every row that may be drawn, with all pairs that may be shown."""
        return self.rows.pairs_by_id()

    def select(self, indices: Sequence[int], spec: str) -> VirtualBarc:
        """The same number of virtual ids over some of the rows."""
        return replace(self, spec=spec, rows=self.rows.select(indices, spec))


def open_barc_files(
    spec: str,
    paths: Sequence[str],
    *,
    max_examples: int | None = None,
    min_pairs: int = MIN_PAIRS,
    strict: bool = False,
    progress: Progress | None = None,
) -> BarcDataset:
    """The rows of BARC files, indexed where they are not yet.

    Raises:
        DataError: a file is missing or empty, or with ``strict`` has a damaged line.
    """
    files = [
        BarcFile(LineIndex(uncompressed_path(Path(path)), progress, strict), path, max_examples, min_pairs)
        for path in paths
    ]
    return BarcDataset(spec, tuple(files))


def open_barc(name: str, strict: bool, progress: Progress | None) -> BarcDataset:
    """Open a ``.jsonl`` file of BARC rows, or one of BARC's Hugging Face data sets by its name.

    Raises:
        DataError: there is no such file, it is not a ``.jsonl``, or it is damaged.
    """
    if name in BARC_FILES:
        return open_barc_files(name, barc_paths(name), strict=strict, progress=progress)
    if not name.endswith((".jsonl", ".jsonl.gz")) or not Path(name).is_file():
        raise DataError(f"{name}: not a .jsonl or .jsonl.gz file, nor one of BARC's names ({', '.join(BARC_FILES)})")
    return open_barc_files(name, [name], strict=strict, progress=progress)


def read_all_rows(rows: BarcDataset) -> Iterator[None]:
    """Read every row, so that ``rows.skipped`` counts all that is left out. Yields once per row, for progress."""
    for index in range(rows.n_rows):
        file, row = rows.locate(index)
        with suppress(BadRow):  # counted in ``skipped``
            file.pairs(row)
        yield None
