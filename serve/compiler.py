"""Whether this machine compiles what torch generates: a C++ compiler and the headers of Python."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path
from shutil import which

_SOURCE = '#include <Python.h>\n#include <vector>\nextern "C" int probe() { return (int)std::vector<int>(3).size(); }\n'
_SECONDS = 60.0
_CACHE = "arc-bench/compiler.json"
EAGER: dict[str, str | None] = {"--enforce-eager": None}
"""vLLM's option that serves without compiling the model."""
EAGER_ENV = {"TORCHDYNAMO_DISABLE": "1", "TORCH_COMPILE_DISABLE": "1"}
"""vLLM compiles some functions (log-probabilities, LoRA's embeddings) even with that option; torch then leaves them."""
NOTICE = (
    "no C++ compiler with the headers of Python was found: the server runs without compiling (vLLM's eager mode), "
    "which is slower; for compiled mode install them and start again "
    "(Debian, Ubuntu: apt-get install g++ python3-dev; Fedora: dnf install gcc-c++ python3-devel; Arch: pacman -S gcc)"
)


def compiles(environ: Mapping[str, str]) -> bool:
    """Return whether a C++ file that includes ``Python.h`` compiles, by compiling one.

    The compiler is torch's choice: ``CXX``, else g++ (clang++ on macOS). The answer is kept in XDG_CACHE_HOME for as
    long as the compiler, the headers and Python stay the same.
    """
    command = shlex.split(environ.get("CXX", "")) or ["clang++" if sys.platform == "darwin" else "g++"]
    program = which(command[0], path=environ.get("PATH"))
    include = Path(sysconfig.get_path("include"))
    if program is None or not (include / "Python.h").is_file():
        return False
    key = [*command, *_identity(Path(program)), *_identity(include / "Python.h"), sys.version]
    cache = Path(environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME", "/")) / ".cache") / _CACHE
    try:
        known = json.loads(cache.read_text(encoding="utf-8"))
        if isinstance(known, dict) and known.get("key") == key:
            return known.get("compiles") is True
    except (OSError, ValueError):
        pass  # never asked here, or a damaged file: asked again
    answer = _compile([program, *command[1:]], include)
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.write_text(json.dumps({"key": key, "compiles": answer}), encoding="utf-8")
    except OSError:
        pass  # it is asked again at the next start
    return answer


def _identity(path: Path) -> list[str]:
    return [str(path.resolve()), str(path.stat().st_mtime_ns), str(path.stat().st_size)]


def _compile(command: list[str], include: Path) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "probe.cpp"
        source.write_text(_SOURCE, encoding="utf-8")
        words = [
            "-shared",
            "-fPIC",
            "-O1",
            "-fopenmp",
            f"-I{include}",
            str(source),
            "-o",
            str(source.with_suffix(".so")),
        ]
        try:
            done = subprocess.run([*command, *words], capture_output=True, timeout=_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0


def decides_about_compiling(extra: tuple[str, ...]) -> bool:
    """Return whether options that the user passes on to vLLM say how the model is to be compiled."""
    names = {word.split("=")[0].replace("_", "-") for word in extra}
    options = {"--enforce-eager", "--no-enforce-eager", "--compilation-config", "-cc"}
    return bool(names & options) or any(word.startswith("-O") for word in extra)


def compiles_here() -> bool:
    """Return ``compiles`` in this process's environment."""
    return compiles(os.environ)
