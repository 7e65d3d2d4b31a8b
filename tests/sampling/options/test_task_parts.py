"""Sessions that answer some tasks of a run by a model of another served name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.client.protocol.model_alias import ModelAlias
from harness.core.errors import RunError, ServerError
from harness.data.spec import open_dataset
from harness.runs.folder import RunFolder
from harness.runs.schemas.manifest_schema import ServedModel
from harness.runs.schemas.task_training import Protocol, TttConfig
from harness.sampling.options.run_options import RunOptions
from harness.sampling.options.task_part import TaskPart
from harness.scoring.run_scores import score_run
from tests.support.runs.enumerated_runs import enumerating_server, stable_lines
from tests.support.runs.run_folders import load_records
from tests.support.runs.sampling_runs import assert_same_run, run_options, run_sampling
from tests.support.servers.chat_server import ChatServer

SPEC = "toy/copy/evaluation#n=3"
CONFIG = TttConfig(recipe={"learning_rate": 0.004}, base="0" * 16, start=None)
PROTOCOL = Protocol(label="not known", trained_on=[], leaked_tasks=0, reason="a test")
STARTED = "2026-01-02T03:04:05+00:00"
FIELDS = {"root": str(Path(__file__).parents[3] / "trainers" / "weights" / "tiny-base"), "max_model_len": 4096}


def part_options(server: ChatServer, out: Path, task_id: str, served: str, **changes: object) -> RunOptions:
    """Return the options of a session that answers one task of a run of the model ``mine``."""
    config = changes.pop("config", CONFIG)
    assert isinstance(config, TttConfig)
    part = TaskPart(frozenset((task_id,)), ModelAlias("mine", served), None, config, PROTOCOL, STARTED)
    return run_options(server, out, models=("mine",), dataset=SPEC, part=part, resume=True, **changes)


def prepared(out: Path) -> Path:
    """Return a folder in which a run with test-time training was begun."""
    out.mkdir()
    (out / "ttt.json").write_text("{}")
    return out


@pytest.mark.parametrize("tokens", [False, True], ids=["chats", "token ids"])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_run_in_parts_has_the_views_seeds_and_lines_of_an_ordinary_run(
    tmp_path: Path, tokens: bool, temperature: float
) -> None:
    ids = list(open_dataset(SPEC).ids)
    served = {task_id: f"ttt-{k}@abc" for k, task_id in enumerate(ids)}
    fields = FIELDS if tokens else {}
    with ChatServer(tokens=tokens, models={"mine": fields, **dict.fromkeys(served.values(), fields)}) as server:
        run_sampling(
            run_options(
                server, tmp_path / "whole", models=("mine",), dataset=SPEC,
                temperature=temperature,
            )
        )  # fmt: skip
        server.requests.clear()
        out = prepared(tmp_path / "parts")
        for k, task_id in enumerate(reversed(ids)):
            summary = run_sampling(part_options(server, out, task_id, served[task_id], temperature=temperature))
            assert (summary.left, summary.done, summary.finished) == (0, 4 * (k + 1), k == 2)
            assert {body["model"] for body in server.requests} == {served[task_id]}
            server.requests.clear()
    score_run(tmp_path / "whole")
    score_run(out)
    assert_same_run(out, tmp_path / "whole")
    whole, parts = (RunFolder(path).manifest() for path in (tmp_path / "whole", out))
    assert parts.config == whole.config.model_copy(update={"ttt": CONFIG})
    assert parts.protocol == PROTOCOL
    assert (parts.started, parts.resumed) == (STARTED, [])
    assert parts.finished is not None
    assert not parts.warnings
    assert {r.model for r in load_records(out)} == {"mine"}


def test_enumerated_views_of_a_run_in_parts_are_those_of_an_ordinary_run(tmp_path: Path) -> None:
    ids = list(open_dataset(SPEC).ids)
    changes = {"search": "dfs", "min_prob": 0.2, "n": 2, "max_tokens": 60}
    with enumerating_server(models=("ttt-a@1",)) as server:
        options = run_options(server, tmp_path / "whole", models=("ttt-a@1",), dataset=SPEC)
        run_sampling(replace(options, **changes))  # type: ignore[arg-type]
        out = prepared(tmp_path / "parts")
        for task_id in ids:
            assert run_sampling(part_options(server, out, task_id, "ttt-a@1", **changes)).left == 0
    whole = [{**line, "model": "mine"} for line in stable_lines(tmp_path / "whole")]
    assert stable_lines(out) == whole


def test_a_part_is_not_resumed_with_another_recipe(tmp_path: Path) -> None:
    ids = list(open_dataset(SPEC).ids)
    other = CONFIG.model_copy(update={"recipe": {"learning_rate": 0.001}})
    with ChatServer(models={"a@1": {}}) as server:
        out = prepared(tmp_path / "run")
        run_sampling(part_options(server, out, ids[0], "a@1"))
        with pytest.raises(RunError, match=r"test-time training's learning_rate: 0\.004 -> 0\.001"):
            run_sampling(part_options(server, out, ids[1], "a@1", config=other))


def test_the_served_name_is_named_if_it_is_missing(tmp_path: Path) -> None:
    with ChatServer(models={"mine": {}}) as server, pytest.raises(ServerError, match="no model 'ttt-x@1'"):
        run_sampling(part_options(server, prepared(tmp_path / "run"), "copy-000000", "ttt-x@1"))


def test_settings_of_the_alias_replace_those_of_the_served_model() -> None:
    settings = ServedModel(name="mine", prompt="compact-v0", encoder="MinimalGridEncoder()", stop_token_ids=[3])
    models = [ServedModel(name="base", prompt="x", rank=4), ServedModel(name="mine", rank=9)]
    renamed = ModelAlias("mine", "base", settings).rename_served(models)
    assert [model.name for model in renamed] == ["base", "mine"]
    assert (renamed[1].prompt, renamed[1].stop_token_ids, renamed[1].rank) == ("compact-v0", [3], 4)
    assert ModelAlias("mine", "gone").rename_served(models) == models[:1]
