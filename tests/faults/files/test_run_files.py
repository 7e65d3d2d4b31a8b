"""Files of a run that are truncated or have a bit flipped."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.core.errors import ArcBenchError
from harness.runs.logs.prediction_log import PredictionLog
from harness.runs.logs.prediction_reader import read_predictions
from tests.faults.damage import READERS, flipped_copies, read_by, sample_numbers, truncated_copies
from tests.faults.matrix import count_cases, mostly_slow
from tests.support.runs.run_folders import edit_manifest
from tests.support.runs.sampling_runs import predictions_without_times, run_options, run_sampling
from tests.support.servers.chat_answers import mixed_answer
from tests.support.servers.chat_server import ChatServer

FILES = ("manifest.json", "predictions.jsonl")
SMALL = {"dataset": "toy/copy/evaluation#n=2", "n": 2}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of two models, two tasks and two predictions each."""
    out = tmp_path_factory.mktemp("whole") / "run"
    with ChatServer(mixed_answer) as server:
        run_sampling(run_options(server, out, **SMALL))
    return out


@pytest.fixture
def run(tmp_path: Path, whole: Path) -> Path:
    """Return a copy of the run to damage."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


def damaged(run: Path, times: int) -> Iterator[tuple[Path, bytes]]:
    """Damage each file of a run ``times`` times by a flipped bit and by truncation, and restore it afterwards."""
    for name in FILES:
        path = run / name
        data = path.read_bytes()
        changed = [
            *flipped_copies(data, sample_numbers(f"bits of {name}", 8 * len(data), times)),
            *truncated_copies(data, sample_numbers(f"sizes of {name}", len(data), times)),
        ]
        for content in changed:
            path.write_bytes(content)
            yield path, content
        path.write_bytes(data)


def check_readers(run: Path, readers: tuple[str, ...], times: int) -> None:
    """Assert that readers refuse the damaged run by name or give the undisturbed result."""
    undisturbed = {reader: read_by(reader, run, run.parent) for reader in readers}
    assert {status for status, _, _ in undisturbed.values()} <= {0, 3}  # 3: too few tasks for the gate to tell
    for path, content in damaged(run, times):
        for reader in readers:
            status, out, err = read_by(reader, run, run.parent)
            refused = status == (4 if reader == "gate" else 1) and err.startswith("error: ") and path.name in err
            assert refused or (status, out) == undisturbed[reader][:2], (path, content, err)
        count_cases(len(readers))


def test_a_damaged_run_is_refused(run: Path) -> None:
    """A finished run with a flipped bit or truncated file: bench score and compare refuse it and name the file, or
    give the undisturbed result.
    """
    check_readers(run, ("score", "compare"), 8)


@pytest.mark.slow
def test_a_damaged_run_is_refused_by_every_reader(run: Path) -> None:
    """A finished run damaged at more places is refused by bench score, compare, gate, submit and report alike."""
    check_readers(run, tuple(READERS), 25)


@pytest.mark.long
def test_every_bit_of_a_run(run: Path) -> None:
    """manifest.json and predictions.jsonl of a finished run with any bit flipped or truncated to any length: bench
    compare refuses them.
    """
    check_readers(run, ("compare",), 1 << 30)


def check_resume(run: Path, times: int) -> None:
    """Assert that a damaged finished run is not resumed and not changed."""
    undisturbed = predictions_without_times(run)
    with ChatServer(mixed_answer) as server:
        chosen = run_options(server, run, **SMALL, resume=True)
        for path, content in damaged(run, times):
            other = run / FILES[path.name == FILES[0]]
            original = other.read_bytes()
            refused = ""
            try:
                run_sampling(chosen)
            except ArcBenchError as error:
                refused = str(error)
            if refused:
                assert path.name in refused
                assert path.read_bytes() == content, "what is refused is left as it is"
            else:
                assert predictions_without_times(run) == undisturbed
            other.write_bytes(original)
            count_cases()


def test_a_damaged_run_is_not_resumed(run: Path) -> None:
    """A damaged finished run is not resumed: the error names the file, and the run is left unchanged."""
    check_resume(run, 3)


@pytest.mark.slow
def test_a_damaged_run_is_not_resumed_at_many_places(run: Path) -> None:
    """A finished run damaged at more places is not resumed."""
    check_resume(run, 60)


@pytest.mark.parametrize("reader", mostly_slow({name: name for name in READERS}, "score"))
def test_a_damaged_unfinished_run(run: Path, reader: str) -> None:
    """An unfinished run with a flipped bit in its predictions: the command refuses it and names the line, or
    completes; never a traceback. A digit changed within a valid line cannot be detected.
    """
    edit_manifest(run, finished=None, predictions_sha256=None)
    path = run / "predictions.jsonl"
    data = path.read_bytes()
    for content in flipped_copies(
        data, sample_numbers(f"unfinished {reader}", 8 * len(data), 10 if reader == "report" else 40)
    ):
        path.write_bytes(content)
        status, _, err = read_by(reader, run, run.parent)
        failed = 4 if reader == "gate" else 1
        assert status in (0, failed, 3), err
        if status == failed:
            assert err.startswith("error: ")
            assert path.name in err
        count_cases()


def test_every_byte_of_the_last_line(run: Path) -> None:
    """A last line truncated at any byte is skipped by readers and removed by the next writer."""
    path = run / "predictions.jsonl"
    data = path.read_bytes()
    start = data.rindex(b"\n", 0, -1) + 1
    for content in truncated_copies(data, range(start, len(data))):
        path.write_bytes(content)
        assert sum(1 for _ in read_predictions(path)) == data.count(b"\n") - 1
        PredictionLog(path).close()
        assert path.read_bytes() == data[:start]
        count_cases()


def check_truncated(run: Path, sizes: list[int]) -> None:
    """Assert that a truncated log is completed to an undisturbed run."""
    undisturbed = predictions_without_times(run)
    path = run / "predictions.jsonl"
    data = path.read_bytes()
    edit_manifest(run, finished=None, predictions_sha256=None)
    original = (run / "manifest.json").read_bytes()
    with ChatServer(mixed_answer) as server:
        chosen = run_options(server, run, **SMALL, resume=True)
        for content in truncated_copies(data, sizes):
            path.write_bytes(content)
            (run / "manifest.json").write_bytes(original)
            assert run_sampling(chosen).sampled == data.count(b"\n") - content.count(b"\n")
            assert predictions_without_times(run) == undisturbed
            count_cases()


def test_a_truncated_run_is_completed(run: Path) -> None:
    """Predictions truncated at any byte: the resumed run requests only the missing ones, and equals an undisturbed
    run.
    """
    check_truncated(run, sample_numbers("torn", (run / "predictions.jsonl").stat().st_size, 5))


@pytest.mark.long
def test_a_run_truncated_at_every_byte_of_its_last_line_is_completed(run: Path) -> None:
    """Predictions truncated at every byte of the last line: the resumed run equals an undisturbed one."""
    data = (run / "predictions.jsonl").read_bytes()
    check_truncated(run, list(range(data.rindex(b"\n", 0, -1) + 1, len(data))))


def lines_of(run: Path) -> list[bytes]:
    return (run / "predictions.jsonl").read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize("change", ["lost", "doubled", "of another run", "null bytes"])
def test_lines_that_are_lost_or_added(run: Path, change: str) -> None:
    """A line that is missing, duplicated, of an unknown model, or null bytes: a finished run is refused by readers
    and resume; an unfinished one is refused or the missing predictions are requested.
    """
    undisturbed, lines = predictions_without_times(run), lines_of(run)
    for finished in (True, False):
        for place in (0, len(lines) // 2, len(lines) - 1):
            line = lines[place]
            instead = {
                "lost": b"",
                "doubled": line * 2,
                "of another run": line.replace(b'"model":"', b'"model":"x'),
                "null bytes": bytes(len(line) - 1) + b"\n",
            }[change]
            changed = b"".join([*lines[:place], instead, *lines[place + 1 :]])
            (run / "predictions.jsonl").write_bytes(changed)
            status, _, err = read_by("compare", run, run.parent)
            if finished or change != "lost":
                assert (status, "predictions.jsonl" in err) == (1, True)
            else:
                assert (status, "unfinished" in err) == (0, True)
            count_cases()
        edit_manifest(run, finished=None, predictions_sha256=None)
    (run / "predictions.jsonl").write_bytes(changed)
    with ChatServer(mixed_answer) as server:
        chosen = run_options(server, run, **SMALL, resume=True)
        if change == "lost":
            assert run_sampling(chosen).sampled == 1
            assert predictions_without_times(run) == undisturbed
        else:
            with pytest.raises(ArcBenchError, match=r"predictions\.jsonl"):
                run_sampling(chosen)
    count_cases()


def test_damaged_results_and_leftovers_change_nothing(run: Path) -> None:
    """results.json, the lock file and temporary files of a killed process, with any content, change no result."""
    read_by("score", run, run.parent)
    undisturbed = {reader: read_by(reader, run, run.parent) for reader in ("score", "compare")}
    for name in ("results.json", ".lock", ".tmp-abc", ".tmp-predictions.jsonl"):
        for content in (b"", b"{", b'{"models": {}}', b"\xff\x00" * 50):
            for reader, expected in undisturbed.items():
                (run / name).write_bytes(content)
                assert read_by(reader, run, run.parent) == expected
                count_cases()
