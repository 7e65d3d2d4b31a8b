"""Runs of every kind, sampled and rescored by the commands against a test's servers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.runs.enumerated_runs import enumerating_server, sample_unsure_run
from tests.support.runs.pools import make_pool
from tests.support.runs.rescored_runs import rescore_options, run_rescore
from tests.support.runs.sampling_runs import uninterrupted_run


@pytest.fixture(scope="package")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a drawn run of two models, eight tasks and four predictions each."""
    return uninterrupted_run(tmp_path_factory.mktemp("drawn") / "drawn")


@pytest.fixture(scope="package")
def rescored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an enumerated run of two models whose candidates each of them rescored."""
    run = sample_unsure_run(tmp_path_factory.mktemp("rescored") / "rescored")
    with enumerating_server(doubt=0.4, scores=True) as server:
        run_rescore(rescore_options(server, run))
    return run


@pytest.fixture(scope="package")
def pool(drawn: Path, rescored: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the pool of the drawn run and the enumerated one."""
    return make_pool(tmp_path_factory.mktemp("pool") / "pool", drawn, rescored)
