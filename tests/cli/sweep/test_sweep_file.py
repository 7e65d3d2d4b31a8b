"""Sweep files: the trainings and tables they describe, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from harness.cli.run import run
from harness.cli.workflows.sweep.command import _check_server, sweep
from harness.cli.workflows.sweep.sweep_file import load_sweep
from harness.core.errors import ConfigError
from serve.launch import machine as serve_machine
from serve.launch.machine import Machine

EXAMPLES = Path(__file__).parents[3] / "examples"
BASIC: dict[str, Any] = {
    "out": "sweeps/x",
    "recipe": {"model": "tiny", "max_steps": 4},
    "original": "toy/cross",
    "added": ["toy/diagonal", {"spec": "toy/copy", "weight": 3}],
    "original_weight": [1, 0.25, 0],
    "evaluation": {"dataset": "toy/cross/evaluation#n=5", "n": 2},
}


def write(path: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump({k: v for k, v in {**BASIC, **changes}.items() if v is not None}, sort_keys=False))
    return path


def test_weights_become_mixtures(tmp_path: Path) -> None:
    sweep = load_sweep(write(tmp_path / "s.yaml", seeds=[3, 5]), ["evaluation.n=8"])
    assert sweep.evaluation.n == 8
    trainings = list(sweep.trainings())
    assert [training.name for training in trainings] == ["w100-s3", "w100-s5", "w25-s3", "w25-s5", "w0-s3", "w0-s5"]
    shares = [{part.spec: part.weight for part in training.recipe.datasets} for training in trainings[::2]]
    assert shares[0] == {"toy/cross": 1}
    assert shares[1] == pytest.approx({"toy/cross": 0.25, "toy/diagonal": 0.75 / 4, "toy/copy": 3 * 0.75 / 4})
    assert shares[2] == pytest.approx({"toy/diagonal": 0.25, "toy/copy": 0.75})
    assert [training.recipe.seed for training in trainings] == [3, 5] * 3
    assert {training.recipe.output_dir for training in trainings} == {
        Path("sweeps/x/trained") / x.name for x in trainings
    }
    record = sweep.record()
    assert [row.label for row in record.rows] == ["100 %", "25 %", "0 %"]
    assert [row.models for row in record.rows] == [[f"{w}-s3", f"{w}-s5"] for w in ("w100", "w25", "w0")]


@given(weights=st.lists(st.integers(0, 1000), min_size=1, max_size=6, unique=True))
def test_every_mixture_keeps_the_declared_share(tmp_path_factory: pytest.TempPathFactory, weights: list[int]) -> None:
    shares = [weight / 1000 for weight in weights]
    path = tmp_path_factory.mktemp("sweep") / "s.yaml"
    sweep = load_sweep(write(path, original_weight=shares))
    for share, mixture in zip(shares, sweep.rows(), strict=True):
        given_weights = {part.spec: part.weight or 0 for part in mixture.datasets}
        assert sum(given_weights.values()) == pytest.approx(1)
        assert given_weights.get("toy/cross", 0) == pytest.approx(share)


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    sweep = load_sweep(write(tmp_path / "s.yaml", out="~/x", evaluation={"dataset": "~/t.json#ids=~/i.txt", "n": 2}))
    assert sweep.out == Path("/home/me/x")
    assert sweep.evaluation.dataset == "/home/me/t.json#ids=/home/me/i.txt"
    assert next(sweep.trainings()).recipe.output_dir == Path("/home/me/x/trained/w100")


def test_explicit_mixtures(tmp_path: Path) -> None:
    rows = [{"name": "only", "datasets": "toy/cross"}, {"name": "both", "datasets": ["toy/cross", "toy/copy"]}]
    sweep = load_sweep(write(tmp_path / "s.yaml", mixtures=rows, original_weight=None, original=None, added=None))
    assert [training.name for training in sweep.trainings()] == ["only", "both"]
    assert [row.label for row in sweep.record().rows] == ["only", "both"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"original_weight": None}, "give either mixtures, or original_weight"),
        ({"mixtures": [{"name": "a", "datasets": "toy/copy"}]}, "give either mixtures, or original_weight"),
        ({"original": None}, "original: which datasets"),
        ({"added": None}, "added: a weight below 1"),
        ({"original_weight": [1, 1]}, "two mixtures are named w100"),
        ({"original_weight": [2]}, "original_weight.0"),
        ({"seeds": [1, 1]}, "one occurs twice"),
        ({"recipe": {"model": "tiny", "max_steps": 4, "seed": 3}}, "recipe must not set seed"),
        ({"recipe": {"model": "tiny", "max_step": 4}}, "unknown key 'max_step'; did you mean 'max_steps'"),
        ({"evaluation": {"dataset": "toy/copy", "nn": 2}}, "unknown key 'evaluation.nn'; did you mean 'evaluation.n'"),
        ({"mixtures": [{"name": "../a", "datasets": "toy/copy"}], "original_weight": None}, "mixtures.0.name"),
    ],
)
def test_wrong_sweeps_are_refused(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(expected)):
        load_sweep(write(tmp_path / "s.yaml", **changes))


V1, COMPACT = "output-from-examples-v1", "compact-v0"


@pytest.mark.parametrize(
    ("prompts", "chosen", "expected"),
    [
        (("input-from-inputs-v0", COMPACT), None, COMPACT),
        ((COMPACT, "output-from-outputs-v0"), None, COMPACT),
        ((COMPACT, COMPACT), V1, V1),
        ((COMPACT, V1), V1, V1),
        ((COMPACT, V1), None, f"several prompts ({COMPACT}, {V1}); say with evaluation.prompt"),
        (("input-from-inputs-v0", "output-from-outputs-v0"), None, "no prompt that shows the test input"),
        ((COMPACT, COMPACT), "input-from-inputs-v0", "input-from-inputs-v0 never shows the test input"),
    ],
)
def test_all_adapters_are_benched_with_a_prompt_that_shows_the_test_input(
    tmp_path: Path, prompts: tuple[str, str], chosen: str | None, expected: str
) -> None:
    rows = [{"name": f"m{k}", "datasets": [{"spec": "toy/cross", "prompt": p}]} for k, p in enumerate(prompts)]
    evaluation = {"dataset": "toy/cross/evaluation#n=5", "n": 2, **({"prompt": chosen} if chosen else {})}
    path = write(
        tmp_path / "s.yaml", mixtures=rows, evaluation=evaluation, original_weight=None, original=None, added=None
    )
    if expected in (V1, COMPACT):
        assert load_sweep(path).inference_prompt() == expected
        return
    with pytest.raises(ConfigError, match=re.escape(expected)):
        load_sweep(path)


def test_every_evaluation_setting_reaches_bench_run(tmp_path: Path) -> None:
    settings = {"dataset": "toy/copy#n=5", "n": 3, "seed": 11, "limit": 4, "max_tokens": 99, "temperature": 0.25}
    sweep = load_sweep(write(tmp_path / "s.yaml", evaluation={**settings, "prompt": COMPACT}))
    words = ["--server", "u", "--model", "m", "--out", "o", *sweep.run_options()]
    parsed = run.make_context("run", words).params
    assert {name: parsed[name] for name in settings} == settings
    assert (parsed["prompt"], parsed["encoder"]) == (COMPACT, sweep.encoder)


@pytest.mark.parametrize("name", ["iteration48.yaml", "iteration48-tiny.yaml"])
def test_the_examples_are_the_experiment(name: str) -> None:
    sweep = load_sweep(EXAMPLES / name)
    assert [row.label for row in sweep.record().rows] == ["100 %", "50 %", "33.3 %", "20 %", "0 %"]


@pytest.mark.parametrize(
    ("serve", "gpu", "message"),
    [
        ({"dtype": "fp16"}, False, "--dtype fp16: choose from exact, auto"),
        ({"dtype": "float32"}, True, "vLLM computes adapters in bfloat16 or float16 only; leave --dtype out"),
        ({"extra": ["--dtype", "float32"]}, True, "vLLM computes adapters in bfloat16 or float16 only"),
        ({"extra": ["--port", "1"]}, False, "--port: give it before the --"),
    ],
)
def test_adapters_that_cannot_be_served_are_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: dict[str, Any], gpu: bool, message: str
) -> None:
    if gpu:
        monkeypatch.setattr(serve_machine, "detect_machine", lambda: Machine("cuda", (0,), 1 << 34))
    path = write(tmp_path / "s.yaml", out=str(tmp_path / "out"), serve=serve)
    result = CliRunner().invoke(sweep, [str(path)])
    assert isinstance(result.exception, ConfigError)
    assert message in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_results_files_do_not_make_a_sweep_finished(tmp_path: Path) -> None:
    """What could not be served is refused before training, though every run folder has a results.json."""
    path = write(tmp_path / "s.yaml", out=str(tmp_path / "out"), serve={"dtype": "fp16"})
    for name in ("w100", "w25", "w0"):
        folder = tmp_path / "out" / "bench" / name
        folder.mkdir(parents=True)
        (folder / "results.json").write_text("{}")
    result = CliRunner().invoke(sweep, [str(path)])
    assert isinstance(result.exception, ConfigError)
    assert "--dtype fp16: choose from exact, auto" in str(result.exception)
    assert not (tmp_path / "out" / "trained").exists()


def test_the_tiny_example_can_be_served_on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_machine, "detect_machine", lambda: Machine("cuda", (0,), 1 << 34))
    _check_server(load_sweep(EXAMPLES / "iteration48-tiny.yaml", out=tmp_path))
    with pytest.raises(ConfigError, match="on an NVIDIA GPU"):
        _check_server(load_sweep(EXAMPLES / "iteration48-tiny.yaml", ["serve.dtype=float32"], tmp_path))
