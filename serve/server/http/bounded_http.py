"""uvicorn's HTTP protocol with a limit on request heads and on clients that stop reading.

uvicorn's httptools protocol reads request lines, headers and trailers of any length, before a key can be checked, and
waits forever for a client that does not read its response, whose request would hold its adapter all that time.
"""

from __future__ import annotations

import asyncio
import fcntl
import sys
import termios

import uvicorn.config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD = 64 << 10
"""Bytes that may arrive without completing a head or a part of a body; a single read may bring more."""


class BoundedHttp(HttpToolsProtocol):
    """Closes the connection of a client that sends an endless head, chunk extension or trailer, or that stops reading.

    Attributes:
        write_seconds: how long a client may read nothing while a response is waiting.
    """

    write_seconds = 60.0
    _head_bytes = 0
    _unread = 0
    _check: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Parse received bytes; answer 400 and close if MAX_HEAD is exceeded before a head or body part is complete."""
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > MAX_HEAD and not self.transport.is_closing():
            self.logger.warning("a request's head is larger than %d KiB; hung up", MAX_HEAD >> 10)
            self.send_400_response("The head of the request is too large")

    def pause_writing(self) -> None:
        """Called when the client reads more slowly than the response is written: check whether it reads at all."""
        super().pause_writing()
        self._schedule_check()

    def resume_writing(self) -> None:
        """Called when the client has caught up: stop checking."""
        self._cancel_check()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called when the connection is closed."""
        self._cancel_check()
        super().connection_lost(exc)

    def _schedule_check(self) -> None:
        """Record how much the client has not read yet, and check after ``write_seconds`` whether it has read more."""
        self._unread = self._count_unread()
        self._check = self.loop.call_later(self.write_seconds, self._hang_up_unless_read)

    def _cancel_check(self) -> None:
        """Stop checking whether the client reads."""
        if self._check is not None:
            self._check.cancel()
            self._check = None

    def _hang_up_unless_read(self) -> None:
        """Close the connection if the client has read nothing since the last check."""
        if self._count_unread() < self._unread:
            self._schedule_check()
            return
        self.logger.warning("a client has read nothing of its answer for %g s; hung up", self.write_seconds)
        self.transport.abort()

    def _count_unread(self) -> int:
        """Return how many bytes of the response the client has not received.

        They wait in the transport's buffer and in the system's, if it tells (Linux does).
        """
        waiting = self.transport.get_write_buffer_size()
        try:
            unsent = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
        except OSError:
            return waiting
        return waiting + int.from_bytes(unsent, sys.byteorder)

    def on_headers_complete(self) -> None:
        """Called when a request's head is complete: restart the count."""
        self._head_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Called for a part of a body, whose size the application limits: restart the count."""
        self._head_bytes = 0
        super().on_body(body)


def bound_heads() -> None:
    """Make every uvicorn server that this process configures from now on use ``BoundedHttp``."""
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{BoundedHttp.__name__}"
