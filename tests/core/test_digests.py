"""Digests in manifests and registries never change."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.core.digests import content_hash, model_digest, text_digest, weights_digest
from harness.core.errors import AdapterError


def test_digests_never_change(tmp_path: Path) -> None:
    """Names of adapter versions and the manifests of runs and adapters depend on these values."""
    for name in ("config.json", "adapter_config.json", "adapter_model.safetensors", "b.safetensors"):
        (tmp_path / name).write_text(name)
    assert text_digest("prompt: 1 → 2") == "c26d4788aabd3835"
    assert content_hash(tmp_path)[:16] == "69047f0dba0e5e69"
    assert weights_digest(tmp_path)[:16] == "b9641ebad9143e8f"
    assert weights_digest(tmp_path, {"b.safetensors"})[:16] == "1e6b36ed985f31ee"
    assert model_digest(tmp_path) == "1fbb38f1f0043206"


def test_an_adapter_without_weights_has_no_content_hash(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").touch()
    with pytest.raises(AdapterError, match=r"adapter_model\.safetensors: cannot be read: No such file"):
        content_hash(tmp_path)
