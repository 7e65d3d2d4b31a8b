"""The example notebook runs from its first cell to its last on a run that was sampled for it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT

pytestmark = pytest.mark.slow
NOTEBOOK = ROOT / "examples" / "explore.ipynb"


@pytest.mark.filterwarnings("default")  # of the kernel's packages
def test_the_notebook_runs(drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "examples").mkdir()
    for name in ("cross", "copy"):
        shutil.copytree(drawn, tmp_path / "runs" / "demo" / "bench" / name)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path / "examples")}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    pages = [output["data"].get("text/html", "") for output in outputs if "data" in output]
    assert len(pages) == sum(cell.cell_type == "code" for cell in notebook.cells)
    assert not [output for output in outputs if output["output_type"] in ("error", "stream")]
    assert sum("<svg" in page for page in pages) == 2
    assert "vote_2" in pages[0]
    assert "<table>" in pages[0]


def test_the_saved_outputs_name_no_path_of_a_machine() -> None:
    assert re.findall(r"(?<![\w<./:)])/\w[\w.-]*/[\w.-]+", NOTEBOOK.read_text()) == []
    assert all(cell["outputs"] for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code")
