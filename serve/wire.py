"""The HTTP reader of the server: uvicorn's, with a limit on what a client may send before its request is understood.

uvicorn's httptools reader takes request lines, headers and trailers of any length, before a key could be looked at.
"""

from __future__ import annotations

import uvicorn.config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD = 64 << 10
"""Bytes that may come without a request or a part of a body among them; what one read brings may be more."""


class BoundedHttp(HttpToolsProtocol):
    """Hangs up on a client whose request line, headers, chunk extensions or trailers have no end."""

    _pending = 0

    def data_received(self, data: bytes) -> None:
        """Take what was read; too much of nothing closes the connection."""
        self._pending += len(data)
        super().data_received(data)
        if self._pending > MAX_HEAD and not self.transport.is_closing():
            self.logger.warning("a request's head is larger than %d KiB; hung up", MAX_HEAD >> 10)
            self.send_400_response("The head of the request is too large")

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
