"""Whether PyTorch can compile C++ on this machine, tried once: vLLM's CPU backend compiles kernels while it runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from harness.filecache import cache_dir, written_whole

_SECONDS = 60.0
_SOURCE = """\
#include <Python.h>
#include <omp.h>
#include <cmath>
#include <vector>
extern "C" double kernel(int n) {
    std::vector<double> x(n, 2.0);
    #pragma omp parallel for
    for (int i = 0; i < n; i++) x[i] = std::sqrt(x[i]);
    return x.empty() ? Py_MATH_PI : x[0];
}
"""
"""Includes what every kernel of PyTorch's inductor includes."""


def compiler_fault() -> str | None:
    """Return why PyTorch cannot compile C++ here, or None where it can.

    A small file is compiled and loaded. Success is remembered in the cache folder until the compiler, Python or its
    headers change; a failure is tried again each time, since installing a package may have mended it.
    """
    name = os.environ.get("CXX", "g++")  # as torch._inductor.config.cpp.cxx
    compiler = shutil.which(name)
    if compiler is None:
        return f"no C++ compiler ({name} is not there)"
    headers = Path(sysconfig.get_path("include", scheme="posix_prefix"))  # as torch._inductor.cpp_builder
    remembered = cache_dir() / "compiler.json"
    state = json.dumps([_stamp(Path(compiler)), _stamp(headers / "Python.h"), sys.version, tempfile.gettempdir()])
    try:
        if remembered.read_text(encoding="utf-8") == state:
            return None
    except (OSError, UnicodeDecodeError):
        pass  # not tried yet, or damaged
    fault = _try(compiler, headers)
    if fault is None:
        try:
            with written_whole(remembered) as file:
                file.write(state.encode())
        except OSError:
            pass  # then it is tried again the next time
    return fault


def _stamp(path: Path) -> list[str | int]:
    """Path, size and modification time of a file; the path alone where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return [str(path)]
    return [str(path.resolve()), stat.st_size, stat.st_mtime_ns]


def _try(compiler: str, headers: Path) -> str | None:
    """Compile and load the file; return what went wrong."""
    try:
        with tempfile.TemporaryDirectory(prefix="arc-bench-") as folder:
            source, library = Path(folder, "kernel.cpp"), Path(folder, "kernel.so")
            source.write_text(_SOURCE)
            options = ["-shared", "-fPIC", "-std=c++20", "-fopenmp", f"-I{headers}", "-o", str(library)]
            _run([compiler, str(source), *options])
            _run([sys.executable, "-c", "import ctypes, sys; ctypes.CDLL(sys.argv[1])", str(library)])
    except subprocess.CalledProcessError as error:
        if "Python.h" in error.stderr:
            version = ".".join(map(str, sys.version_info[:2]))
            return f"no Python.h of Python {version} in {headers}"
        lines = error.stderr.strip().splitlines() or [f"status {error.returncode}"]
        return f"{compiler} fails: {next((line for line in lines if 'error' in line.lower()), lines[-1])[:300]}"
    except subprocess.TimeoutExpired:
        return f"{compiler} did not end in {_SECONDS:g} s"
    except OSError as error:
        return f"{compiler} fails: {error}"
    return None


def _run(command: list[str]) -> None:
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=True, timeout=_SECONDS)
