"""``bench ttt --rescore --deadline`` without a trainer: log-probabilities that the deadline cuts."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from time import monotonic

import orjson
import pytest

from harness.candidates.rescores import RESCORES_FILE, read_rescores
from harness.cli.workflows.ttt.answering.rescoring import RescoringCutError
from harness.cli.workflows.ttt.answering.servers import loss_is_cut
from harness.core.deadline import Deadline
from harness.core.errors import ServerError
from harness.runs.folder import RunFolder
from tests.support.commands import run_bench
from tests.support.runs.cut_runs import answer_again
from tests.support.runs.ttt_deadlines import HOUR, passes_at, run
from tests.support.runs.ttt_runs import IDS, VIEWS, Site
from tests.support.servers.adapter_server import AdapterServer
from tests.support.servers.chat_answers import Body

Capture = pytest.CaptureFixture[str]
TOTAL = VIEWS * len(IDS)


def test_a_deadline_before_the_rescoring(
    site: Site, server: AdapterServer, whole: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "run"
    deadline = Deadline(HOUR)
    server.refuse = passes_at(deadline, TOTAL)
    missing = run(site, out, deadline, rescore=2)
    assert missing is not None
    assert (missing.count, missing.noun) == (missing.total, "log-probabilities")
    assert not missing.is_everything
    assert not (out / RESCORES_FILE).exists()
    assert RunFolder(out).manifest().finished is not None
    assert run_bench(capsys, "score", out)[0] == 0
    status, _, errors = run_bench(capsys, "score", out, "--rule", "poe")
    assert status != 0
    assert "bench rescore" in errors


def test_a_deadline_during_the_rescoring(site: Site, server: AdapterServer, tmp_path: Path, capsys: Capture) -> None:
    """The header counts the whole run, though every session rescores one task."""
    out, expected = tmp_path / "run", tmp_path / "expected"
    assert run(site, expected, None, rescore=2) is None
    deadline = Deadline(HOUR)

    def notice(body: Body) -> Body:
        object.__setattr__(deadline, "started", monotonic() - HOUR)
        return body

    server.spoil_scores = notice
    missing = run(site, out, deadline, rescore=2)
    server.spoil_scores = lambda body: body
    rescores, complete = read_rescores(out / RESCORES_FILE), read_rescores(expected / RESCORES_FILE)
    assert missing is not None
    assert rescores is not None
    assert rescores.header.deadline is not None
    assert complete is not None
    cut = rescores.header.deadline["mine"]
    lines = rescores.scorers["mine"].lines
    assert 0 < lines < complete.scorers["mine"].lines
    assert (cut.total, cut.missing) == (complete.scorers["mine"].lines, complete.scorers["mine"].lines - lines)
    assert (missing.count, missing.total) == (cut.missing, cut.total)
    status, _, errors = run_bench(capsys, "score", out, "--rule", "poe")
    assert status == 0, errors
    assert f"missing by the deadline (1h): {cut.missing} of {cut.total} log-probabilities" in errors
    assert run(site, out, None, rescore=2) is None
    assert saved_lines(out) == saved_lines(expected)


def test_what_servers_failed_on_is_not_missing_by_the_deadline(
    site: Site, server: AdapterServer, tmp_path: Path, capsys: Capture
) -> None:
    """The first request for scores is refused, and the deadline passes at the third, of the second task."""
    out, expected, deadline = tmp_path / "run", tmp_path / "expected", Deadline(HOUR)
    before = len(server.requests)
    assert run(site, expected, Deadline(HOUR), rescore=2) is None
    scored = [body for body in server.requests[before:] if "prompts" in body]
    assert len(scored) >= 2 * len(IDS)
    numbers = count(1)

    def refuse(body: Body) -> tuple[int, Body] | None:
        if "prompts" not in body:
            return None
        if (number := next(numbers)) == 3:
            object.__setattr__(deadline, "started", monotonic() - HOUR)
        return (400, {"error": {"message": "no"}}) if number == 1 else None

    server.refuse = refuse
    missing = run(site, out, deadline, rescore=2)
    answer_again(server)
    rescores = read_rescores(out / RESCORES_FILE)
    assert missing is not None
    assert rescores is not None
    assert rescores.header.deadline is not None
    assert missing.failed == sum(len(item["answers"]) for item in scored[0]["prompts"]) > 0
    assert missing.count >= sum(len(item["answers"]) for item in scored[-1]["prompts"]) > 0
    assert missing.total == missing.count + missing.failed + rescores.scorers["mine"].lines
    assert rescores.header.deadline["mine"].missing == missing.count
    words = site.words(out, "--training-deadline", "0.001s", "--rescore", 2, "--resume")
    server.refuse = lambda body: (400, {"error": {"message": "no"}}) if body.get("prompts") else None
    status, _, errors = run_bench(capsys, *words)
    assert status == 1
    assert "servers failed on" in errors
    answer_again(server)
    assert run(site, out, None, rescore=2) is None
    assert saved_lines(out) == saved_lines(expected)


def test_a_server_that_ends_with_the_deadline_hides_no_failure() -> None:
    """``serving`` gives the server's end as the reason; what the session knew before stays known."""
    cut = RescoringCutError("the deadline passed", failed=3)
    with pytest.raises(RescoringCutError) as raised, loss_is_cut(Deadline(0.001)):
        raise ServerError("the server ended while it served") from cut
    assert raised.value is cut


def saved_lines(out: Path) -> list[bytes]:
    """Return the lines of rescores.jsonl without checksums and the digest of predictions, which have times."""
    rows = [orjson.loads(line) for line in (out / RESCORES_FILE).read_bytes().splitlines()]
    assert "deadline" not in rows[0]
    return sorted(orjson.dumps([row[key] for key in ("task_id", "grid", "view", "logprob")]) for row in rows[1:])
