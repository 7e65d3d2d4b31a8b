"""``bench run --search`` and ``bench reproduce`` of enumerated runs as commands: refusals, dry run, resuming."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.runs.folder import RunFolder
from harness.runs.schemas.view_schema import SearchConfig
from tests.support.commands import run_bench
from tests.support.runs.enumerated_runs import enumerating_server, stable_lines, views
from tests.support.servers.chat_server import ChatServer
from tests.support.servers.language_model import Choice

Capture = pytest.CaptureFixture[str]
DFS = ("--search", "dfs")
UNREACHABLE = "http://127.0.0.1:9"


def run_words(url: str, out: Path, *more: str) -> list[object]:
    """Return a ``bench run`` command for two models, five tasks and four views each: 40 views."""
    return [
        "run", "--server", url, "--model", "base", "--model", "cross", "--dataset", "toy/copy/evaluation#n=5",
        "-n", "4", "--out", out, "--prompt", "compact-v0", "--grid-encoder", "MinimalGridEncoder()",
        "--max-tokens", "60", "--retries", "2", "--wait", "5s", *more,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*DFS, "--temperature", "1"), "--search dfs cannot have --temperature: it enumerates the answers"),
        ((*DFS, "--top-p", "0.9"), "--search dfs cannot have --top-p"),
        ((*DFS, "--min-p", "0.1"), "cannot have --min-p: it enumerates the model's unchanged distribution (its th"),
        ((*DFS, "--samples-per-view", "2"), "--search dfs cannot have --samples-per-view: a view has all of its"),
        ((*DFS, "--stop", "decided"), "--search dfs cannot have --stop: all views are enumerated"),
        ((*DFS, "--stop", "risk=0.1"), "--search dfs cannot have --stop: all views are enumerated"),
        ((*DFS, "--api", "chat"), "--search dfs cannot have --api chat: it continues answers by their token ids"),
        ((*DFS, "--extra-body", '{"logit_bias": {"3": 5}}'), "--search dfs cannot have logit_bias in --extra-body"),
        ((*DFS, "--extra-body", '{"min_tokens": 3}'), "--search dfs cannot have min_tokens in --extra-body"),
        (("--min-prob", "0.1"), "--min-prob belongs to --search dfs; add it, or leave --min-prob out"),
        (("--search", "greedy", "--max-answers", "2"), "--max-answers belongs to --search dfs"),
        (("--search", "greedy", "--temperature", "1"), "--search greedy is temperature 0, not 1"),
        (("--search", "sample"), "--search sample draws answers at a temperature above 0; set --temperature"),
    ],
)
@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["run", "dry run"])
def test_options_that_contradict_the_search_are_refused(
    tmp_path: Path, capsys: Capture, words: tuple[str, ...], message: str, dry: tuple[str, ...]
) -> None:
    status, out, err = run_bench(capsys, *run_words(UNREACHABLE, tmp_path / "run", *words, *dry))
    assert (status, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert message in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "words",
    [
        (*DFS, "--min-prob", "0"),
        (*DFS, "--min-prob", "1.5"),
        (*DFS, "--min-prob", "nan"),
        (*DFS, "--min-prob", "1e-7"),
        (*DFS, "--min-prob", "1e-320"),
        (*DFS, "--max-answers", "0"),
        ("--search", "bfs"),
    ],
)
def test_values_out_of_range_are_refused(tmp_path: Path, capsys: Capture, words: tuple[str, ...]) -> None:
    status, out, err = run_bench(capsys, *run_words(UNREACHABLE, tmp_path / "run", *words))
    assert (status, out) == (2, "")
    assert words[-2] in err
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["run", "dry run"])
def test_a_server_of_chats_only_is_refused_with_the_reason(
    tmp_path: Path, capsys: Capture, dry: tuple[str, ...]
) -> None:
    with ChatServer() as server:
        status, _, err = run_bench(capsys, *run_words(server.url, tmp_path / "run", *DFS, *dry))
        assert server.requests == []
    assert status == 2
    assert "--search dfs continues answers by their token ids, but" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (("--min-prob", "0.02"), "--max-logprobs 51"),
        (("--min-prob", "0.05"), "--max-logprobs 21"),
        (("--min-prob", "0.05", "--max-answers", "1"), "--max-logprobs 21"),
    ],
)
def test_a_threshold_below_what_the_server_allows_names_the_flag_to_raise(
    tmp_path: Path, capsys: Capture, words: tuple[str, ...], flag: str
) -> None:
    with enumerating_server() as server:
        status, _, err = run_bench(capsys, *run_words(server.url, tmp_path / "run", *DFS, *words))
        assert status == 1
        assert f"start it with {flag} " in err
        assert not (tmp_path / "run").exists()
        assert run_bench(capsys, *run_words(server.url, tmp_path / "run", *DFS, "--min-prob", "0.06"))[0] == 0


def test_options_are_recorded_and_the_table_is_printed(tmp_path: Path, capsys: Capture) -> None:
    with enumerating_server() as server:
        words = run_words(
            server.url, tmp_path / "run", *DFS, "--min-prob", "0.2", "--max-answers", "3", "--keep-greedy"
        )
        status, out, err = run_bench(capsys, *words)
        assert status == 0, err
        assert run_bench(capsys, *run_words(server.url, tmp_path / "default", *DFS))[0] == 0
    assert RunFolder(tmp_path / "run").manifest().config.search == SearchConfig(
        min_prob=0.2, max_answers=3, logprobs=6, keep_greedy=True
    )
    assert RunFolder(tmp_path / "default").manifest().config.search == SearchConfig(
        min_prob=0.1, max_answers=None, logprobs=11
    )
    assert "40 views in " in err
    assert " greedy |" in out
    assert " + at most " in out
    assert len(views(tmp_path / "run")) == 40


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (DFS, ["40 views: 2 models, 5 test outputs, 4 each", "completions: 40 (one for each view) to about 400"]),
        ((*DFS, "--min-prob", "0.25"), ["completions: 40 (one for each view) to about 160"]),
        ((*DFS, "--max-answers", "2"), ["completions: 40 (one for each view) to about 80", "at most 2 of a view"]),
        ((), ["40 predictions: 2 models, 5 test outputs, 4 each", "generated tokens: about"]),
        (("--search", "sample", "--temperature", "1"), ["40 predictions: 2 models, 5 test outputs, 4 each"]),
    ],
)
def test_a_dry_run_prints_what_would_be_requested(
    tmp_path: Path, capsys: Capture, words: tuple[str, ...], lines: list[str]
) -> None:
    with enumerating_server() as server:
        status, out, err = run_bench(capsys, *run_words(server.url, tmp_path / "run", *words, "--dry-run"))
        assert server.requests == []
    assert status == 0, err
    assert all(line in out for line in lines), out
    assert not (tmp_path / "run").exists()


def test_the_estimate_of_a_dry_run_holds_for_the_run(tmp_path: Path, capsys: Capture) -> None:
    with enumerating_server() as server:
        words = run_words(server.url, tmp_path / "run", *DFS)
        _, out, _ = run_bench(capsys, *words, "--dry-run")
        assert run_bench(capsys, *words)[0] == 0
        completions = sum(len(body["prompt"]) for body in server.requests)
        firsts = [ids for body in server.requests for ids in body["prompt"] if not split_answer(server, ids)]
    assert len(firsts) == 40
    assert 40 <= completions <= 400
    assert f"prompt tokens: {sum(map(len, firsts)) / 40:.0f} each, {sum(map(len, firsts))} in all" in out


def split_answer(server: ChatServer, ids: list[int]) -> tuple[int, ...]:
    """Return the answer's tokens at the end of a completion's prompt."""
    assert server.language_model is not None
    return server.language_model.split(ids)[1]


@pytest.mark.parametrize(
    ("begun", "resumed", "change"),
    [
        (DFS, (*DFS, "--min-prob", "0.2"), "search.min_prob: 0.1 -> 0.2"),
        (DFS, (*DFS, "--max-answers", "3"), "search.max_answers: null -> 3"),
        (DFS, (*DFS, "--keep-greedy"), "search.keep_greedy: null -> true"),
        (DFS, (), 'search: "dfs" -> null; search.logprobs: 11 -> null; search.min_prob: 0.1 -> null'),
        ((), DFS, 'search: null -> "dfs"; search.logprobs: null -> 11; search.min_prob: null -> 0.1'),
        (("--temperature", "1"), DFS, 'search: null -> "dfs"'),
    ],
)
def test_resuming_with_another_search_is_refused(
    tmp_path: Path, capsys: Capture, begun: tuple[str, ...], resumed: tuple[str, ...], change: str
) -> None:
    out = tmp_path / "run"
    with enumerating_server() as server:
        assert run_bench(capsys, *run_words(server.url, out, *begun))[0] == 0
        before = {path.name: path.read_bytes() for path in out.iterdir()}
        n_requests = len(server.requests)
        status, _, err = run_bench(capsys, *run_words(server.url, out, *resumed, "--resume"))
        assert len(server.requests) == n_requests
    assert status == 1
    assert "was begun with another configuration; changed: " in err
    assert change in err
    assert "to resume" not in err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_an_enumerated_run_is_reproduced(tmp_path: Path, capsys: Capture) -> None:
    run, again = tmp_path / "run", tmp_path / "again"
    with enumerating_server() as server:
        words = run_words(server.url, run, *DFS, "--min-prob", "0.07", "--max-answers", "4", "--seed", "3")
        assert run_bench(capsys, *words)[0] == 0
        status, out, err = run_bench(capsys, "reproduce", run, "--out", again)
    assert status == 0, err
    assert out.splitlines() == ["40 of 40 views are the same", "metrics and failures are the same"]
    assert RunFolder(again).manifest().config == RunFolder(run).manifest().config
    assert stable_lines(again) == stable_lines(run)


def test_a_reproduction_names_the_views_whose_answers_differ(tmp_path: Path, capsys: Capture) -> None:
    """The second server prefers other tokens in the answers of one model."""
    run, again = tmp_path / "run", tmp_path / "again"
    with enumerating_server() as server:
        assert run_bench(capsys, *run_words(server.url, run, *DFS))[0] == 0
        assert server.language_model is not None
        ranked = server.language_model.ranked

        def changed(model: str, prompt: tuple[int, ...], answer: tuple[int, ...]) -> list[tuple[int, float]]:
            return ranked("other" if model == "cross" else model, prompt, answer)

        server.language_model.ranked = changed  # type: ignore[method-assign]
        status, out, _ = run_bench(capsys, "reproduce", run, "--out", again)
    assert status == 1
    assert "metrics and failures are not the same" in out
    assert "  differs: cross, task " in out
    assert "differs: base" not in out
    one, other = (
        {key: sorted((a.outcome, str(a.grid)) for a in view.answers) for key, view in views(path).items()}
        for path in (run, again)
    )
    assert int(out.split(" of ")[0]) == sum(answers == other[key] for key, answers in one.items()) < 40


def test_a_reproduction_that_was_interrupted_is_resumed(tmp_path: Path, capsys: Capture) -> None:
    run, again = tmp_path / "run", tmp_path / "again"
    with enumerating_server() as server:
        assert run_bench(capsys, *run_words(server.url, run, *DFS))[0] == 0
        assert run_bench(capsys, "reproduce", run, "--out", again)[0] == 0
        folder = RunFolder(again)
        folder.write_manifest(folder.manifest().model_copy(update={"finished": None}))
        lines = folder.predictions_path.read_bytes().splitlines(keepends=True)
        folder.predictions_path.write_bytes(b"".join(lines[: len(lines) // 2]))
        status, out, err = run_bench(capsys, "reproduce", run, "--out", again, "--resume")
    assert status == 0, err
    assert out.splitlines()[0] == "40 of 40 views are the same"
    assert stable_lines(again) == stable_lines(run)


def test_a_server_whose_log_probabilities_became_unusable_is_not_reproduced_from(
    tmp_path: Path, capsys: Capture
) -> None:
    def few(choice: Choice) -> Choice:
        data = dict(choice["logprobs"])  # type: ignore[call-overload]
        data["top_logprobs"] = [dict(list(top.items())[:3]) for top in data["top_logprobs"]]
        return {**choice, "logprobs": data}

    with enumerating_server() as server:
        assert run_bench(capsys, *run_words(server.url, tmp_path / "run", *DFS))[0] == 0
        assert server.language_model is not None
        server.language_model.spoil = few
        status, _, err = run_bench(capsys, "reproduce", tmp_path / "run", "--out", tmp_path / "again")
    assert status == 1
    assert "gives 3 log-probabilities for each token instead of 11" in err
    assert not (tmp_path / "again").exists()
