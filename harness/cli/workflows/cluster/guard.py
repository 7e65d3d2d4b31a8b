"""Replace this process by a command that ends when its parent ends: ``python -m … PARENT COMMAND …``.

The kernel sends the command SIGTERM when the process of Ray that started it is gone. A training then saves a checkpoint
and releases its folder's lock, so that another node can take over. Only Linux has this; elsewhere such a training
continues alone, and the lock makes the other node wait.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask for the signal, and become the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != parent:  # it ended before the signal was asked for
        raise SystemExit(130)
    os.execv(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main()
