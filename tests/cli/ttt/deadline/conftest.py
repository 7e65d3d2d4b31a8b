"""A small server for runs of ``bench ttt`` that a deadline cuts, and the run that none cuts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.sampling import engine
from tests.cli.ttt.test_ttt_options import RECIPE
from tests.support.runs.cut_runs import answer_again
from tests.support.runs.ttt_deadlines import run
from tests.support.runs.ttt_runs import Site
from tests.support.servers.adapter_server import AdapterServer


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A small server."""
    root = tmp_path_factory.mktemp("site")
    recipe = root / "recipe.yaml"
    recipe.write_text(json.dumps(RECIPE))
    with AdapterServer(root / "registry") as server:
        yield Site(server, root / "registry", recipe)


@pytest.fixture
def server(site: Site) -> Iterator[AdapterServer]:
    """The server, which answers everything again after the test."""
    assert isinstance(site.server, AdapterServer)
    yield site.server
    answer_again(site.server)
    site.server.spoil_scores = lambda body: body
    site.server.fail_admin = lambda route: False


@pytest.fixture(autouse=True)
def _short_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that hangs answers nothing in the five seconds either; others do in two, on a busy machine too."""
    monkeypatch.setattr(engine, "DEADLINE_DRAIN_SECONDS", 2.0)


@pytest.fixture(scope="module")
def whole(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run without a deadline."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert run(site, out, None) is None
    return out
