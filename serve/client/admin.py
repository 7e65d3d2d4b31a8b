"""Client for a server's /admin/adapters routes."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import Any

from harness.client.http.address import open_without_proxy
from harness.core.errors import AdapterError, ServerError
from serve.keys import ADMIN_KEY, key_from_environment

_SECONDS = 600.0
"""How long to wait for an answer: an unload waits for requests in flight."""
_LONGEST_ANSWER = 1 << 24
"""Bytes; the list of 10,000 versions has a tenth of it."""
_EXPECTED = {
    "/admin/adapters/": {"action", "adapters", "live", "seconds", "warnings"},
    "/admin/adapters": {"base", "swaps", "adapters"},
    "/admin/": {"asleep"},
}
"""What an answer to a route has, by the beginning of its path."""


def load(url: str, adapter: str) -> dict[str, Any]:
    """Load the newest version of ``NAME`` and make it live, or load ``NAME@VERSION``.

    The latter becomes live only if ``NAME`` has no live version.

    Returns:
        {"action", "adapters": [ids], "live": {name: id}, "seconds", "warnings": [texts]}. The other functions that
        change adapters return the same.

    Raises:
        AdapterError: the server refused, with its reason.
        ServerError: the server cannot be reached, or sent something other than a JSON object.
    """
    return _change(url, "load", adapter)


def unload(url: str, adapter: str) -> dict[str, Any]:
    """Unload ``NAME@VERSION`` or all of ``NAME``, waiting for its requests in flight (same errors as ``load``)."""
    return _change(url, "unload", adapter)


def promote(url: str, adapter: str) -> dict[str, Any]:
    """Make ``NAME@VERSION`` live, loading it if necessary (same errors as ``load``).

    The previously live version is unloaded when its requests in flight are done.
    """
    return _change(url, "promote", adapter)


def rollback(url: str, name: str) -> dict[str, Any]:
    """Make the previously live version of ``name`` live again (same errors as ``load``)."""
    return _change(url, "rollback", name)


def list_adapters(url: str) -> dict[str, Any]:
    """Return what a server has and can do.

    The form is {"base", "swaps", "can_sleep", "scores_output_layer", "adapters": [{"name", "live", "previous",
    "versions": [{"id", "state", ...}]}]}. Versions are ordered oldest first; "previous" is the one that a rollback
    makes live. "scores_output_layer": log-probabilities of prompts are right although an adapter is on that layer.

    Raises:
        AdapterError, ServerError: as ``load``.
    """
    return _call(url, "/admin/adapters", None)


def stage(url: str, version: str) -> dict[str, Any]:
    """Load ``NAME@VERSION`` without making it live (same errors as ``load``)."""
    return _call(url, "/admin/adapters/load", {"adapter": version, "live": False})


def sleep(url: str) -> dict[str, Any]:
    """Make a server free its GPU memory: weights go to the CPU's memory, the KV cache is dropped. Not run on a GPU yet.

    Requests in flight are finished first. The server must have been started with ``--enable-sleep-mode``.

    Returns:
        {"asleep"}: whether it sleeps now.

    Raises:
        AdapterError, ServerError: as ``load``.
    """
    return _call(url, "/admin/sleep", {})


def wake(url: str) -> dict[str, Any]:
    """Make a sleeping server compute again (answer and errors as ``sleep``)."""
    return _call(url, "/admin/wake", {})


def _change(url: str, action: str, adapter: str) -> dict[str, Any]:
    """Send a change to its route and return the server's answer."""
    return _call(url, f"/admin/adapters/{action}", {"adapter": adapter})


def _call(url: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
    """Send one request, with the administrator's key if it is set, and return the JSON object in the answer.

    The errors are the same as those of ``load``.

    Args:
        body: the JSON to POST; None sends a GET.
    """
    address = url.rstrip("/").removesuffix("/v1") + path
    if not address.startswith(("http://", "https://")):
        raise ServerError(f"{url}: expected an address such as http://127.0.0.1:8000")
    headers = {"Content-Type": "application/json"}
    if key := key_from_environment(ADMIN_KEY):
        headers["Authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data=data, headers=headers)  # noqa: S310 (http checked above)
    try:
        with open_without_proxy(request, timeout=_SECONDS) as response:
            value = json.loads(response.read(_LONGEST_ANSWER))
    except urllib.error.HTTPError as error:
        raise _refusal(address, error) from error
    except (urllib.error.URLError, OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise ServerError(
            f"{address}: no answer from a server there: {reason}; is it running (bench serve)?"
        ) from error
    expected = next(keys for part, keys in _EXPECTED.items() if part in path)
    if not isinstance(value, dict) or not expected <= value.keys():
        raise ServerError(f"{address}: answered something else than an arc-bench server does; is it one?")
    return value


def _refusal(address: str, error: urllib.error.HTTPError) -> AdapterError | ServerError:
    """Return the error for an answer with an HTTP error status."""
    text = error.read(1 << 16).decode(errors="replace")
    try:
        message = str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        to = f" to {location}, which is not followed" if (location := error.headers.get("Location")) else ""
        return ServerError(f"{address}: answered {error.code} {error.reason}{to}; is it an arc-bench server?")
    if error.code in (401, 403):
        return ServerError(f"{address}: {message} (this client takes its key from {ADMIN_KEY})")
    return ServerError(f"{address}: {message}") if error.code >= 500 else AdapterError(message)
