"""The routes under /admin/adapters, behind the real middleware: what they do, and hostile requests."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve.server.http.http_json import MAX_BODY
from tests.serve.conftest import OpenSite
from tests.support.servers.admin_site import Site

ACTIONS = ("load", "unload", "promote", "rollback", "remove", "gc")


def ids_of(site: Site, name: str) -> list[str]:
    return [version.id for version in site.registry.versions(name)]


async def settle(site: Site) -> None:
    """Wait until no version is retiring."""
    while any(entry.retiring for entry in site.pool.loaded.values()):
        await asyncio.sleep(0)


def test_every_change_and_the_listing(site: Site) -> None:
    async def scenario() -> None:
        one, two = ids_of(site, "a")
        for action, body, ids in [
            ("load", {"adapter": one}, [one]),
            ("load", {"adapter": two, "live": False}, [two]),
            ("promote", {"adapter": two}, [two]),
            ("rollback", {"adapter": "a"}, [one]),
        ]:
            status, answer = await site.request("POST", f"/admin/adapters/{action}", body)
            assert (status, answer["action"], answer["adapters"]) == (200, action, ids), answer
        await settle(site)
        status, listing = await site.request("GET", "/admin/adapters")
        assert (status, listing["base"], listing["swaps"]) == (200, "toy-base", 2)
        a, b = listing["adapters"]
        assert (a["name"], a["live"], a["previous"]) == ("a", one, two)
        assert {row["id"]: row["state"] for row in a["versions"]} == {one: "live", two: "registered"}
        assert (b["live"], b["previous"], len(b["versions"])) == (None, None, 2)
        assert site.figures.get_sample_value("arc_bench_swaps_total", {"name": "a"}) == 2
        assert (await site.request("POST", "/admin/adapters/unload", {"adapter": "a"}))[1]["adapters"] == [one]

    asyncio.run(scenario())


def test_a_loaded_version_that_is_not_live_answers_by_its_id_only(site: Site) -> None:
    async def scenario() -> None:
        one = ids_of(site, "a")[0]
        await site.request("POST", "/admin/adapters/load", {"adapter": "a", "live": False})
        assert site.pool.live == {}
        assert (await site.request("POST", "/v1/completions", {"model": "a"}))[0] == 404
        newest = site.registry.find("a").id
        assert (await site.request("POST", "/v1/completions", {"model": newest}))[1]["body"]["model"] == newest
        assert site.registry.live("a").version is None
        assert one in ids_of(site, "a")

    asyncio.run(scenario())


def test_remove_and_gc_keep_loaded_versions(site: Site) -> None:
    async def scenario() -> None:
        one, two = ids_of(site, "a")
        await site.request("POST", "/admin/adapters/load", {"adapter": one})
        status, answer = await site.request("POST", "/admin/adapters/remove", {"adapter": one})
        assert (status, "knows it" in answer["error"]["message"]) == (409, True)
        assert (await site.request("POST", "/admin/adapters/remove", {"adapter": two}))[1]["adapters"] == [two]
        status, answer = await site.request("POST", "/admin/adapters/gc", {"keep": 1})
        assert (status, len(answer["adapters"])) == (200, 1)
        assert ids_of(site, "a") == [one]
        assert len(ids_of(site, "b")) == 1
        assert (await site.request("POST", "/admin/adapters/gc", {"adapter": "a"}))[0] == 400

    asyncio.run(scenario())


def test_the_listing_survives_versions_that_disappear_meanwhile(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process removes one version after its name was read, and then all versions of a name."""
    read_names = os.listdir
    gone = [ids_of(site, "a")[0].replace("@", "/"), "b"]

    def removed_after(folder: Path) -> list[str]:
        entries = read_names(folder)
        for place in gone:
            shutil.rmtree(site.registry.root / place, ignore_errors=True)
        return entries

    left = ids_of(site, "a")[1]
    monkeypatch.setattr(os, "listdir", removed_after)
    status, listing = asyncio.run(site.request("GET", "/admin/adapters"))
    assert status == 200
    assert [[row["id"] for row in adapter["versions"]] for adapter in listing["adapters"]] == [[left]]


def test_a_write_error_is_reported_and_switches_no_name(site: Site) -> None:
    async def scenario() -> None:
        (site.registry.root / "a" / "live.json").mkdir()  # cannot be replaced by a file
        status, answer = await site.request("POST", "/admin/adapters/load", {"adapter": "a"})
        assert (status, "Is a directory" in answer["error"]["message"]) == (500, True)
        assert site.pool.live == {}

    asyncio.run(scenario())


@pytest.mark.parametrize("action", ACTIONS)
def test_a_server_without_a_registry_refuses_every_change(site: Site, action: str) -> None:
    site.service.pool = None
    assert asyncio.run(site.request("POST", f"/admin/adapters/{action}", {"adapter": "a"}))[0] == 409
    assert asyncio.run(site.request("GET", "/admin/adapters"))[0] == 409


