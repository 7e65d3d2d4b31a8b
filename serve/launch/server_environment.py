"""Names by which the launcher, the server and its log tell each other about one server."""

from __future__ import annotations

ADAPTERS_DIR = "ARC_BENCH_ADAPTERS"
"""Environment variable with the server's registry folder; empty without one."""
OWNER_PID = "ARC_BENCH_OWNER_PID"
"""Environment variable with the process whose end also ends the server."""
LOG_PATH = "ARC_BENCH_LOG"
"""Environment variable with the server's log file, so that a client on this machine can read it."""
NOT_RESTORED = "not restored: "
"""Text in the server's log before the name of a live adapter that it could not load at its start, and the reason."""


def address(host: str, port: int) -> str:
    """Return the URL of a server."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
