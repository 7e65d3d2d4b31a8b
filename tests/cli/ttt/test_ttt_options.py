"""``bench ttt`` without a server: options that are refused, the estimate, and the lines that reach the trainer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.cli.parameters import resume_command
from harness.cli.workflows.ttt import machines
from harness.cli.workflows.ttt.estimate import estimate_ttt, lora_weights
from harness.cli.workflows.ttt.job import TttJob, TttOptions
from harness.cli.workflows.ttt.training.training_order import task_line
from harness.core.errors import DataError, MissingExtraError
from harness.runs.logs.task_training_log import TTT_LOG, TrainingLog
from harness.sampling.options.run_options import RunOptions
from serve.launch.machine import Machine
from serve.registry.base_model import BaseModel
from tests.support.commands import run_bench
from tests.support.models.tiny_models import make_model
from tests.support.runs.trained_runs import record
from tests.support.servers.chat_server import TINY_BASE
from trainers.recipe.parts import LoraRecipe
from trainers.recipe.ttt_recipe import make_ttt_recipe

RECIPE = {
    "model": "tiny",
    "prompt": "compact-v0",
    "encoder": "MinimalGridEncoder()",
    "ttt": {"steps": 4},
    "batch_size": 8,
    "learning_rate": 4e-3,
    "dtype": "float32",
    "threads": 1,
}
DATASET = "toy/cross/evaluation#n=3"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Return a recipe file (JSON is YAML)."""
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(RECIPE))
    return path


def make_job(out: Path, dataset: str = DATASET, **changes: object) -> TttJob:
    """Return a job with RECIPE."""
    sampling = RunOptions(servers=(), models=("mine",), dataset=dataset, n=4, out=out)
    return TttJob.open(TttOptions(make_ttt_recipe(RECIPE), sampling, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--server", "http://127.0.0.1:1"], 2, "--server and --adapters belong together"),
        (["--adapters", "registry"], 2, "--server and --adapters belong together"),
        (
            ["--server", "http://127.0.0.1:1", "--adapters", "r", "--schedule", "train-first"],
            2,
            "--schedule train-first starts its server after the training",
        ),
        (
            ["--server", "http://127.0.0.1:1", "--adapters", "r", "--port", "1"],
            2,
            "--port, --dtype and --gpu-memory are of our own server",
        ),
        (
            ["--server", "http://127.0.0.1:1", "--adapters", "r", "--gpu-memory", "0.5"],
            2,
            "--port, --dtype and --gpu-memory are of our own server",
        ),
        (["--gpu-memory", "1.5"], 2, "is not in the range"),
        (["--task", "cross-000001"], 2, "use it with --resume"),
        (["--resume", "--task", "nobody"], 2, "the run has no task nobody"),
        (["--set", "ttt.leave_out=3"], 2, "leave_out"),
        (["--set", "lora=null"], 2, "test-time training makes one adapter per task"),
        (["--set", "lora.targets=[q_proj, lm_head]"], 2, "lora.targets"),
        (["--search", "dfs", "--temperature", "1"], 2, "--temperature"),
        (["--deadline", "soon"], 2, "is not a duration"),
        (["--training-deadline", "soon"], 2, "is not a duration"),
        (["--training-deadline", "2h", "--deadline", "90m"], 2, "--training-deadline is not before --deadline"),
        (["--resume"], 1, "there is no run to resume"),
    ],
)
def test_wrong_options_get_one_line(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], status: int, message: str
) -> None:
    got, _, errors = run_bench(capsys, "ttt", recipe, "--dataset", DATASET, "--out", tmp_path / "run", *words)
    assert (got, message in errors) == (status, True), errors
    assert "Traceback" not in errors
    assert not (tmp_path / "run" / "ttt.json").exists()


def test_a_server_that_would_take_the_trainers_gpu_is_refused(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines, "detect_machine", lambda: Machine("cuda", (0,), 1 << 34))
    words = ["ttt", recipe, "--dataset", DATASET, "--out", tmp_path / "run", "--dry-run", "--schedule"]
    status, _, errors = run_bench(capsys, *words, "resident")
    assert (status, "give the server its share with --gpu-memory" in errors) == (2, True)
    accepted = ["resident", "--gpu-memory", "0.5"], ["train-first"]
    assert [run_bench(capsys, *words, *others)[0] for others in accepted] == [0, 0]


