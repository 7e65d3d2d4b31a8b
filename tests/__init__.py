"""Tests. They run with a home and caches of their own, which are empty at the start and shared within one run.

What this machine learned before (vLLM keeps what it inspected of an architecture, torch what it compiled) would hide
faults that a new machine has. Set here, before any test module is imported; processes of pytest-xdist inherit it.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

_MARK = "ARC_BENCH_TEST_HOME"
_FOLDERS = {
    "HOME": "",
    "XDG_CACHE_HOME": ".cache",
    "XDG_CONFIG_HOME": ".config",
    "XDG_DATA_HOME": ".local/share",
    "VLLM_CACHE_ROOT": ".cache/vllm",
    "VLLM_CONFIG_ROOT": ".config/vllm",
    "TORCHINDUCTOR_CACHE_DIR": ".cache/torchinductor",
    "TRITON_CACHE_DIR": ".cache/triton",
    "HF_HOME": ".cache/huggingface",
    "MPLCONFIGDIR": ".config/matplotlib",
}

if _MARK not in os.environ:
    _home = Path(tempfile.mkdtemp(prefix="arc-bench-home-"))
    atexit.register(shutil.rmtree, _home, ignore_errors=True)
    os.environ[_MARK] = str(_home)
    for _name, _folder in _FOLDERS.items():
        os.environ[_name] = str(_home / _folder)
    for _name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE", "HF_DATASETS_CACHE"):
        os.environ.pop(_name, None)
