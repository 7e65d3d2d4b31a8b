"""The sampling engine against real HTTP servers: nothing is lost, nothing is added, whatever fails."""

from __future__ import annotations

import io
import json
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.augment import identity
from harness.datasets import TaskList, iterate, open_dataset
from harness.encoding import parse_encoder
from harness.endpoint import Policy
from harness.errors import ArcBenchError, ConfigError, DataError, RunError, ServerError
from harness.grid import Grid
from harness.plan import Asker, Plan
from harness.progress import Display
from harness.prompt import load_prompt
from harness.records import PredictionRecord
from harness.runs import RunFolder
from harness.sampling import SampleSummary, sample_run
from harness.scoring import score_run
from harness.settings import RunOptions, complete, declare_tasks
from tests.chat_server import Body, ChatServer, count_tokens, echo, garbage, moody, random_faults

QUICK = Policy(max_in_flight=16, retries=3, timeout=5.0, wait=5.0, backoff=0.005)


def options(server: ChatServer | str, out: Path, **changes: object) -> RunOptions:
    chosen = RunOptions(
        servers=(server if isinstance(server, str) else server.url,),
        models=("base", "cross"),
        dataset="toy/copy/evaluation#n=5",
        n=4,
        out=out,
        prompt="compact-v0",
        encoder="MinimalGridEncoder()",
        policy=QUICK,
    )
    return replace(chosen, **changes)  # type: ignore[arg-type]


def sample(chosen: RunOptions, said: io.StringIO | None = None) -> SampleSummary:
    return sample_run(chosen, Display(io.StringIO() if said is None else said))


def stable(run: Path) -> list[PredictionRecord]:
    """The predictions of a run by key, without their times."""
    found = [record.model_copy(update={"seconds": 0.0}) for record in RunFolder(run).predictions()]
    return sorted(found, key=lambda record: record.key)


def outcomes(run: Path) -> Counter[str]:
    return Counter(record.outcome for record in RunFolder(run).predictions())


def oracle(chosen: RunOptions) -> dict[str, str]:
    """The right answer to every chat of a run, by its messages."""
    dataset = open_dataset(chosen.dataset)
    tasks = list(iterate(dataset))
    plan = Plan(complete(chosen, dataset, tasks, {})[0], tasks)
    known = {}
    for number in plan.order(1):
        draw = plan.draw(number)
        asker = plan.askers[draw.model]
        view = draw.augmentation.apply_task(draw.task)
        chat = [{"role": m.role, "content": m.content} for m in asker.messages(draw)]
        known[json.dumps(chat)] = asker.prompt.answer(view, draw.test_index, asker.encoder)
    return known


@pytest.mark.parametrize(
    ("dataset", "prompt", "encoder"),
    [
        ("toy/edge/evaluation#n=6", "compact-v0", "MinimalGridEncoder()"),
        (
            "arc1/evaluation#n=8#seed=3",
            "output-from-examples-v1",
            "GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))",
        ),
    ],
)
def test_an_oracle_scores_one(tmp_path: Path, dataset: str, prompt: str, encoder: str) -> None:
    chosen = options("http://later", tmp_path / "run", dataset=dataset, prompt=prompt, encoder=encoder, n=9)
    answers = oracle(chosen)
    with ChatServer(lambda body: answers[json.dumps(body["messages"])]) as server:
        assert sample(replace(chosen, servers=(server.url,))).finished
    results = score_run(tmp_path / "run")
    for model in ("base", "cross"):
        assert {
            name: metric.value for name, metric in results.models[model].metrics.items() if name != "unanswered"
        } == {name: 1.0 for name in results.models[model].metrics if name != "unanswered"}
        assert results.models[model].failures == {}


def test_garbage_scores_zero_and_every_failure_is_counted(tmp_path: Path) -> None:
    with ChatServer(garbage) as server:
        sample(options(server, tmp_path / "run"))
    results = score_run(tmp_path / "run")
    for model in ("base", "cross"):
        assert results.models[model].failures == {"unparsed": 20}
        assert results.models[model].metrics["accuracy"].value == 0.0
        assert results.models[model].metrics["unanswered"].value == 1.0


