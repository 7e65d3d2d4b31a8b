"""Enumerated views in predictions.jsonl: what is written is read back, and damage is named."""

from __future__ import annotations

import math
from pathlib import Path

import orjson
import pytest

from harness.core.augmentation import identity_view
from harness.core.errors import DataError, RunError
from harness.core.grid import Grid
from harness.runs.folder import RunFolder, config_changes
from harness.runs.logs.prediction_log import PredictionLog, drop_retryable
from harness.runs.logs.prediction_reader import Prediction, holds_views, read_predictions, read_views
from harness.runs.logs.view_block import ViewAnswer, ViewResult, view_block
from harness.runs.schemas.view_schema import AnswerRecord, SearchConfig, ViewRecord
from harness.scoring.run_scores import score_run
from tests.support.runs.run_folders import MakeRun
from tests.support.runs.view_runs import write_view_run

SPEC = "toy/cross/evaluation#n=4"
GRID = Grid.from_rows([[1, 2], [3, 4]])


def answer(probability: float, grid: Grid | None = GRID) -> ViewAnswer:
    return ViewAnswer("unparsed" if grid is None else "grid", grid, "text", math.log(probability), 5)


def block(*answers: ViewAnswer, sample: int = 0, greedy: int | ViewAnswer | None = 0) -> bytes:
    unexplored = max(0.0, 1 - math.fsum(math.exp(a.logprob) for a in answers))
    result = ViewResult("enumerated", answers, greedy, unexplored, 1, 2, 3, 40, 0.5)
    return view_block(("m", "t", 0, sample), identity_view(3), 7, result)


def write(path: Path, *blocks: bytes) -> Path:
    file = path / "predictions.jsonl"
    file.write_bytes(b"".join(blocks))
    return file


def test_lines_are_records(tmp_path: Path) -> None:
    *answers, closing = block(answer(0.5), answer(0.25, None)).splitlines()
    assert [AnswerRecord.model_validate_json(line).answer_index for line in answers] == [0, 1]
    assert ViewRecord.model_validate_json(closing).view.answers == 2


def test_a_view_is_read_back(tmp_path: Path) -> None:
    file = write(tmp_path, block(answer(0.5), answer(0.25, None), greedy=1), block(sample=1, greedy=answer(0.05)))
    first, second = read_views(file)
    assert holds_views(file)
    likeliest = Prediction("m", "t", 0, "grid", GRID, math.log(0.5), 5, "identity", 0, text="text")
    assert first.answers[0] == likeliest
    assert first.greedy == first.answers[1]
    assert (first.outcome, first.unexplored, first.truncated, first.dropped) == ("enumerated", 0.25, 1, 2)
    assert (first.requests, first.n_tokens, first.seconds, first.sample) == (3, 40, 0.5, 0)
    assert second.answers == ()
    assert second.greedy is not None
    assert second.greedy.sum_logprob == math.log(0.05)
    assert (second.sample, second.greedy.grid) == (1, GRID)


def test_a_failed_view_has_no_answers(tmp_path: Path) -> None:
    file = write(tmp_path, view_block(("m", "t", 0, 0), identity_view(3), 7, ViewResult("refused")))
    (view,) = read_views(file)
    assert (view.outcome, view.answers, view.greedy, view.unexplored) == ("refused", (), None, 1.0)


@pytest.mark.parametrize("cut", [1, 30, 200, 400, 700])
def test_an_incomplete_last_view_is_left_out(tmp_path: Path, cut: int) -> None:
    last = block(answer(0.5), answer(0.25), sample=1)
    file = write(tmp_path, block(answer(0.5)), last[:-cut])
    assert [view.sample for view in read_views(file)] == [0]


def test_drawn_and_enumerated_lines_do_not_mix(tmp_path: Path) -> None:
    file = write(tmp_path, block(answer(0.5)))
    with pytest.raises(DataError, match="line 1: is a line of an enumerated view"):
        list(read_predictions(file))
    drawn = orjson.loads(block(answer(0.5)).splitlines()[0])
    del drawn["answer_index"]
    file = write(tmp_path, block(answer(0.5)), orjson.dumps(drawn) + b"\n")
    with pytest.raises(DataError, match="line 3: expected an answer of an enumerated view"):
        list(read_views(file))


