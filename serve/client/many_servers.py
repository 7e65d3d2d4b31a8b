"""One change of adapters on several servers: a version is ready on all of them before a name moves on any."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from harness.client.address import canonical_url
from harness.core.errors import AdapterError, ServerError
from serve.client import admin
from serve.registry.adapter_version import AdapterRef

Answers = list[tuple[str, dict[str, Any]]]


def change_all_servers(action: str, adapter: str, urls: Sequence[str]) -> Answers:
    """Load, unload, promote or roll back on every server; gives each address and its answer (see ``admin.load``).

    Raises:
        AdapterError: a server refused, or they disagree about the version; where it was to become live, no name has
            moved anywhere.
        ConfigError: an address is no URL.
        ServerError: a server cannot be reached; the message says on which ones a name has moved already, if on any.
    """
    changes = {"load": admin.load, "unload": admin.unload, "promote": admin.promote, "rollback": admin.rollback}
    change = changes[action]
    urls = list(dict.fromkeys(map(canonical_url, urls)))  # one server under two spellings is one
    if len(urls) == 1:
        return [(urls[0], change(urls[0], adapter))]
    listings = {url: admin.list_adapters(url) for url in urls}
    if action == "unload":
        having = [url for url in urls if _has(listings[url], adapter)]
        return [(url, change(url, adapter)) for url in having or urls]
    version = _agreed_version(action, adapter, listings)
    _stage(version, listings)
    # What each server is asked for now is the version agreed on: of several servers on one registry, the first
    # one's change would give "the newest" or "the one before" another meaning for the next.
    return _flip(version, urls, pinned=action == "load" and "@" in adapter)


def _agreed_version(action: str, adapter: str, listings: dict[str, dict[str, Any]]) -> str:
    """The id that every server means by the change.

    Raises:
        AdapterError: one has no such version, or they mean different ones.
    """
    ref = AdapterRef.parse(adapter)
    if action == "promote" and ref.version is None:
        raise AdapterError(f"{adapter}: promote needs NAME@VERSION")
    if action == "rollback" and ref.version is not None:
        raise AdapterError(f"{adapter}: rollback takes a plain NAME")
    meant: dict[str, str] = {}
    for url, listing in listings.items():
        rows: list[dict[str, Any]] = [row for row in listing["adapters"] if row["name"] == ref.name]
        ids: list[str] = [version["id"] for row in rows for version in row["versions"]]
        found: str | None = ids[-1] if ids and ref.version is None else adapter
        if action == "rollback":
            found = rows[0]["previous"] if rows else None
        if found is None:
            raise AdapterError(f"{url}: {adapter}: no earlier version to go back to; nothing was changed anywhere")
        if found not in ids:
            raise AdapterError(
                f"{url}: {adapter}: not in its registry, which holds {', '.join(ids) or 'no such name'}; "
                "nothing was changed anywhere"
            )
        meant[url] = found
    if len(set(meant.values())) > 1:
        told = ", ".join(f"{version} at {url}" for url, version in meant.items())
        raise AdapterError(f"{adapter}: means {told}; name one version; nothing was changed anywhere")
    return next(iter(meant.values()))


def _stage(version: str, listings: dict[str, dict[str, Any]]) -> None:
    """Load on every server, or leave them as they were.

    Raises:
        AdapterError, ServerError: one refused or cannot be reached.
    """
    staged: list[str] = []
    for url, listing in listings.items():
        try:
            admin.stage(url, version)
        except (AdapterError, ServerError) as error:
            for done in staged:
                with suppress(AdapterError, ServerError):  # the first error is the one to tell
                    admin.unload(done, version)
            raise type(error)(f"{url}: {error}; no name was moved on any server") from error
        if not _has(listing, version):
            staged.append(url)


def _has(listing: dict[str, Any], adapter: str) -> bool:
    """Whether a server answers for this version, or for any of this name."""
    rows = [row for found in listing["adapters"] for row in found["versions"] if row["state"] in ("loaded", "live")]
    return any(adapter in (row["id"], row["id"].partition("@")[0]) for row in rows)


def _flip(version: str, urls: Sequence[str], *, pinned: bool) -> Answers:
    answers: Answers = []
    for url in urls:
        try:
            answers.append((url, admin.load(url, version) if pinned else admin.promote(url, version)))
        except (AdapterError, ServerError) as error:
            moved = ", ".join(done for done, _ in answers) or "none"
            raise ServerError(f"{url}: {error}; ready on all servers, moved on: {moved}") from error
    return answers
