"""Servers without vLLM (``tests.support.servers.admin_site``) for the tests of this folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from serve.keys import Keys
from serve.registry.base_model import BaseModel
from serve.registry.store import Registry
from tests.support.models.tiny_adapters import make_adapter, make_base
from tests.support.servers.admin_site import NO_KEYS, Site

OpenSite = Callable[..., Site]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model and a registry with two versions each of the adapters ``a`` and ``b``; copied, never changed."""
    root = tmp_path_factory.mktemp("template")
    base = BaseModel.open(make_base(root / "toy-base"))
    for index, name in enumerate("ab"):
        for i in range(2):
            Registry(root / "adapters").add(name, make_adapter(root / f"{name}{i}", seed=2 * index + i), base)
    return root


@pytest.fixture
def open_site(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSite]:
    """Return a function that opens a server with a copy of the template's registry and the given keys."""
    with ExitStack() as stack:

        def open_one(keys: Keys = NO_KEYS) -> Site:
            root = tmp_path_factory.mktemp("site") / "adapters"
            shutil.copytree(template / "adapters", root)
            site = Site(BaseModel.open(template / "toy-base"), Registry(root), keys)
            stack.callback(site.lease.close)
            return site

        yield open_one


@pytest.fixture
def site(open_site: OpenSite) -> Site:
    """A server without keys."""
    return open_site()


@pytest.fixture
def locked(open_site: OpenSite) -> Site:
    """A server with a user's and an administrator's key."""
    return open_site(Keys("user-key-1", "admin-key-1"))
