"""Addresses of servers: their canonical spelling, the roots of their API, and requests that bypass proxies."""

from __future__ import annotations

from collections.abc import Sequence
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


def check_servers(urls: Sequence[str], api_key: str | None) -> None:
    """Check the servers and the key that the user gave.

    Raises:
        ConfigError: there is no server, one is given twice or is no address, or the key cannot be sent.
    """
    if not urls:
        raise ConfigError("no server given; name one with --server URL")
    servers = [canonical_url(url) for url in urls]
    if repeated := next((server for server in servers if servers.count(server) > 1), None):
        raise ConfigError(f"--server {repeated} is given twice")
    if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
        raise ConfigError("the API key holds something else than printable ASCII characters")


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
    """Send a request and return its response, as ``urllib.request.urlopen`` does, but follow no proxy and no redirect.

    A redirect would take the key of the request to another server.

    Args:
        timeout: seconds that one read or write may take.

    Raises:
        OSError: the server cannot be reached, or answers with an error status (``urllib.error.HTTPError``).
    """
    import urllib.request  # here, because most commands send no request

    class NoRedirect(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: Any) -> None:
            """Make the redirect an ``HTTPError`` with its status."""

    return urllib.request.build_opener(urllib.request.ProxyHandler({}), NoRedirect).open(request, timeout=timeout)
