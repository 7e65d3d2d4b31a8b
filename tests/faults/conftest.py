"""What the tests of the matrix share: the count of their cases, and a run that nothing disturbed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.matrix import count
from tests.support.chat_answers import moody
from tests.support.chat_server import ChatServer
from tests.support.sampling_toys import options, sample


@pytest.fixture
def cases() -> Callable[[int], None]:
    """``cases(n)``: n faults were injected, and the promise held under each."""
    return count


@pytest.fixture(scope="session")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, five tasks, four predictions each, asked of a server without faults."""
    out = tmp_path_factory.mktemp("calm") / "run"
    with ChatServer(moody) as server:
        sample(options(server, out))
    return out
