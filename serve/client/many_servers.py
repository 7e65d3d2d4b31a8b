"""Change adapters on several servers: every server loads the version before any of them makes it live."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from harness.client.http.address import canonical_url
from harness.core.errors import AdapterError, ServerError
from serve.client import admin
from serve.registry.adapter_version import AdapterRef

Answers = list[tuple[str, dict[str, Any]]]
"""Each server's address with its answer."""


def change_all_servers(action: str, adapter: str, urls: Sequence[str]) -> Answers:
    """Load, unload, promote or roll back on every server; return each address with its answer (see ``admin.load``).

    Args:
        action: "load", "unload", "promote" or "rollback".
        adapter: ``NAME`` or ``NAME@VERSION``, as the action takes it.
        urls: addresses of the servers; two spellings of one address count once.

    Raises:
        AdapterError: a server refused, or the servers would choose different versions; no server has switched.
        ConfigError: an address is no URL.
        ServerError: a server cannot be reached; the message names the servers that have switched already, if any.
    """
    changes = {"load": admin.load, "unload": admin.unload, "promote": admin.promote, "rollback": admin.rollback}
    change = changes[action]
    urls = list(dict.fromkeys(map(canonical_url, urls)))  # one server under two spellings is one
    if len(urls) == 1:
        return [(urls[0], change(urls[0], adapter))]
    listings = {url: admin.list_adapters(url) for url in urls}
    if action == "unload":
        holders = [url for url in urls if _has_loaded(listings[url], adapter)]
        return [(url, change(url, adapter)) for url in holders or urls]
    version = _agreed_version(action, adapter, listings)
    _load_on_all(version, listings)
    # From here on every server is given the agreed version: on servers that share a registry, the first server's
    # change would change what "the newest" or "the previous" version is for the next.
    return _make_live(version, urls, pinned=action == "load" and "@" in adapter)


def _agreed_version(action: str, adapter: str, listings: dict[str, dict[str, Any]]) -> str:
    """Return the version id that every server would choose for this change.

    Raises:
        AdapterError: a server lacks the version, or the servers would choose different ones.
    """
    ref = AdapterRef.parse(adapter)
    if action == "promote" and ref.version is None:
        raise AdapterError(f"{adapter}: promote needs NAME@VERSION")
    if action == "rollback" and ref.version is not None:
        raise AdapterError(f"{adapter}: rollback takes a plain NAME")
    chosen: dict[str, str] = {}
    for url, listing in listings.items():
        rows: list[dict[str, Any]] = [row for row in listing["adapters"] if row["name"] == ref.name]
        ids: list[str] = [entry["id"] for row in rows for entry in row["versions"]]
        version: str | None = ids[-1] if ids and ref.version is None else adapter
        if action == "rollback":
            version = rows[0]["previous"] if rows else None
        if version is None:
            raise AdapterError(f"{url}: {adapter}: no earlier version to go back to; nothing was changed anywhere")
        if version not in ids:
            raise AdapterError(
                f"{url}: {adapter}: not in its registry, which holds {', '.join(ids) or 'no such name'}; "
                "nothing was changed anywhere"
            )
        chosen[url] = version
    if len(set(chosen.values())) > 1:
        choices = ", ".join(f"{version} at {url}" for url, version in chosen.items())
        raise AdapterError(f"{adapter}: means {choices}; name one version; nothing was changed anywhere")
    return next(iter(chosen.values()))


def _load_on_all(version: str, listings: dict[str, dict[str, Any]]) -> None:
    """Load the version on every server; if one fails, unload it from those that did not have it before.

    Raises:
        AdapterError, ServerError: a server refused or cannot be reached.
    """
    staged: list[str] = []
    for url, listing in listings.items():
        try:
            admin.stage(url, version)
        except (AdapterError, ServerError) as error:
            for done in staged:
                with suppress(AdapterError, ServerError):  # only the first error is reported
                    admin.unload(done, version)
            raise type(error)(f"{url}: {error}; no name was moved on any server") from error
        if not _has_loaded(listing, version):
            staged.append(url)


def _has_loaded(listing: dict[str, Any], adapter: str) -> bool:
    """Return whether a server has loaded this version, or any version of this name."""
    rows = [row for entry in listing["adapters"] for row in entry["versions"] if row["state"] in ("loaded", "live")]
    return any(adapter in (row["id"], row["id"].partition("@")[0]) for row in rows)


def _make_live(version: str, urls: Sequence[str], *, pinned: bool) -> Answers:
    """Make the loaded version live on one server after the other, and return each address with its answer.

    Args:
        pinned: make it live only where its name has no live version, as for a user who loads ``NAME@VERSION``.
    """
    answers: Answers = []
    for url in urls:
        try:
            answers.append((url, admin.load(url, version) if pinned else admin.promote(url, version)))
        except (AdapterError, ServerError) as error:
            moved = ", ".join(done for done, _ in answers) or "none"
            raise ServerError(f"{url}: {error}; ready on all servers, moved on: {moved}") from error
    return answers
