"""Addresses of servers: their canonical spelling, the roots of their API, and requests that bypass proxies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from harness.core.errors import ConfigError

if TYPE_CHECKING:
    from urllib.request import Request

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def canonical_url(url: str) -> str:
    """Return the one spelling that is used and saved for a server's address.

    The host is in lower case; the scheme's default port, slashes at the end and a path that is only ``/v1`` are
    removed.

    Raises:
        ConfigError: the text is not a server's address, or contains credentials, which would be saved with a run.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in _DEFAULT_PORTS:
        raise ConfigError(f"--server {url!r} is not a URL such as http://127.0.0.1:8000")
    if "@" in url:
        raise ConfigError(
            "--server: an address with a user's name or password in it would be saved with the run; "
            "give a key in ARC_BENCH_API_KEY"
        )
    if parts.query or parts.fragment:
        raise ConfigError(f"--server {url.partition('?')[0]!r}: give the address without what follows ? or #")
    location = parts.netloc.lower().removesuffix(_DEFAULT_PORTS[parts.scheme])
    path = parts.path.rstrip("/")
    return urlunsplit((parts.scheme, location, "" if path == "/v1" else path, "", ""))


def api_roots(url: str) -> tuple[str, ...]:
    """Return the URLs under which ``/models`` and ``/chat/completions`` may be found, the most likely first.

    For an address without a path, the URL with ``/v1`` added comes first; for one with a path, the address itself.

    Args:
        url: a canonical address.
    """
    if not urlsplit(url).path:
        return f"{url}/v1", url
    return (url,) if url.endswith("/v1") else (url, f"{url}/v1")


def open_without_proxy(request: Request | str, timeout: float) -> Any:
    """Send a request and return its response, as ``urllib.request.urlopen`` does, ignoring proxies of the environment.

    Args:
        timeout: seconds that one read or write may take.

    Raises:
        OSError: the server cannot be reached, or answers with an error status (``urllib.error.HTTPError``).
    """
    import urllib.request  # here, because most commands send no request

    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=timeout)
