"""``bench rescore`` as a command: what it prints, its exit statuses, and the commands that read its file."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from tests.support.commands import run_bench
from tests.support.runs.enumerated_runs import enumerating_server
from tests.support.runs.rescored_runs import VIEWS, expected_logprobs, saved_lines, saved_logprobs
from tests.support.runs.run_folders import write_run
from tests.support.servers.chat_answers import Body
from tests.support.servers.chat_server import ChatServer

Capture = pytest.CaptureFixture[str]
UNREACHABLE = "http://127.0.0.1:9"


def words(server: ChatServer | str, run: Path, *more: str) -> list[object]:
    """Return a ``bench rescore`` command."""
    url = server if isinstance(server, str) else server.url
    return ["rescore", run, "--server", url, "--views", VIEWS, "--retries", "2", "--wait", "5s", *more]


def test_scores_rules_and_submissions_follow(run: Path, server: ChatServer, capsys: Capture, tmp_path: Path) -> None:
    status, out, err = run_bench(capsys, *words(server, run))
    count = len(expected_logprobs(server.language_model, run))
    assert status == 0
    assert f"{count} log-probabilities in " in out
    assert f"{count} of {count} are in {run / 'rescores.jsonl'}" in out
    assert f"{count // VIEWS} candidates under {VIEWS} views by base, cross: {count} log-prob" in err
    assert "prompts: " in err
    assert "answer tokens: " in err
    status, out, err = run_bench(capsys, "score", run, "--rules", "all")
    assert status == 0
    assert "poe" in out
    assert "kgmon" in out
    assert "left out" not in err
    for rule in ("poe", "kgmon"):
        file = tmp_path / f"{rule}.json"
        status, _, err = run_bench(capsys, "submit", f"{run}@base", "--rule", rule, "-o", file)
        assert status == 0, err
        assert len(orjson.loads(file.read_bytes())) == 5


def test_a_dry_run_prints_the_cost(run: Path, server: ChatServer, capsys: Capture) -> None:
    status, out, _ = run_bench(capsys, *words(server, run, "--dry-run"))
    count = len(expected_logprobs(server.language_model, run))
    assert status == 0
    first, second, third = out.strip().splitlines()
    assert first.endswith(f"{count} log-probabilities, {count} of them to compute")
    assert second.startswith("prompts: ")
    assert third.startswith("answer tokens: ")
    assert not (run / "rescores.jsonl").exists()


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_run_without_candidates_is_told_and_is_no_error(
    tmp_path: Path, server: ChatServer, capsys: Capture, more: tuple[str, ...]
) -> None:
    run = write_run(tmp_path, "none", "toy/copy/evaluation#n=2", {"base": 0.5}, fails=1.0)
    status, out, err = run_bench(capsys, *words(server, run, *more))
    assert (status, out) == (0, "")
    assert "no view proposed a grid, so that there is nothing to rescore" in err
    assert not (run / "rescores.jsonl").exists()


def test_several_scorers_need_a_choice(run: Path, server: ChatServer, capsys: Capture, tmp_path: Path) -> None:
    with enumerating_server(doubt=0.4, scores=True, models=("base", "cross", "judge", "other")) as more:
        for name in ("judge", "other"):
            assert run_bench(capsys, *words(more, run, "--model", name))[0] == 0
    status, _, err = run_bench(capsys, "score", run, "--rules", "poe")
    assert status == 2
    assert "judge and other rescored the candidates; choose one with --scorer NAME" in err
    assert run_bench(capsys, "score", run)[0] == 0
    assert run_bench(capsys, "score", run, "--rules", "poe", "--scorer", "other")[0] == 0
    submit = ["submit", f"{run}@cross", "-o", tmp_path / "s.json", "--rule"]
    assert run_bench(capsys, *submit, "poe", "--scorer", "judge")[0] == 0
    status, _, err = run_bench(capsys, *submit, "poe")
    assert status == 2
    assert "choose one with --scorer NAME" in err
    status, _, err = run_bench(capsys, *submit, "vote", "--scorer", "judge")
    assert status == 2
    assert "--scorer is for rules that need rescores; vote does not" in err


def test_given_up_answers_are_exit_status_1(run: Path, server: ChatServer, capsys: Capture) -> None:
    def refuse(body: Body) -> tuple[int, Body] | None:
        return (400, {"error": {"message": "cannot"}}) if "prompts" in body and body["model"] == "cross" else None

    server.refuse = refuse
    status, out, err = run_bench(capsys, *words(server, run))
    done = len(saved_lines(run))
    count = len(expected_logprobs(server.language_model, run))
    assert status == 1
    assert f"{done} of {count} are in" in out
    assert f"error: servers failed on {count - done} answers; the same command asks again" in err
    server.refuse = lambda body: None
    assert run_bench(capsys, *words(server, run))[0] == 0
    assert saved_logprobs(run) == pytest.approx(expected_logprobs(server.language_model, run), abs=1e-9)


@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        (("--views", "0"), 2, "--views"),
        (("--top", "0"), 2, "--top"),
        (("--server", UNREACHABLE), 2, "--server http://127.0.0.1:9 is given twice"),
        (("--server", "nonsense"), 2, "is not a URL such as"),
        (("--api-key", "schlüssel"), 2, "the API key holds something else"),
        ((), 1, "127.0.0.1:9"),
        (("--dry-run",), 1, "127.0.0.1:9"),
    ],
)
def test_wrong_use_is_told(run: Path, capsys: Capture, more: tuple[str, ...], status: int, message: str) -> None:
    found, out, err = run_bench(capsys, *words(UNREACHABLE, run, *more))
    assert (found, out) == (status, "")
    assert message in err
    assert "Traceback" not in err
    assert not (run / "rescores.jsonl").exists()


def test_an_unknown_scorer_and_no_run_are_told(run: Path, server: ChatServer, capsys: Capture, tmp_path: Path) -> None:
    status, _, err = run_bench(capsys, *words(server, run, "--model", "nobody"))
    assert status == 1
    assert "has no model 'nobody'; it has: base, cross" in err
    status, _, err = run_bench(capsys, *words(server, tmp_path))
    assert status == 2
    assert "has no manifest.json; give the folder of a run" in err


def test_a_damaged_line_is_told_with_its_number(run: Path, server: ChatServer, capsys: Capture) -> None:
    assert run_bench(capsys, *words(server, run))[0] == 0
    path = run / "rescores.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4].replace(b'"view":', b'"view":1')
    path.write_bytes(b"".join(lines))
    for command in (words(server, run), ["score", run, "--rules", "poe"]):
        status, _, err = run_bench(capsys, *command)
        assert status == 1
        assert f"{path}, line 5, check: the line does not match its checksum" in err


def test_a_key_is_sent_and_never_shown(run: Path, capsys: Capture) -> None:
    with enumerating_server(doubt=0.4, scores=True, key="secret-7") as server:
        status, _, err = run_bench(capsys, *words(server, run))
        assert status == 1
        assert "invalid key" in err
        status, out, err = run_bench(capsys, *words(server, run, "--api-key", "secret-7"))
    assert status == 0, err
    assert "secret-7" not in out + err + (run / "rescores.jsonl").read_text()
