"""Changing adapters on several servers: all load a version before any switches, and a refusal switches none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness.core.errors import AdapterError, ServerError
from serve.client import admin
from serve.client.many_servers import change_all_servers
from serve.launch.preparation import free_port
from serve.registry.base_model import BaseModel
from serve.registry.store import Registry
from tests.support.models.tiny_adapters import make_adapter, make_base
from tests.support.servers.admin_site import Site


class Fleet:
    """Two servers of one base, whose registries hold the versions ``ids`` of the adapter ``a``."""

    def __init__(self, root: Path, stack: ExitStack, shared: bool) -> None:
        base = BaseModel.open(make_base(root / "toy-base"))
        sources = [make_adapter(root / f"a{i}", seed=i) for i in range(3)]
        registries = [Registry(root / name) for name in ("one", "one" if shared else "two")]
        for registry in registries:
            self.ids = [registry.add("a", source, base).id for source in sources]
        self.sites = [Site(base, registry) for registry in registries]
        for site in self.sites:
            stack.callback(site.lease.close)
        self.urls = [stack.enter_context(site.over_http()) for site in self.sites]

    def live(self) -> list[str | None]:
        """Return the live version of ``a`` on each server."""
        return [site.pool.live.get("a") for site in self.sites]

    def loaded(self) -> list[set[str]]:
        """Return what each server's engine has loaded, without retiring versions."""
        return [{i for i, entry in site.pool.loaded.items() if not entry.retiring} for site in self.sites]


@pytest.fixture(params=["own registries", "one registry"])
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    with ExitStack() as stack:
        yield Fleet(tmp_path, stack, request.param == "one registry")


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[Fleet]:
    """Two servers with a registry each."""
    with ExitStack() as stack:
        yield Fleet(tmp_path, stack, shared=False)


def test_every_change_reaches_all_servers(fleet: Fleet) -> None:
    one, two, three = fleet.ids
    answers = change_all_servers("promote", one, fleet.urls)
    assert [(url, answer["live"]) for url, answer in answers] == [(url, {"a": one}) for url in fleet.urls]
    change_all_servers("load", two, fleet.urls)
    assert fleet.live() == [one, one]
    assert fleet.loaded() == [{one, two}] * 2
    change_all_servers("promote", two, fleet.urls)
    assert fleet.live() == [two, two]
    change_all_servers("load", "a", fleet.urls)
    newest = fleet.sites[0].registry.find("a").id
    assert fleet.live() == [newest] * 2
    change_all_servers("promote", three if newest != three else two, fleet.urls)
    # On one registry, the first server's rollback must not turn the second's into a step forward again.
    change_all_servers("rollback", "a", fleet.urls)
    assert fleet.live() == [newest] * 2
    change_all_servers("unload", "a", fleet.urls)
    assert fleet.live() == [None, None]
    with pytest.raises(AdapterError, match="not loaded"):
        change_all_servers("unload", "a", fleet.urls)


@pytest.mark.parametrize("action", ["promote", "load", "rollback"])
@pytest.mark.parametrize("refusing", [0, 1])
def test_if_one_server_refuses_no_server_switches(apart: Fleet, action: str, refusing: int) -> None:
    one, two, three = apart.ids
    for version in (two, one):  # so that a rollback means two
        change_all_servers("promote", version, apart.urls)
    while any(len(models) > 1 for models in apart.loaded()):
        pass
    target = {"promote": three, "load": "a", "rollback": "a"}[action]
    meant = {"promote": three, "load": apart.sites[0].registry.find("a").id, "rollback": two}[action]
    apart.sites[refusing].engine.refuse = meant
    with pytest.raises(AdapterError, match=r"the engine says no; no name was moved on any server"):
        change_all_servers(action, target, apart.urls)
    assert apart.live() == [one, one]
    assert apart.loaded() == [{one}, {one}]


def test_a_first_version_goes_live_on_no_server_when_one_refuses(apart: Fleet) -> None:
    apart.sites[1].engine.refuse = apart.ids[0]
    with pytest.raises(AdapterError, match="no name was moved"):
        change_all_servers("load", apart.ids[0], apart.urls)
    assert apart.live() == [None, None]


def test_servers_that_disagree_or_are_gone_change_nothing(apart: Fleet) -> None:
    one, two, _ = apart.ids
    change_all_servers("promote", one, apart.urls)
    admin.promote(apart.urls[0], two)
    with pytest.raises(AdapterError, match=r"no earlier version to go back to; nothing was changed"):
        change_all_servers("rollback", "a", apart.urls)
    apart.sites[1].registry.remove(two)
    with pytest.raises(AdapterError, match=r"not in its registry, which holds a@.*; nothing was changed"):
        change_all_servers("promote", two, apart.urls)
    dead = f"http://127.0.0.1:{free_port('127.0.0.1', None)}"
    with pytest.raises(ServerError, match="is it running"):
        change_all_servers("promote", one, [apart.urls[0], dead])
    assert apart.live() == [two, one]
    for action, adapter in (("promote", "a"), ("rollback", one)):
        with pytest.raises(AdapterError, match=action):
            change_all_servers(action, adapter, apart.urls)
    with pytest.raises(AdapterError, match="names no adapter"):
        change_all_servers("load", "../a", apart.urls)


def test_a_failure_after_another_server_has_switched_is_reported(apart: Fleet) -> None:
    """Both have loaded it, but the second cannot write its live.json; the message names the one that switched."""
    (apart.sites[1].registry.root / "a" / "live.json").mkdir()
    with pytest.raises(ServerError) as caught:
        change_all_servers("promote", apart.ids[0], apart.urls)
    assert f"moved on: {apart.urls[0]}" in str(caught.value)


def test_a_server_under_two_spellings_is_changed_once(apart: Fleet) -> None:
    one, _ = apart.urls
    answers = change_all_servers("load", apart.ids[0], [f"{one}/", one, f"{one}/v1"])
    assert [url for url, _ in answers] == [one]
    assert apart.loaded() == [{apart.ids[0]}, set()]
