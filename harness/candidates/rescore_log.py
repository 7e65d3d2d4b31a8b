"""Append lines to rescores.jsonl, which is continued only if it belongs to the same predictions and weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.candidates.rescores import RescoreHeader, RescoreRecord, Rescores, read_rescores
from harness.core.errors import RunError
from harness.core.files import atomic_writer
from harness.runs.logs.checked_lines import encode_line
from harness.runs.logs.prediction_log import PredictionLog
from harness.runs.schemas.deadline_record import RescoreDeadline


class RescoreLog:
    """Appends lines to the rescores.jsonl of a folder, which the caller has locked.

    Opening removes an incomplete last line, and begins a file with its header.

    Args:
        top: by scorer of this session, ``--top``; None for all candidates. Other scorers keep theirs.

    Attributes:
        rescores: the content when it was opened.

    Raises:
        RunError: the file belongs to other predictions, another seed, or another number of views.
        DataError: as ``read_rescores``.
    """

    def __init__(self, path: Path, header: RescoreHeader, top: Mapping[str, int | None]) -> None:
        self.path = path
        before = read_rescores(path)
        if before is not None:
            check_header(path, before.header, header)
        header = _of_session(header if before is None else before.header, top)
        if before is None or header != before.header:
            _write_header(path, header)
        self.rescores = Rescores(header, {} if before is None else before.scorers)
        self._log = PredictionLog(path, kind="scores", repeat="repeat the command")

    def append(self, record: RescoreRecord) -> None:
        """Add a line; it is on disk after the next ``commit``."""
        self._log.append(encode_line(record))

    def commit(self) -> None:
        """Write the appended lines and fsync; may run in another thread than ``append``.

        Raises:
            RunError: they cannot be written.
        """
        self._log.commit()

    def record_deadlines(self, deadlines: Mapping[str, RescoreDeadline]) -> None:
        """Commit, close the file, and write to its header what the deadline of this session left out.

        Args:
            deadlines: by scorer.

        Raises:
            RunError: the file cannot be written.
        """
        self.close()
        before = self.rescores.header
        merged = {**(before.deadline or {}), **deadlines}
        _write_header(self.path, before.model_copy(update={"deadline": dict(sorted(merged.items())) or None}))

    def close(self) -> None:
        """Commit and close the file (raises as ``commit``)."""
        self._log.close()


def check_header(path: Path, saved: RescoreHeader, wanted: RescoreHeader) -> None:
    """Check that a file of rescores can be continued.

    Raises:
        RunError: it belongs to other predictions, another dataset or seed, or has another number of views.
    """
    remedy = f"move {path.name} away, and bench rescore starts a new file"
    for name, what in (
        ("predictions_sha256", "other predictions"),
        ("run", "another dataset"),
        ("seed", "another seed"),
    ):
        if (before := getattr(saved, name)) != (now := getattr(wanted, name)):
            raise RunError(f"{path}: was made for {what} ({name} {before}, now {now}): {remedy}")
    if saved.views != wanted.views:
        raise RunError(
            f"{path}: was begun with {saved.views} views, not {wanted.views}: give --views {saved.views}, or {remedy}"
        )


def check_scorer_hashes(path: Path, rescores: Rescores, hashes: Mapping[str, str | None]) -> None:
    """Check that scorers have the weights with which they scored before.

    Args:
        hashes: by scorer, the content hash of its weights.

    Raises:
        RunError: one has others; the message says what to do.
    """
    for name, now in hashes.items():
        lines = rescores.scorers.get(name)
        if lines is not None and lines.by_output and lines.hash != now:
            raise RunError(
                f"{path}: {name} scored with other weights ({lines.hash}) than the server has under this name now "
                f"({now}): serve those, name a version (NAME@VERSION), or move {path.name} away"
            )


def _of_session(header: RescoreHeader, top: Mapping[str, int | None]) -> RescoreHeader:
    """Return the header with ``--top`` of this session's scorers, and without what earlier deadlines left out of them.

    Args:
        top: of the scorers of this session.
    """
    merged = {**(header.top or {}), **top}
    limits = {scorer: limit for scorer, limit in sorted(merged.items()) if limit is not None}
    deadlines = {scorer: cut for scorer, cut in (header.deadline or {}).items() if scorer not in top}
    return header.model_copy(update={"top": limits or None, "deadline": deadlines or None})


def _write_header(path: Path, header: RescoreHeader) -> None:
    """Replace the first line of a file atomically, or begin the file.

    Raises:
        RunError: it cannot be written.
    """
    try:
        with atomic_writer(path, draft=path.with_name(f".tmp-{path.name}")) as file:
            file.write(encode_line(header))
            if path.exists():
                with path.open("rb") as lines:
                    next(lines, b"")
                    for line in lines:
                        file.write(line)
    except OSError as error:
        raise RunError(f"{path}: cannot write ({error.strerror}); it is as it was. Make room") from None
