"""A small client for /admin/adapters and /v1/models of one or several servers."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import Any

from harness.client.address import open_without_proxy
from harness.core.errors import AdapterError, ServerError
from serve.keys import ADMIN_KEY, key_from_environment

_SECONDS = 600.0


def load(url: str, adapter: str) -> dict[str, Any]:
    """Load the newest version of ``NAME`` and make it live, or load ``NAME@VERSION`` (live where the name had none).

    Returns:
        {"action", "adapters": [ids], "live": {name: id}, "seconds"}, as for the other changes.

    Raises:
        AdapterError: the server refused; its reason.
        ServerError: it cannot be reached or answered something else.
    """
    return _change(url, "load", adapter)


def unload(url: str, adapter: str) -> dict[str, Any]:
    """Unload ``NAME@VERSION`` or all of ``NAME``; answers when requests in flight are done (raises as ``load``)."""
    return _change(url, "unload", adapter)


def promote(url: str, adapter: str) -> dict[str, Any]:
    """Point the name at ``NAME@VERSION``, loading it first; the version before drains and goes (raises as ``load``)."""
    return _change(url, "promote", adapter)


def rollback(url: str, name: str) -> dict[str, Any]:
    """Point ``name`` back at the version that was live before (raises as ``load``)."""
    return _change(url, "rollback", name)


def list_adapters(url: str) -> dict[str, Any]:
    """{"base", "swaps", "adapters": [{"name", "live", "previous", "versions": [{"id", "state", ...}]}]}.

    Versions stand oldest first; "previous" is what a rollback goes back to (raises as ``load``).
    """
    return _call(url, "/admin/adapters", None, ADMIN_KEY)


def stage(url: str, version: str) -> dict[str, Any]:
    """Load ``NAME@VERSION`` without moving any name (raises as ``load``)."""
    return _call(url, "/admin/adapters/load", {"adapter": version, "live": False}, ADMIN_KEY)


def _change(url: str, action: str, adapter: str) -> dict[str, Any]:
    return _call(url, f"/admin/adapters/{action}", {"adapter": adapter}, ADMIN_KEY)


def _call(url: str, path: str, body: dict[str, Any] | None, key_name: str) -> dict[str, Any]:
    address = url.rstrip("/").removesuffix("/v1") + path
    if not address.startswith(("http://", "https://")):
        raise ServerError(f"{url}: expected an address such as http://127.0.0.1:8000")
    headers = {"Content-Type": "application/json"}
    if key := key_from_environment(key_name):
        headers["Authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data=data, headers=headers)  # noqa: S310 (http checked above)
    try:
        with open_without_proxy(request, timeout=_SECONDS) as reply:
            value = json.load(reply)
    except urllib.error.HTTPError as error:
        raise _refusal(address, error, key_name) from error
    except (urllib.error.URLError, OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise ServerError(
            f"{address}: no answer from a server there: {reason}; is it running (bench serve)?"
        ) from error
    if not isinstance(value, dict):
        raise ServerError(
            f"{address}: answered with {type(value).__name__}, not with an object; is it an arc-bench server?"
        )
    return value


def _refusal(address: str, error: urllib.error.HTTPError, key_name: str) -> AdapterError | ServerError:
    text = error.read(1 << 16).decode(errors="replace")
    try:
        message = str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return ServerError(f"{address}: answered {error.code} {error.reason}; is it an arc-bench server?")
    if error.code in (401, 403):
        return ServerError(f"{address}: {message} (this client takes its key from {key_name})")
    return ServerError(f"{address}: {message}") if error.code >= 500 else AdapterError(message)
