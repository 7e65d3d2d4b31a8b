"""A model that a run asks under its own name while the server knows it under another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.runs.schemas.manifest_schema import ServedModel

_SETTINGS = ("prompt", "encoder", "stop_token_ids", "chat_template_kwargs", "chat_template", "template_date")
"""What an adapter's manifest says about prompts."""


@dataclass(frozen=True)
class ModelAlias:
    """The name of a model in a run and on the server.

    Args:
        name: in the run.
        served_name: on the server.
        settings: where these fields come from instead of the served model: prompt, encoder, and those of its template.
        has_hash: whether the run knows the model by the served one's content hash; else by none.
    """

    name: str
    served_name: str
    settings: ServedModel | None = None
    has_hash: bool = True

    def rename_served(self, models: Sequence[ServedModel]) -> list[ServedModel]:
        """Return a server's models with the served one under the run's name as well, and no other of that name."""
        served = next((model for model in models if model.name == self.served_name), None)
        if served is None:
            return [model for model in models if model.name != self.name]
        update: dict[str, object] = (
            {} if self.settings is None else {field: getattr(self.settings, field) for field in _SETTINGS}
        )
        hash_ = served.hash if self.has_hash else None
        renamed = served.model_copy(update={"name": self.name, "hash": hash_, **update})
        return [*(model for model in models if model.name != self.name), renamed]

    def rename_requested(self, body: Mapping[str, object]) -> dict[str, object]:
        """Return the body of a request with the server's name of the model."""
        return {**body, "model": self.served_name} if body.get("model") == self.name else dict(body)
