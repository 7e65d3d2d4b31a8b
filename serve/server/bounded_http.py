"""HTTP as the server reads and writes it: uvicorn's, with a limit on request heads and on clients that stop reading.

uvicorn's httptools reader takes request lines, headers and trailers of any length, before a key could be looked at, and
waits without end for a client that does not read its answer; the request would hold its adapter for as long.
"""

from __future__ import annotations

import asyncio
import fcntl
import sys
import termios

import uvicorn.config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD = 64 << 10
"""Bytes that may come without a request or a part of a body among them; what one read brings may be more."""


class BoundedHttp(HttpToolsProtocol):
    """Hangs up on a client whose request line, headers, chunk extensions or trailers have no end, or who stops reading.

    Attributes:
        write_seconds: how long a client may take none of an answer that waits for it.
    """

    write_seconds = 60.0
    _pending = 0
    _unread = 0
    _check: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Take what was read; too much of nothing closes the connection."""
        self._pending += len(data)
        super().data_received(data)
        if self._pending > MAX_HEAD and not self.transport.is_closing():
            self.logger.warning("a request's head is larger than %d KiB; hung up", MAX_HEAD >> 10)
            self.send_400_response("The head of the request is too large")

    def pause_writing(self) -> None:
        """The client reads more slowly than the answer comes: look from time to time whether it reads at all."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._stop_watching()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        self._stop_watching()
        super().connection_lost(exc)

    def _watch(self) -> None:
        self._unread = self._bytes_to_read()
        self._check = self.loop.call_later(self.write_seconds, self._hang_up_unless_read)

    def _stop_watching(self) -> None:
        if self._check is not None:
            self._check.cancel()
            self._check = None

    def _hang_up_unless_read(self) -> None:
        if self._bytes_to_read() < self._unread:
            self._watch()
            return
        self.logger.warning("a client has read nothing of its answer for %g s; hung up", self.write_seconds)
        self.transport.abort()

    def _bytes_to_read(self) -> int:
        """How much waits here and in the system's buffer, where the system says (Linux does)."""
        waiting = self.transport.get_write_buffer_size()
        try:
            kept = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
        except OSError:
            return waiting
        return waiting + int.from_bytes(kept, sys.byteorder)

    def on_headers_complete(self) -> None:
        """A request has begun."""
        self._pending = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of a body has come, whose size the application limits."""
        self._pending = 0
        super().on_body(body)


def bound_heads() -> None:
    """Let every uvicorn server of this process that is configured from now on read with ``BoundedHttp``."""
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{BoundedHttp.__name__}"