def changed(line: int, **fields: object) -> bytes:
    """Return a block of two answers with fields of one line changed; ``view`` fields are merged."""
    lines = [orjson.loads(text) for text in block(answer(0.5), answer(0.25)).splitlines()]
    view = fields.pop("view", None)
    lines[line] |= fields
    if isinstance(view, dict):
        lines[line]["view"] |= view
    return b"".join(orjson.dumps(text) + b"\n" for text in lines)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed(1, answer_index=2), "line 2, answer_index: expected 1, got 2"),
        (changed(0, answer_index=False), "line 1, answer_index: expected 0, got False"),
        (changed(0, cumulative_logprob=None), "line 1: an enumerated answer needs cumulative_logprob"),
        (changed(0, n_tokens=0), "line 1: an enumerated answer needs cumulative_logprob and n_tokens"),
        (
            changed(1, augmentation={"symmetry": "rotate_90"}),
            "line 3, augmentation.symmetry: .*, but an answer of rotate_90 precedes it",
        ),
        (changed(0, cumulative_logprob=math.log(0.76)), "line 3: the probabilities .* add up to 1.01"),
        (changed(0, cumulative_logprob=2e-6), "line 3: the probabilities"),
        (changed(1, cumulative_logprob=-0.1), "line 3: the answers that precede it are not in the order"),
        (changed(1, test_index=1), r"line 3: closes view .*, but an answer of view"),
        (changed(1, sample_index=1), r"line 3: closes view .*, but an answer of view"),
        (changed(2, view={"answers": 3}), "line 3, view.answers: 3, but 2 answers precede it"),
        (changed(2, view={"unexplored": 0.5}), r"line 3, view.unexplored: 0.5, but the probabilities .* 0.75"),
        (changed(2, view={"unexplored": -0.1}), "line 3, view.unexplored: Input should be greater"),
        (changed(2, view={"outcome": "lost"}), "line 3, view.outcome: Input should be"),
        (changed(2, view={"greedy": 2}), "there is no answer 2 of 2"),
        (changed(2, view={"outcome": "error"}), "a view that ended as error has no answers"),
        (changed(2, view={"cost": 1}), "line 3, view.cost: Extra inputs"),
        (changed(2, test_index="0"), "line 3, test_index: Input should be a valid integer"),
    ],
)  # fmt: skip
def test_damage_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(read_views(write(tmp_path, content)))


@pytest.mark.parametrize("cut", [0, 1, 30, 200, 400, 700])
def test_the_next_writer_drops_an_incomplete_view(tmp_path: Path, cut: int) -> None:
    first, last = block(answer(0.5)), block(answer(0.25), answer(0.25), sample=1)
    file = write(tmp_path, first, last[: len(last) - cut])
    log = PredictionLog(file, views=True)
    log.append(block(answer(0.5), sample=2))
    log.close()
    assert file.read_bytes() == first + (b"" if cut else last) + block(answer(0.5), sample=2)


def test_a_file_without_a_complete_view_is_emptied(tmp_path: Path) -> None:
    file = write(tmp_path, block(answer(0.5), answer(0.25))[:-1])
    PredictionLog(file, views=True).close()
    assert file.read_bytes() == b""


def test_a_closing_record_across_two_blocks_of_the_file_is_recognised(tmp_path: Path) -> None:
    views = [block(answer(0.5), sample=sample) for sample in range(9)]
    for length in range(65_000, 65_536):  # a view's only line moves the block boundary through the last record
        long = ViewAnswer("unparsed", None, "x" * length + '"view":{', math.log(0.5), 9)
        file = write(tmp_path, *views, block(long).splitlines(keepends=True)[0])
        PredictionLog(file, views=True).close()
        assert file.read_bytes() == b"".join(views)


def test_failed_views_are_dropped_to_be_made_again(tmp_path: Path) -> None:
    failed = [
        view_block(("m", "t", 0, sample), identity_view(3), 7, ViewResult(outcome))
        for sample, outcome in enumerate(("refused", "error"), 1)
    ]
    kept = view_block(("m", "t", 0, 3), identity_view(3), 7, ViewResult("too_long"))
    text = ViewAnswer("unparsed", None, '"error" "refused"', math.log(0.5), 9)
    file = write(tmp_path, block(text), *failed, kept)
    assert drop_retryable(file) == 2
    assert file.read_bytes() == block(text) + kept


def test_files_of_drawn_runs_have_no_new_fields(make_run: MakeRun, tmp_path: Path) -> None:
    drawn = make_run("drawn", SPEC, {"good": 0.9})
    score_run(drawn)
    assert b"search" not in (drawn / "manifest.json").read_bytes()
    assert b"enumeration" not in (drawn / "results.json").read_bytes()
    views = write_view_run(tmp_path, "views", SPEC, {"good": 0.9})
    score_run(views)
    config = RunFolder(views).manifest().config
    assert config.search == SearchConfig(min_prob=0.05, max_answers=None, logprobs=21)
    assert RunFolder(drawn).manifest().config.search is None
    assert RunFolder(views).results().models["good"].enumeration is not None
    changes = config_changes(RunFolder(drawn).manifest().config, config)
    assert any(change == 'search: null -> "dfs"' for change in changes)


@pytest.mark.parametrize(
    "line", [b'{"model": "m", "outcome": "grid"}\n', b"[]\n", b'{"answer_index":1,"model":"m"}\n', b"\n"]
)
@pytest.mark.parametrize("is_first", [True, False])
def test_complete_lines_that_are_no_answers_of_a_view_are_not_removed(
    tmp_path: Path, line: bytes, is_first: bool
) -> None:
    file = write(tmp_path, *([] if is_first else [block(answer(0.5))]), line)
    before = file.read_bytes()
    with pytest.raises(RunError, match="ends with lines that are neither an incomplete view nor closed by a record"):
        PredictionLog(file, views=True)
    assert file.read_bytes() == before
