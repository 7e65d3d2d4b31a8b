"""The Python of README and docs/python.md runs as it is written; of README the output has the same form, too."""

from __future__ import annotations

import doctest
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import ROOT
from tests.support.runs.pools import write_submission
from tests.support.runs.run_folders import MakeRun

SPEC = "toy/cross/evaluation#n=40"
MODELS = {"tiny-base": 0.0, "cross": 0.95, "diagonal": 0.65, "mix": 0.94}
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


def snippets(page: str) -> list[str]:
    """Return the Python blocks of a page."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


class SameForm(doctest.OutputChecker):
    """Compares outputs without the values of their numbers and the width of their columns."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return self.form(want) == self.form(got)

    @staticmethod
    def form(text: str) -> list[str]:
        return _NUMBER.sub("0", text).split()


def test_the_example_of_the_readme_runs(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(make_run("run", SPEC, MODELS, 8, fails=0.0), tmp_path / "runs/demo/bench/cross")
    monkeypatch.chdir(tmp_path)
    (text,) = snippets("README.md")
    test = doctest.DocTestParser().get_doctest(text, {}, "README.md", None, 0)
    assert len(test.examples) == 4
    printed: list[str] = []
    results = doctest.DocTestRunner(SameForm()).run(test, out=printed.append)
    assert results.failed == 0, "".join(printed)


def test_the_examples_of_the_page_run(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for name in ("first", "second"):
        shutil.move(make_run(name, "arc1/evaluation", {name: 0.5}, 2), tmp_path / "runs" / name)
    write_submission(tmp_path / "submission.json", "arc1/evaluation", right=3)
    names: dict[str, object] = {}
    for text in snippets("docs/python.md"):
        exec(compile(text, "docs/python.md", "exec"), names)
    assert isinstance(names["frame"], pd.DataFrame)
    assert {"run", "other"} <= set(names)
