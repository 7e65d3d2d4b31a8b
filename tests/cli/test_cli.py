"""The command line: help, exit statuses, one-line errors, and what it imports."""

from __future__ import annotations

import json
import marshal
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from harness.cli import COMMANDS, cli
from harness.cli.entry import run_cli
from tests.conftest import ROOT


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    """Run bench in its own process."""
    return subprocess.run([sys.executable, "-m", "harness.cli", *words], capture_output=True, text=True)


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom harness.cli import main\ntry:\n    sys.argv = ['bench', '--help']\n    main()\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'torch', 'vllm', 'scipy', 'numpy', 'pandas', 'pydantic', 'transformers', 'aiohttp', 'matplotlib'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout
    for name in COMMANDS:
        assert name in done.stdout


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help_with_an_example(name: str) -> None:
    result = CliRunner().invoke(cli, [name, "--help"], prog_name="bench")
    assert result.exit_code == 0, result.output
    assert f"bench {name}" in result.output


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["nonsense"], 2, "No such command 'nonsense'"),
        (["data", "show", "toy/nobody"], 2, "toy/nobody"),
        (["tiny-base"], 2, "name a folder to write to"),
        (["train", "no-such-recipe.yaml"], 2, "no-such-recipe.yaml"),
        (["demo", "--out", "harness"], 2, "is not empty and no demo made it"),
        (["score", "tests"], 1, "manifest.json is missing"),
        (["gate", "tests", "--min", "0.2"], 4, "manifest.json is missing"),
        (["serve", "no/such/model"], 1, "no/such/model"),
    ],
)
def test_errors_are_one_line_on_stderr_with_the_right_status(words: list[str], status: int, message: str) -> None:
    done = bench(*words)
    assert done.returncode == status, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_debug_shows_the_traceback() -> None:
    done = bench("--debug", "score", "tests")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_tiny_base_path_prints_the_shipped_folder() -> None:
    done = bench("tiny-base", "--path")
    assert done.returncode == 0
    assert done.stdout.strip().endswith("tiny-base")


def test_a_package_of_an_extra_that_is_missing_is_named_with_its_remedy(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom importlib.abc import MetaPathFinder\n"
        "class Without(MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name.partition('.')[0] in ('torch', 'vllm'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Without())\n"
        "from harness.cli import main\nmain()\n"
    )
    for words in (["tiny-base", "-o", str(tmp_path / "new")], ["train", "examples/train-toy.yaml"]):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 1, words
        assert 'pip install -e ".[train]"' in done.stderr, (words, done.stderr)
        assert "Traceback" not in done.stderr


def test_a_damaged_compiled_file_is_not_reported_as_an_interrupt(capsys: pytest.CaptureFixture[str]) -> None:
    """Click turns EOFError into Abort, as it does with Ctrl-C."""

    @click.command()
    def command() -> None:
        marshal.loads(b"\xe3")

    assert run_cli(command, []) == 1
    error = capsys.readouterr().err.lstrip()
    assert error.startswith("error: a compiled Python file is damaged (")
    assert "-name '*.pyc' -delete" in error


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_characters_that_the_encoding_lacks_are_escaped(tmp_path: Path, encoding: str) -> None:
    """Solving one task of two ends in a table with the sign † of Wilson's interval."""
    grids = {"aé→🙂": [[1]], "b": [[2]]}
    tasks = {k: {"train": [{"input": g, "output": g}], "test": [{"input": g, "output": g}]} for k, g in grids.items()}
    (tmp_path / "t.json").write_text(json.dumps(tasks), encoding="utf-8")
    answers = {k: [{"attempt_1": [[1]], "attempt_2": [[1]]}] for k in grids}
    (tmp_path / "s.json").write_text(json.dumps(answers), encoding="utf-8")
    env = {**os.environ, "PYTHONIOENCODING": encoding}

    def output(*words: str) -> str:
        argv = [sys.executable, "-m", "harness.cli", *words]
        done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, check=True)
        return done.stdout.decode(encoding)

    mark = "†" if encoding == "utf-8" else "\\u2020"
    assert f"50.0 %{mark} [" in output("score", "s.json", "--dataset", "t.json")
    shown = output("data", "show", "t.json", "aé→🙂", "--color", "never")
    name = "aé→🙂" if encoding == "utf-8" else "aé\\u2192\\ud83d\\ude42"
    assert name in shown
    assert json.loads(f'"{name}"') == "aé→🙂"
