"""The address of a server: one spelling for each, and where its routes may lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from harness.core.errors import ConfigError

if TYPE_CHECKING:
    from urllib.request import Request

_PORTS = {"http": ":80", "https": ":443"}


def canonical(url: str) -> str:
    """One spelling of a server's address: without slashes at its end, without ``/v1`` where that is its whole path.

    Raises:
        ConfigError: it is no address of a server, or has parts that must not be saved with a run.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in _PORTS:
        raise ConfigError(f"--server {url!r} is not a URL such as http://127.0.0.1:8000")
    if "@" in url:
        raise ConfigError(
            "--server: an address with a user's name or password in it would be saved with the run; "
            "give a key in ARC_BENCH_API_KEY"
        )
    if parts.query or parts.fragment:
        raise ConfigError(f"--server {url.partition('?')[0]!r}: give the address without what follows ? or #")
    where = parts.netloc.lower().removesuffix(_PORTS[parts.scheme])
    path = parts.path.rstrip("/")
    return urlunsplit((parts.scheme, where, "" if path == "/v1" else path, "", ""))


def bases(url: str) -> tuple[str, ...]:
    """Where the routes ``/models`` and ``/chat/completions`` of a server may lie, the likeliest first.

    An address with a path is taken as given first; one without has its routes under ``/v1``.
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
