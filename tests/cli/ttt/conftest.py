"""The servers on which ``bench ttt`` is tested, and a run without interruption on each."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.launch.process import serving
from tests.cli.ttt.test_ttt_options import RECIPE
from tests.support.runs.ttt_runs import Site
from tests.support.servers.adapter_server import AdapterServer
from tests.support.servers.chat_server import TINY_BASE
from tests.support.vllm.dtypes import SERVE_OPTIONS


@pytest.fixture(scope="package", params=["small server", "vllm"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("ttt")
    recipe = root / "recipe.yaml"
    recipe.write_text(json.dumps({**RECIPE, "ttt": {"steps": 6}}))
    if request.param == "small server":
        with AdapterServer(root / "registry") as small:
            yield Site(small, root / "registry", recipe)
            assert small.most_loaded <= 1
        return
    with serving(TINY_BASE, root / "registry", log=root / "server.log", **SERVE_OPTIONS) as server:
        yield Site(server, root / "registry", recipe)


@pytest.fixture(scope="package")
def finished(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three tasks without interruption, in a process of its own."""
    out = tmp_path_factory.mktemp("finished") / "run"
    subprocess.run([sys.executable, "-m", "harness.cli", *site.words(out)], check=True, timeout=500)
    return out


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark kills and refused resumes on a real vLLM as long: the small server has the same, with the same trainer."""
    for item in items:
        if item.path.name in ("test_ttt_kills.py", "test_ttt_resuming.py") and "[vllm" in item.name:
            item.add_marker("long")
