"""An enumerated run of two models, and a server that scores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from shutil import copytree

import pytest

from tests.support.runs.enumerated_runs import enumerating_server, sample_unsure_run
from tests.support.servers.chat_server import ChatServer


@pytest.fixture(scope="package")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An enumerated run of two models, which each rescores."""
    return sample_unsure_run(tmp_path_factory.mktemp("sampled") / "run")


@pytest.fixture
def run(sampled: Path, tmp_path: Path) -> Path:
    return copytree(sampled, tmp_path / "run")


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with enumerating_server(doubt=0.4, scores=True) as running:
        yield running
