"""Fixtures of the fault tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.matrix import count_cases
from tests.support.runs.sampling_runs import run_options, run_sampling
from tests.support.servers.chat_answers import mixed_answer
from tests.support.servers.chat_server import ChatServer


@pytest.fixture
def cases() -> Callable[[int], None]:
    """Return the function ``cases(n)``, which records that n faults were injected."""
    return count_cases


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of two models and five tasks that was sampled without faults."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    with ChatServer(mixed_answer) as server:
        run_sampling(run_options(server, out))
    return out