def test_every_prediction_is_made_once_and_asked_alike_of_every_model(tmp_path: Path) -> None:
    with ChatServer() as server:
        summary = sample(options(server, tmp_path / "run"))
    assert (summary.asked, summary.done, summary.total) == (40, 40, 40)
    records = stable(tmp_path / "run")
    assert len({record.key for record in records}) == 40
    by_model = [[r for r in records if r.model == model] for model in ("base", "cross")]
    assert [(r.augmentation, r.seed, r.text) for r in by_model[0]] == [
        (r.augmentation, r.seed, r.text) for r in by_model[1]
    ]
    symmetries = {record.augmentation.symmetry for record in records}
    assert len(symmetries) == 4
    manifest = RunFolder(tmp_path / "run").manifest()
    assert manifest.finished is not None
    assert manifest.answered_as == {"base": ["base"], "cross": ["cross"]}


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), percent=st.integers(0, 60))
def test_faults_change_nothing(seed: int, percent: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("faults")
    patient = replace(QUICK, retries=60, backoff=0.001)
    with ChatServer(moody) as server:
        sample(options(server, folder / "calm"))
    with ChatServer(moody) as server:
        faults = random_faults(seed, percent)
        # A server that resets the very first connections counts as absent, which ends a run that has not begun.
        server.faults = lambda i: faults(i) if server.bodies else None
        assert sample(options(server, folder / "rough", policy=patient)).finished
    assert stable(folder / "rough") == stable(folder / "calm")
    calm, rough = (score_run(folder / name) for name in ("calm", "rough"))
    assert rough == calm
    assert len(outcomes(folder / "calm")) >= 2


@pytest.mark.parametrize("fault", ["http_500", "reset", "not_json", "two_choices", "abort"])
def test_a_request_that_always_fails_is_recorded_and_stops_nothing(tmp_path: Path, fault: str) -> None:
    poisoned: list[object] = []

    def answer(body: Body) -> str:
        if body["model"] == "base":
            poisoned.append(body["messages"])
        return f"!{fault}" if body["model"] == "cross" and body["messages"] == poisoned[7] else echo(body)

    said = io.StringIO()
    with ChatServer(answer) as server:
        sample(options(server, tmp_path / "run"), said)
    assert outcomes(tmp_path / "run") == {"grid": 39, "error": 1}
    assert "error: " in said.getvalue()


def test_the_last_open_request_cannot_hold_up_the_run(tmp_path: Path) -> None:
    def refuse(body: Body) -> tuple[int, Body] | None:
        return None if body["messages"][-1]["content"] == "Hello" else (500, {"error": "always"})

    with ChatServer(refuse=refuse) as server:
        sample(options(server, tmp_path / "run", models=("base",), dataset="toy/copy#n=1", n=1))
    assert outcomes(tmp_path / "run") == {"error": 1}


def test_refusals_are_recorded_and_shown_once(tmp_path: Path) -> None:
    def refuse(body: Body) -> tuple[int, Body] | None:
        text = body["messages"][0]["content"]
        return (400, {"error": {"message": "no threes"}}) if "3" in text else None

    said = io.StringIO()
    with ChatServer(refuse=refuse) as server:
        sample(options(server, tmp_path / "run"), said)
    counts = outcomes(tmp_path / "run")
    assert counts["refused"] > 1
    assert counts["refused"] + counts["grid"] == 40
    assert said.getvalue().count("no threes") == 1


def test_answers_at_the_limit_are_truncated_whatever_they_hold(tmp_path: Path) -> None:
    with ChatServer(lambda body: (echo(body), "length")) as server:
        sample(options(server, tmp_path / "run"))
    assert outcomes(tmp_path / "run") == {"truncated": 40}


@pytest.mark.parametrize("tokenize", [True, False])
def test_prompts_that_do_not_fit_are_too_long_and_the_others_get_the_room_there_is(
    tmp_path: Path, tokenize: bool
) -> None:
    """Tasks of side 3 need 9 x 12 + 36 = 144 tokens, those of side 4 need 9 x 20 + 36 = 216, less the line ends."""
    limit = 180
    models: dict[str, Body] = {"base": {"max_model_len": limit}}
    bodies: list[int] = []

    def refuse(body: Body) -> tuple[int, Body] | None:
        tokens = count_tokens(body)
        bodies.append(tokens)
        if tokens + body.get("max_tokens", 1) > limit:
            return 400, {"error": {"message": f"This model's maximum context length is {limit} tokens."}}
        return None

    with ChatServer(models=models, tokenize=tokenize, refuse=refuse) as server:
        sample(options(server, tmp_path / "run", models=("base",), dataset="toy/copy/evaluation#n=20"))
    by_side: dict[int, set[str]] = {3: set(), 4: set()}
    tasks = {task.id: task for task in iterate(open_dataset("toy/copy/evaluation#n=20"))}
    for record in RunFolder(tmp_path / "run").predictions():
        by_side[tasks[record.task_id].test[0].input.height].add(record.outcome)
    assert by_side == {3: {"grid"}, 4: {"too_long"}}
    if tokenize:
        assert max(bodies) <= limit


@pytest.mark.slow
def test_a_thousand_requests_are_really_in_flight(tmp_path: Path) -> None:
    policy = replace(QUICK, max_in_flight=1024, timeout=30.0)
    with ChatServer(hold=1024) as server:
        sample(options(server, tmp_path / "run", models=("base",), dataset="toy/copy#n=300", policy=policy))
    assert server.most_in_flight == 1024


def test_models_are_mixed_no_more_than_asked(tmp_path: Path) -> None:
    three = {"a": {}, "b": {}, "c": {}}
    with ChatServer(models=three) as server:
        chosen = options(server, tmp_path / "run", models=("a", "b", "c"), policy=replace(QUICK, max_in_flight=1))
        sample(replace(chosen, models_at_once=2))
    order = [body["model"] for body in server.bodies]
    assert set(order[:40]) == {"a", "b"}
    assert order[40:] == ["c"] * 20
    alone = [r for r in stable(tmp_path / "run") if r.model == "a"]
    with ChatServer(models=three) as server:
        sample(options(server, tmp_path / "alone", models=("a",)))
    assert stable(tmp_path / "alone") == alone


def test_two_servers_share_the_work_and_a_dead_one_hands_over(tmp_path: Path) -> None:
    with ChatServer(moody) as calm:
        sample(options(calm, tmp_path / "calm", n=16))
    policy = replace(QUICK, max_in_flight=4)
    with ChatServer(moody, seconds=0.02) as first, ChatServer(moody, seconds=0.02) as second:
        chosen = options(first, tmp_path / "run", servers=(first.url, second.url), n=16, policy=policy)
        killer = threading.Thread(target=lambda: (_until(lambda: len(first.bodies) > 20), first.down()))
        killer.start()
        assert sample(chosen).finished
        killer.join()
    assert 20 < len(first.bodies) < 80
    assert len(second.bodies) > 80
    assert stable(tmp_path / "run") == stable(tmp_path / "calm")


def test_a_server_that_comes_back_in_time_is_waited_for(tmp_path: Path) -> None:
    with ChatServer(moody) as calm:
        sample(options(calm, tmp_path / "calm"))
    said = io.StringIO()
    with ChatServer(moody, seconds=0.01) as server:

        def restart() -> None:
            _until(lambda: len(server.bodies) > 10)
            server.down()
            _until(lambda: "does not answer" in said.getvalue())
            server.up()

        restarter = threading.Thread(target=restart)
        restarter.start()
        assert sample(options(server, tmp_path / "run"), said).finished
        restarter.join()
    assert "answers again" in said.getvalue()
    assert stable(tmp_path / "run") == stable(tmp_path / "calm")


def test_a_server_that_stays_away_stops_the_run_with_all_saved(tmp_path: Path) -> None:
    with ChatServer(moody) as calm:
        sample(options(calm, tmp_path / "calm"))
    with ChatServer(moody, seconds=0.01) as server:
        killer = threading.Thread(target=lambda: (_until(lambda: len(server.bodies) > 20), server.down()))
        killer.start()
        chosen = options(server, tmp_path / "run", policy=replace(QUICK, wait=0.5, max_in_flight=2))
        with pytest.raises(RunError, match=r"no server answered for 0\.5 s"):
            sample(chosen)
        killer.join()
        saved = len(stable(tmp_path / "run"))
        assert saved >= 18
        server.up()
        summary = sample(replace(chosen, resume=True))
    assert summary.asked == 40 - saved
    assert stable(tmp_path / "run") == stable(tmp_path / "calm")
    assert len(RunFolder(tmp_path / "run").manifest().resumed) == 1


def test_a_model_that_vanishes_is_waited_for_and_never_counts_as_wrong(tmp_path: Path) -> None:
    said = io.StringIO()
    models: dict[str, Body] = {"base": {}, "cross": {}}
    with ChatServer(models=models, seconds=0.01) as server:

        def swap() -> None:
            _until(lambda: len(server.bodies) > 10)
            adapter = models.pop("cross")
            _until(lambda: "`cross` does not exist" in said.getvalue())
            models["cross"] = adapter

        swapper = threading.Thread(target=swap)
        swapper.start()
        sample(options(server, tmp_path / "run"), said)
        swapper.join()
    assert outcomes(tmp_path / "run") == {"grid": 40}


def test_resume_refuses_another_configuration_and_names_it(tmp_path: Path) -> None:
    with ChatServer() as server:
        chosen = options(server, tmp_path / "run")
        sample(chosen)
        before = (tmp_path / "run" / "predictions.jsonl").read_bytes()
        with pytest.raises(RunError, match="--resume completes it"):
            sample(chosen)
        with pytest.raises(RunError, match=r"n: 4 -> 5; seed: 0 -> 1"):
            sample(replace(chosen, n=5, seed=1, resume=True))
        with pytest.raises(RunError, match=r"base's encoder: .*; base's max_tokens"):
            sample(replace(chosen, encoder="RepeatNumberEncoder(2)", resume=True))
        server.models = {"base": {"arc_bench": {"hash": "new"}}, "cross": {}}
        with pytest.raises(RunError, match='base\'s hash: null -> "new"'):
            sample(replace(chosen, resume=True))
        server.models = {"base": {}, "cross": {}}
        assert sample(replace(chosen, resume=True)).asked == 0
    assert (tmp_path / "run" / "predictions.jsonl").read_bytes() == before


def test_prompt_and_encoder_come_from_the_adapters_manifest(tmp_path: Path) -> None:
    trained = {"arc_bench": {"hash": "h", "manifest": {"prompt": "compact-v0", "encoder": "RepeatNumberEncoder(2)"}}}
    with ChatServer(models={"base": {}, "cross": trained}) as server:
        sample(options(server, tmp_path / "run", prompt=None, encoder=None))
        said = io.StringIO()
        sample(options(server, tmp_path / "other", encoder=None, prompt="output-from-examples-v0"), said)
    assert "cross was trained with prompt compact-v0, but is asked with output-from-examples-v0" in said.getvalue()
    models = RunFolder(tmp_path / "run").manifest().config.models
    assert [(m.prompt, m.encoder, m.hash) for m in models] == [
        ("compact-v0", "RepeatNumberEncoder(2)", None),
        ("compact-v0", "RepeatNumberEncoder(2)", "h"),
    ]
    assert outcomes(tmp_path / "run") == {"grid": 40}


def test_the_default_bound_holds_the_largest_answer(tmp_path: Path) -> None:
    with ChatServer() as server:
        sample(options(server, tmp_path / "run"))
        sample(options(server, tmp_path / "own", max_tokens=33))
    assert [server.bodies[0]["max_tokens"], server.bodies[-1]["max_tokens"]] == [30 * 31 - 1 + 8, 33]


def test_samples_of_one_view_differ_by_their_seed(tmp_path: Path) -> None:
    with ChatServer() as server:
        sample(options(server, tmp_path / "run", models=("base",), samples_per_view=2, temperature=1.0))
    records = stable(tmp_path / "run")
    assert len({r.seed for r in records if r.task_id == "copy-000000"}) == 4
    assert len({r.augmentation.symmetry for r in records}) == 2
    assert {body["seed"] for body in server.bodies} == {record.seed for record in records}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"models": ("nobody",)}, ServerError, "no model 'nobody'; it has: base, cross"),
        ({"samples_per_view": 2}, ConfigError, "temperature"),
        ({"augment": False}, ConfigError, "temperature"),
        ({"models": ("base", "base")}, ConfigError, "given twice"),
        ({"servers": ("localhost:8000",)}, ConfigError, "not a URL"),
        ({"extra_body": {"n": 3}}, ConfigError, "must not set n"),
        ({"dataset": "toy/none"}, ArcBenchError, "unknown family"),
        ({"prompt": "nothing-v9"}, ArcBenchError, "is not known"),
        ({"servers": ("http://127.0.0.1:9",)}, ServerError, "Cannot connect"),
    ],
)
def test_wrong_use_is_one_clear_error_and_leaves_no_run(
    tmp_path: Path, changes: dict[str, object], error: type[ArcBenchError], message: str
) -> None:
    with ChatServer() as server, pytest.raises(error, match=message):
        sample(options(server, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_an_empty_dataset_and_repeated_ids_are_refused() -> None:
    task = open_dataset("toy/copy#n=1").task(0)
    with pytest.raises(DataError, match="no test inputs"):
        declare_tasks(TaskList("empty", ()), None)
    with pytest.raises(DataError, match="no test inputs"):
        declare_tasks(TaskList("headless", (replace(task, test=()),)), None)
    with pytest.raises(DataError, match="two tasks are named copy-000000"):
        declare_tasks(TaskList("twice", (task, task)), None)
    assert declare_tasks(TaskList("twice", (task, task)), 1) == [task]


def test_a_server_of_another_kind_is_recognised(tmp_path: Path) -> None:
    with ChatServer() as server, pytest.raises(ServerError, match="OpenAI-compatible"):
        sample(options(f"{server.url}/elsewhere", tmp_path / "run"))


def test_a_server_without_log_probabilities_is_said_once(tmp_path: Path) -> None:
    said = io.StringIO()
    with ChatServer(logprobs=False) as server:
        sample(options(server, tmp_path / "run"), said)
    assert said.getvalue().count("no log-probabilities") == 1
    assert {record.cumulative_logprob for record in stable(tmp_path / "run")} == {None}


def test_plain_progress_says_what_is_done(tmp_path: Path) -> None:
    said = io.StringIO()
    with ChatServer(moody, seconds=0.05) as server:
        sample_run(options(server, tmp_path / "run", policy=replace(QUICK, max_in_flight=2)), Display(said, 0.2))
    assert "requests in flight" in said.getvalue()
    assert "/20" in said.getvalue()


def _until(condition: object) -> None:
    """Poll for up to ten seconds."""
    waiter = threading.Event()
    for _ in range(2000):
        if condition():  # type: ignore[operator]
            return
        waiter.wait(0.005)
    raise AssertionError("the condition did not come true in time")


def test_a_lenient_run_reads_what_the_original_scripts_did() -> None:
    prompt, encoder = load_prompt("output-from-examples-v1"), parse_encoder("GridShapeEncoder(MinimalGridEncoder())")
    view = identity(4)
    unclosed = "### Output\n\n```grid shape: 2x2\n01\n23"
    assert Asker(prompt, encoder).read(unclosed, view) == ("unparsed", None)
    assert Asker(prompt, encoder, lenient=True).read(unclosed, view) == ("grid", Grid.from_rows([[0, 1], [2, 3]]))
