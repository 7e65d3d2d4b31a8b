"""A chat server whose models are adapter versions of a registry, loaded and unloaded by the routes of our server.

Its answers depend on the version and not on the adapter's name, as those of weights do.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler

from harness.core.errors import AdapterError
from harness.prompts.file_tokenizer import FileTokenizer
from serve.registry.base_model import BaseModel
from serve.registry.store import Registry
from tests.support.servers.chat_answers import Body, json_response
from tests.support.servers.chat_server import TINY_BASE, ChatServer, copying_model
from tests.support.servers.language_model import LanguageModel

BASE = "tiny-base"
FIELDS: Body = {"root": str(TINY_BASE), "max_model_len": 4096}


class VersionedModel(LanguageModel):
    """A language model that knows models by what follows the @ of their names."""

    def response(self, body: Body, name: str) -> Body:
        """Return the response to a completion."""
        return {**super().response(_by_version(body), name), "model": body["model"]}

    def scores(self, body: Body) -> Body:
        """Return the log-probabilities of given answers."""
        return super().scores(_by_version(body))


class AdapterServer(ChatServer):
    """A server of the tiny base with the adapters of a registry.

    Attributes:
        most_loaded: the largest number of versions that were loaded at once.
        fail_admin: called with the last part of an admin route; true: the connection is dropped without an answer.
    """

    fail_admin: Callable[[str], bool] = staticmethod(lambda route: False)

    def __init__(self, registry: Path) -> None:
        base = {**FIELDS, "arc_bench": {"kind": "base", "hash": BaseModel.open(str(TINY_BASE)).hash}}
        super().__init__(tokens=True, models={BASE: base}, scores=True, language_model=_make_model)
        self.registry = Registry(registry)
        self.most_loaded = 0

    def add_routes(self, app: web.Application) -> None:
        """Add the routes of administration that ``serve.client.admin`` requests."""
        app.router.add_get("/admin/adapters", self._list)
        app.router.add_get("/health", self._list)
        app.router.add_post("/admin/adapters/load", self._load)
        app.router.add_post("/admin/adapters/unload", self._unload)
        app.middlewares.append(self._drop)

    @web.middleware
    async def _drop(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith("/admin/") and self.fail_admin(request.path.rpartition("/")[2]):
            assert request.transport is not None
            request.transport.close()
        return await handler(request)

    async def _list(self, request: web.Request) -> web.Response:
        rows = [
            {
                "name": name,
                "versions": [
                    {"id": version.id, "state": "loaded" if version.id in self.models else "registered"}
                    for version in self.registry.versions(name)
                ],
            }
            for name in self.registry.names()
        ]
        return json_response({"base": BASE, "swaps": 0, "adapters": rows})

    async def _load(self, request: web.Request) -> web.Response:
        name = (await request.json())["adapter"]
        try:
            version = self.registry.find(name)
        except AdapterError as error:
            return json_response({"error": {"message": str(error)}}, 404)
        manifest = json.loads((version.folder / "manifest.json").read_bytes())
        card = {**FIELDS, "parent": BASE, "arc_bench": {"manifest": manifest}}
        self.models = {**self.models, version.id: card}
        self.most_loaded = max(self.most_loaded, len(self.models) - 1)
        return json_response(_changed("load", version.id))

    async def _unload(self, request: web.Request) -> web.Response:
        name = (await request.json())["adapter"]
        if name not in self.models:
            return json_response({"error": {"message": f"{name}: not loaded"}}, 404)
        self.models = {other: fields for other, fields in self.models.items() if other != name}
        return json_response(_changed("unload", name))


def _changed(action: str, version: str) -> Body:
    """Return the answer to a change, as our server gives it."""
    return {"action": action, "adapters": [version], "live": {}, "seconds": 0.0, "warnings": []}


def _make_model(tokenizer: FileTokenizer) -> LanguageModel:
    plain = copying_model(tokenizer)
    return VersionedModel(tokenizer, plain.right)


def _by_version(body: Body) -> Body:
    return {**body, "model": body["model"].partition("@")[2] or body["model"]}