def test_adapters_that_a_server_would_refuse_to_rescore_with_are_refused_before_training(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["ttt", recipe, "--dataset", DATASET, "--out", tmp_path / "run", "--dry-run"]
    words += ["--set", f"model={make_model(tmp_path / 'base', family='llama', tied=False)}"]
    output_layer = ["--set", "lora.targets=.*(_proj|_head)"]
    monkeypatch.setattr(machines, "detect_machine", lambda: Machine("cuda", (0,), 1 << 34))
    status, _, errors = run_bench(capsys, *words, *output_layer, "--rescore", "2")
    assert (status, "the recipe trains the output layer" in errors) == (2, True), errors
    assert [run_bench(capsys, *words, *others)[0] for others in (output_layer, ["--rescore", "2"])] == [0, 0]
    monkeypatch.setattr(machines, "detect_machine", lambda: Machine("cpu", (0,), 1 << 34))
    assert run_bench(capsys, *words, *output_layer, "--rescore", "2")[0] == 0


def test_a_missing_vllm_is_noticed_before_anything_is_trained(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> Machine:
        raise MissingExtraError("serving a model needs vLLM")

    monkeypatch.setattr(machines, "detect_machine", missing)
    words = ["ttt", recipe, "--dataset", DATASET, "--out", tmp_path / "run", "--dry-run"]
    status, _, errors = run_bench(capsys, *words)
    assert (status, "serving a model needs vLLM" in errors) == (1, True)
    assert run_bench(capsys, *words, "--server", "http://127.0.0.1:1", "--adapters", tmp_path / "registry")[0] == 0


def test_a_folder_in_use_is_refused(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    status, _, errors = run_bench(capsys, "ttt", recipe, "--dataset", DATASET, "--out", tmp_path / "run")
    assert status == 1
    assert "is not empty" in errors


def test_a_dry_run_writes_nothing(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    status, text, _ = run_bench(capsys, "ttt", recipe, "--dataset", DATASET, "-n", 4, "--out", out, "--dry-run")
    assert status == 0
    assert "3 tasks: 3 adapters to train, 4 steps (32 samples of" in text
    assert "12 predictions" in text
    assert "within a factor of" in text
    assert not out.exists()


def test_keys_of_ordinary_trainings_are_named(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ttt", recipe, "--dataset", DATASET, "--out", tmp_path / "run", "--dry-run"]
    assert "note:" not in run_bench(capsys, *words)[2]
    recipe.write_text(json.dumps({**RECIPE, "datasets": "toy/cross", "max_steps": 9, "resplit": True, "workers": 0}))
    errors = run_bench(capsys, *words)[2]
    assert "note: keys of ordinary trainings, not used here: datasets, max_steps, resplit\n" in errors


def test_tasks_whose_folders_differ_in_case_only_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "set_challenges.json"
    pair = {"input": [[1, 2]], "output": [[2, 1]]}
    path.write_text(json.dumps({name: {"train": [pair, pair], "test": [pair]} for name in ("ab", "aB")}))
    with pytest.raises(DataError, match="would share a folder; rename one of them"):
        make_job(tmp_path / "run", str(path))


def test_the_estimate_counts_tasks_that_are_done_again_beside_unanswered_ones(tmp_path: Path) -> None:
    TrainingLog(tmp_path / TTT_LOG).append(record("cross-000001"))
    job = make_job(tmp_path)
    assert estimate_ttt(job, on_gpu=True).tasks == 2
    again = replace(job, options=replace(job.options, again=("cross-000001",)))
    assert estimate_ttt(again, on_gpu=True).tasks == 3


def test_the_estimate_counts_what_training_cannot_use_and_what_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "set_challenges.json"
    pair = {"input": [[1, 2]], "output": [[2, 1]]}
    tasks = {"one": {"train": [pair], "test": [pair]}, "two": {"train": [pair, pair, pair], "test": [pair, pair]}}
    path.write_text(json.dumps(tasks))
    estimate = estimate_ttt(make_job(tmp_path / "run", str(path)), on_gpu=False)
    assert (estimate.tasks, estimate.untrainable, estimate.adapters, estimate.predictions) == (2, 1, 1, 12)
    assert estimate.disk_bytes == 2 * estimate.adapter_bytes
    assert estimate.train_seconds is not None
    on_gpu = estimate_ttt(make_job(tmp_path / "run", str(path)), on_gpu=True)
    assert on_gpu.train_seconds is None
    assert "known after the first task" in on_gpu.text()
    kept = estimate_ttt(make_job(tmp_path / "run"), on_gpu=False)
    discarded = estimate_ttt(make_job(tmp_path / "run", discard=True, schedule="resident"), on_gpu=False)
    assert (kept.disk_bytes, discarded.disk_bytes) == (4 * kept.adapter_bytes, 3 * kept.adapter_bytes)
    rescored = make_job(tmp_path / "run", discard=True, schedule="resident", rescore=2)  # all are kept for that
    assert estimate_ttt(rescored, on_gpu=False).disk_bytes == kept.disk_bytes


def test_the_command_that_resumes_does_no_task_again(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["bench", "ttt", "r.yaml", "--resume", "--task", "a", "--task=b", "--api-key", "secret"]
    monkeypatch.setattr("sys.argv", words)
    assert resume_command("--task") == "bench ttt r.yaml --resume --api-key KEY"
    assert resume_command("--task", "--api-key") == "bench ttt r.yaml --resume"
    assert resume_command() == "bench ttt r.yaml --resume --task a --task=b --api-key KEY"


@pytest.mark.parametrize(
    ("targets", "layers"),
    [
        ("all-linear", None),
        (["q_proj", "down_proj"], None),
        (["q_proj", "down_proj"], [0, 2]),
        (r".*\.mlp\.(up|down)_proj", None),
    ],
)
def test_lora_weights_are_those_of_peft(targets: str | list[str], layers: list[int] | None) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    lora = LoraRecipe(rank=6, targets=targets, layers=layers)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(TINY_BASE))
    adapted = get_peft_model(model, LoraConfig(r=6, target_modules=targets, layers_to_transform=layers))
    expected = sum(p.numel() for name, p in adapted.named_parameters() if "lora_" in name)
    assert lora_weights(BaseModel.open(TINY_BASE), lora) == expected


def test_test_outputs_do_not_reach_the_trainer(tmp_path: Path) -> None:
    """The lines are byte-identical if test outputs are altered or absent, and hold no test pair."""
    from harness.data.dataset import iterate_tasks
    from harness.data.spec import open_dataset

    tasks = list(iterate_tasks(open_dataset("arc1/evaluation#n=12")))
    lines = []
    for change in ("kept", "altered", "absent"):
        data = {}
        for task in tasks:
            train = [
                {"input": p.input.to_rows(), "output": p.output.to_rows() if p.output else None} for p in task.train
            ]
            test = []
            for pair in task.test:
                assert pair.output is not None
                rows = pair.output.to_rows() if change == "kept" else [[9, 8], [7, 6]]
                test.append({"input": pair.input.to_rows(), **({} if change == "absent" else {"output": rows})})
            data[task.id] = {"train": train, "test": test}
        path = tmp_path / f"{change}_challenges.json"
        path.write_text(json.dumps(data))
        job = make_job(tmp_path / "run", str(path))
        lines.append([task_line(job, task, None).model_dump_json(exclude_defaults=True) for task in job.tasks])
        assert job.config == make_job(tmp_path / "run").config
    assert lines[0] == lines[1] == lines[2]
    for task, line in zip(tasks, lines[0], strict=True):
        assert set(json.loads(line)) == {"task_id", "train"}
        assert json.loads(line)["train"] == [[p.input.to_rows(), p.output.to_rows()] for p in task.train if p.output]
