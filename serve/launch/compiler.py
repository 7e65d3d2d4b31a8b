"""Detect whether this machine can compile the code that torch and Triton generate."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path
from shutil import which

from harness.core.files import atomic_writer
from serve.launch.extra_options import has_option

_SOURCE = """\
#include <Python.h>
#include <omp.h>
#include <vector>
extern "C" int probe() { return (int)std::vector<int>(omp_get_max_threads()).size(); }
"""
_SECONDS = 60.0
_CACHE = "arc-bench/compiler.json"
"""File below the user's cache folder that records a successful check."""
EAGER: dict[str, str | None] = {"--enforce-eager": None}
"""The vLLM option that serves without compiling the model."""
EAGER_ENV = {"TORCHDYNAMO_DISABLE": "1", "TORCH_COMPILE_DISABLE": "1"}
"""Variables with which torch compiles nothing. vLLM compiles some functions even with --enforce-eager."""
NOTICE = (
    "no C++ compiler with the headers of Python was found: the server runs without compiling (vLLM's eager mode), "
    "which costs nothing with adapters and a tenth of the speed without; for compiled mode install them "
    "(Debian, Ubuntu: apt-get install g++ python3-dev; Fedora: dnf install gcc-c++ python3-devel; Arch: pacman -S gcc)"
)


def compiler_fault(environ: Mapping[str, str]) -> str | None:
    """Return why torch cannot compile here, or None if a file with the same includes compiles and loads.

    The compiler is the one that torch uses: ``CXX`` as one word, else g++ (clang++ on macOS). A success is cached in
    XDG_CACHE_HOME until the compiler, the headers, Python or the folder for compiled code changes. A failure is not
    cached, since installing a package or freeing disk space may fix it.
    """
    name = environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    program = which(name, path=environ.get("PATH"))
    if program is None:
        return f"no C++ compiler: there is no program {name!r}" + (" (CXX)" if "CXX" in environ else "")
    headers = Path(sysconfig.get_path("include"))
    if not (headers / "Python.h").is_file():
        return f"no headers of Python {sys.version_info[0]}.{sys.version_info[1]}: {headers}/Python.h is not there"
    try:
        target = environ.get("TORCHINDUCTOR_CACHE_DIR") or tempfile.gettempdir()  # as torch
    except OSError as error:
        return f"nothing can be compiled: {error.strerror}"
    key = [*_identity(Path(program)), *_identity(headers / "Python.h"), sys.version, target]
    cache = Path(environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME", "/")) / ".cache") / _CACHE
    try:
        if json.loads(cache.read_text(encoding="utf-8")) == key:
            return None
    except (OSError, ValueError):
        pass  # not checked yet, or the cache is damaged
    fault = _compile_and_load([program, "-std=c++20", "-fopenmp"], headers, Path(target), "probe.cpp", _SOURCE)
    if fault is None:
        try:
            with atomic_writer(cache, durable=False) as file:
                file.write(json.dumps(key).encode())
        except OSError:
            pass  # checked again at the next start
    return fault


def _identity(path: Path) -> list[str]:
    """Return what changes if a file is replaced: its resolved path, modification time (ns) and size."""
    stat = path.stat()
    return [str(path.resolve()), str(stat.st_mtime_ns), str(stat.st_size)]


def triton_fault(environ: Mapping[str, str]) -> str | None:
    """Return why Triton cannot compile here, or None. vLLM's CUDA build needs it for the driver and its kernels.

    The compiler is the one that Triton uses: ``CC``, else gcc, else clang.
    """
    path = environ.get("PATH")
    program = environ.get("CC") or which("gcc", path=path) or which("clang", path=path)
    if program is None:
        return "no C compiler: there is neither gcc nor clang"
    try:
        target = Path(tempfile.gettempdir())
    except OSError as error:
        return f"nothing can be compiled: {error.strerror}"
    return _compile_and_load([program], Path(sysconfig.get_path("include")), target, "probe.c", "#include <Python.h>\n")


def _compile_and_load(compiler: list[str], headers: Path, target: Path, name: str, text: str) -> str | None:
    """Compile a source text below ``target`` and load the library; return what failed, or None."""
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="arc-bench-", dir=target) as folder:
            source, library = Path(folder, name), str(Path(folder, "probe.so"))
            source.write_text(text, encoding="utf-8")
            _run([*compiler, "-shared", "-fPIC", f"-I{headers}", str(source), "-o", library])
            _run([sys.executable, "-I", "-c", "import ctypes, sys; ctypes.CDLL(sys.argv[1])", library])
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or [f"status {error.returncode}"]
        reason = next((line for line in lines if "error: " in line), lines[-1])
        return f"{compiler[0]} does not compile what is needed: {reason[:300]}"
    except subprocess.TimeoutExpired:
        return f"{compiler[0]} did not end in {_SECONDS:g} s"
    except OSError as error:
        return f"nothing can be compiled: {error.filename or target}: {error.strerror or error}"
    return None


def _run(command: list[str]) -> None:
    """Run a command, raising ``subprocess.CalledProcessError`` if it fails."""
    no_input = subprocess.DEVNULL
    subprocess.run(command, check=True, stdin=no_input, capture_output=True, errors="replace", timeout=_SECONDS)


def decides_about_compiling(extra: tuple[str, ...]) -> bool:
    """Return whether the options passed on to vLLM choose how the model is compiled."""
    options = ("--enforce-eager", "--no-enforce-eager", "--compilation-config", "--optimization-level")
    return any(has_option(extra, option) for option in options) or any(w.startswith(("-O", "-cc")) for w in extra)
