"""TRL's classes. Importing TRL silences every vLLM that this process starts later, which is undone here."""

from __future__ import annotations

import os

_LEVEL = "VLLM_LOGGING_LEVEL"
_before = os.environ.get(_LEVEL)

from trl import SFTConfig, SFTTrainer  # noqa: E402  # it sets the level to ERROR for all child processes

if _before is None:
    os.environ.pop(_LEVEL, None)

__all__ = ["SFTConfig", "SFTTrainer"]
