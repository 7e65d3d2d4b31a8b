"""What a terminal can show."""

from __future__ import annotations

import os
from typing import TextIO


def can_redraw(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that can redraw lines, so that a live display works.

    Without it progress is printed as plain lines. ``TERM=dumb`` and ``TERM=unknown`` name terminals that cannot, and
    rich draws nothing on them before the end.
    """
    return stream.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")