def test_the_users_key_changes_no_adapter(locked: Site) -> None:
    for action in ACTIONS:
        for key, status in (("Bearer user-key-1", 401), ("", 401), ("Bearer admin-key-1", 400)):
            path = f"/admin/adapters/{action}"
            assert asyncio.run(locked.request("POST", path, {"odd": 1}, authorization=key))[0] == status


# Hostile requests. Text is given to JSON as it is; "a0", "a1", "b0", "b1" become the ids of real versions.

REAL_NAMES = ["a", "b", "a0", "a1", "b0", "b1"]
ODD_NAMES = [
    "toy-base", ".", "..", "../a", "a/../b", "/etc/passwd", "a@", "@", "a@@", "a@000000000000", "live.json", ".lock",
    ".servers", "%2e%2e", "ä", "", "a\x00", "a\n", "A" * 64, "a" * 65, "a" * 100, "a" * 101,
]  # fmt: skip
ODD_BODIES = [
    b"", b"{", b"[" * 5000, b'{"adapter":' * 5000, b'{"adapter": "\xff"}', b'{"adapter": "\\ud800"}', b"null", b"1e999",
    b'{"adapter": "a", "adapter": "b"}', b"x" * (MAX_BODY + 1), b'{"keep": 99999999999999999999999999}',
]  # fmt: skip
ODD_PATHS = [
    "/admin/adapters", "/admin/adapters/", "/admin/adapters/load/", "/admin/adapters/add", "/admin/adapters/a",
    "/ADMIN/adapters", "/admin/adapters/../adapters/load", "/admin", "//admin/adapters", "/admin/adapters/load/x",
]  # fmt: skip
NAMES = st.sampled_from(REAL_NAMES) | st.sampled_from(ODD_NAMES)
VALUES = st.recursive(
    NAMES | st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["adapter", "live", "keep", "lora_path", "path", "__proto__", ""]) | st.text(max_size=5)
OBJECTS = st.builds(lambda name, more: {"adapter": name, **more}, NAMES, st.dictionaries(KEYS, VALUES, max_size=1))
PLAIN = st.builds(lambda name: {"adapter": name}, NAMES)
RAW = st.binary(max_size=40) | st.sampled_from(ODD_BODIES)
PATHS = st.sampled_from([f"/admin/adapters/{action}" for action in ACTIONS]) | st.sampled_from(ODD_PATHS)
METHODS = st.just("POST") | st.sampled_from(
    ["POST", "GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "odd"]
)
JSON = "application/json"
KINDS = st.sampled_from([JSON, JSON, JSON, "text/plain", "application/json; charset=utf-8", ""])
HOSTILE = st.tuples(METHODS, PATHS, PLAIN | OBJECTS | VALUES | RAW, KINDS)
SENSIBLE = st.sampled_from(
    [("POST", f"/admin/adapters/{action}", {"adapter": name}, JSON) for action in ACTIONS[:5] for name in REAL_NAMES]
    + [("POST", "/admin/adapters/gc", {"keep": keep}, JSON) for keep in range(2)]
)


def body_of(value: object, site: Site) -> bytes:
    """Return a request body with the ids of real versions in place of "a0", "a1", "b0" and "b1"."""
    if isinstance(value, bytes):
        return value
    text = json.dumps(value)
    for name in "ab":
        for i, real in enumerate(ids_of(site, name)):
            text = text.replace(f'"{name}{i}"', json.dumps(real))
    return text.encode()


def state_of(site: Site) -> tuple[object, ...]:
    """Return everything that a change could change: state of pool and engine, and every file of the registry."""
    root = site.registry.root
    files = {
        str(path.relative_to(root)): path.read_bytes() if path.name == "live.json" else path.stat().st_size
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".servers" not in path.parts and path.name != ".lock"
    }
    return site.pool.live, set(site.pool.loaded), set(site.engine.models), files


async def attack(site: Site, requests: list[tuple[str, str, Any, str]]) -> None:
    """Send requests and check that a refused one changes nothing."""
    for name in "ab":
        assert (await site.request("POST", "/admin/adapters/load", {"adapter": name}))[0] == 200
    for method, path, value, kind in requests:
        await settle(site)
        before = state_of(site)
        status, answer = await site.request(method, path, body_of(value, site), content_type=kind)
        assert status < 500, (method, path, value, status, answer)
        if status >= 300:
            await settle(site)
            assert state_of(site) == before, (method, path, value, status)
        if status >= 400 and method != "HEAD" and status != 405:
            assert answer["error"]["message"], (method, path, value)
    await settle(site)
    assert set(site.pool.live.values()) <= site.engine.models == set(site.pool.loaded)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=st.lists(SENSIBLE | HOSTILE, min_size=4, max_size=20))
def test_a_refused_request_changes_nothing(open_site: OpenSite, requests: list[tuple[str, str, Any, str]]) -> None:
    site = open_site()
    try:
        asyncio.run(attack(site, requests))
    finally:
        site.lease.close()
