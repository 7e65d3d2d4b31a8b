"""Whether this machine compiles what torch generates: a C++ compiler and the headers of Python."""

from __future__ import annotations

import json
import os
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
EAGER: dict[str, str | None] = {"--enforce-eager": None}
"""vLLM's option that serves without compiling the model."""
EAGER_ENV = {"TORCHDYNAMO_DISABLE": "1", "TORCH_COMPILE_DISABLE": "1"}
"""vLLM compiles some functions (log-probabilities, LoRA's embeddings) even with that option; torch then leaves them."""
NOTICE = (
    "no C++ compiler with the headers of Python was found: the server runs without compiling (vLLM's eager mode), "
    "which costs nothing with adapters and a tenth of the speed without; for compiled mode install them "
    "(Debian, Ubuntu: apt-get install g++ python3-dev; Fedora: dnf install gcc-c++ python3-devel; Arch: pacman -S gcc)"
)


def compiler_fault(environ: Mapping[str, str]) -> str | None:
    """Return why torch cannot compile here, or None where a file with what torch's code includes compiles and loads.

    The compiler is torch's choice: ``CXX`` as one word, else g++ (clang++ on macOS). Success is kept in XDG_CACHE_HOME
    for as long as the compiler, the headers, Python and the folder for compiled code stay the same; a failure is not
    kept, since a package, or room on a disk, may mend it.
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
        pass  # never tried here, or a damaged file
    fault = _try([program, "-std=c++20", "-fopenmp"], headers, Path(target), "probe.cpp", _SOURCE)
    if fault is None:
        try:
            with atomic_writer(cache, durable=False) as file:
                file.write(json.dumps(key).encode())
        except OSError:
            pass  # it is tried again at the next start
    return fault


def _identity(path: Path) -> list[str]:
    stat = path.stat()
    return [str(path.resolve()), str(stat.st_mtime_ns), str(stat.st_size)]


def triton_fault(environ: Mapping[str, str]) -> str | None:
    """Return why Triton cannot compile here, or None: vLLM's CUDA build needs it for the driver and its kernels.

    The compiler is Triton's choice: ``CC``, else gcc, else clang.
    """
    path = environ.get("PATH")
    program = environ.get("CC") or which("gcc", path=path) or which("clang", path=path)
    if program is None:
        return "no C compiler: there is neither gcc nor clang"
    try:
        target = Path(tempfile.gettempdir())
    except OSError as error:
        return f"nothing can be compiled: {error.strerror}"
    return _try([program], Path(sysconfig.get_path("include")), target, "probe.c", "#include <Python.h>\n")


def _try(compiler: list[str], headers: Path, target: Path, name: str, text: str) -> str | None:
    """Compile and load a file below ``target``; return what went wrong."""
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="arc-bench-", dir=target) as folder:
            source, library = Path(folder, name), str(Path(folder, "probe.so"))
            source.write_text(text, encoding="utf-8")
            _run([*compiler, "-shared", "-fPIC", f"-I{headers}", str(source), "-o", library])
            _run([sys.executable, "-I", "-c", "import ctypes, sys; ctypes.CDLL(sys.argv[1])", library])
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or [f"status {error.returncode}"]
        said = next((line for line in lines if "error: " in line), lines[-1])
        return f"{compiler[0]} does not compile what is needed: {said[:300]}"
    except subprocess.TimeoutExpired:
        return f"{compiler[0]} did not end in {_SECONDS:g} s"
    except OSError as error:
        return f"nothing can be compiled: {error.filename or target}: {error.strerror or error}"
    return None


def _run(command: list[str]) -> None:
    nothing = subprocess.DEVNULL
    subprocess.run(command, check=True, stdin=nothing, capture_output=True, errors="replace", timeout=_SECONDS)


def compiles(environ: Mapping[str, str]) -> bool:
    """Return whether there is no ``compiler_fault``."""
    return compiler_fault(environ) is None


def decides_about_compiling(extra: tuple[str, ...]) -> bool:
    """Return whether options that the user passes on to vLLM say how the model is to be compiled."""
    options = ("--enforce-eager", "--no-enforce-eager", "--compilation-config", "--optimization-level")
    return any(has_option(extra, option) for option in options) or any(w.startswith(("-O", "-cc")) for w in extra)


def compiles_here() -> bool:
    """Return ``compiles`` in this process's environment."""
    return compiles(os.environ)
