"""HTTP connections to one server: JSON objects in both directions, with typed errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson

from harness.client.protocol.error_response import Refusal, TransientError, classify_error, parse_error_body, shorten

if TYPE_CHECKING:
    import aiohttp

_KEEPALIVE = 2.0
"""Seconds; below uvicorn's 5, so that a connection is not reused just when the server closes it."""
_CONNECT_SECONDS = 10.0
_BODY_LIMIT = 64 << 20
"""Bytes of a response that are read at most."""
_JSON = {"Content-Type": "application/json"}


class HttpSession:
    """Makes HTTP requests to one server; an async context manager.

    Args:
        url: the server's address, for messages.
        key: the API key, sent as a bearer token; None sends none.
    """

    def __init__(self, url: str, key: str | None) -> None:
        self._url = url
        self._key = key
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> HttpSession:
        import aiohttp

        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE),
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def call(
        self,
        method: str,
        url: str,
        body: dict[str, object] | None,
        timeout: float,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Make one HTTP request and return the JSON object of its response; redirects are not followed.

        Raises:
            TransientError: the connection fails or times out, a retryable error, or the body is not a JSON object.
            Refusal: any other 4xx, or a redirect.
        """
        import aiohttp

        if self._session is None:
            raise RuntimeError("the client is not open; use it as an async context manager")
        data = None if body is None else orjson.dumps(body)
        connect = min(_CONNECT_SECONDS, timeout / 2)
        timeouts = aiohttp.ClientTimeout(total=timeout, sock_connect=connect)
        try:
            async with self._session.request(
                method, url, data=data, headers={**_JSON, **(headers or {})}, timeout=timeouts, allow_redirects=False
            ) as response:
                content = await _read_content(response)
                status, response_headers = response.status, response.headers
        except aiohttp.ConnectionTimeoutError:
            raise TransientError("connection", f"{self._url}: no connection in {connect:g} s") from None
        except TimeoutError:
            raise TransientError("timeout", f"{url}: no answer in {timeout:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise TransientError("connection", f"{self._url}: {str(error) or type(error).__name__}") from None
        except ValueError as error:
            raise TransientError("garbage", f"{url}: {error}") from None
        return parse_body(status, content, response_headers, url)


async def _read_content(response: aiohttp.ClientResponse) -> bytes:
    """Return a response's body.

    Raises:
        ValueError: it is larger than ``_BODY_LIMIT``.
    """
    parts, size = [], 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > _BODY_LIMIT:
            raise ValueError(f"an answer of over {_BODY_LIMIT >> 20} MiB")
        parts.append(part)
    return b"".join(parts)


def parse_body(status: int, content: bytes, headers: Mapping[str, str], url: str) -> dict[str, Any]:
    """Return the JSON object of a response with status 200.

    Raises:
        TransientError: a retryable error, or the body is not a JSON object.
        Refusal: any other 4xx, or a redirect.
    """
    if 300 <= status < 400:
        raise Refusal(status, f"{url} redirects to {shorten(headers.get('Location', 'nowhere'))}; give that address")
    if status >= 400:
        raise classify_error(status, parse_error_body(content), headers.get("Retry-After"), url)
    data = _parse_json(content)
    if isinstance(data, list) and url.endswith("/models"):
        data = {"data": data}  # the form of Together's API
    if status != 200 or not isinstance(data, dict):
        shown = shorten(content.decode(errors="replace"))
        raise TransientError("garbage", f"{url}: HTTP {status} with {shown!r}, not a JSON object")
    return data


def _parse_json(content: bytes) -> object:
    """Return a JSON value, or None if it cannot be parsed; NaN, lone surrogates and invalid UTF-8 are tolerated."""
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(content.decode("utf-8-sig", errors="replace"), strict=False)
    except (ValueError, RecursionError):
        return None
