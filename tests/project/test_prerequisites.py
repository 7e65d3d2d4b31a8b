"""The checks of ``make`` before downloads: each missing requirement is reported with the command to install it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

TOOL = ROOT / "tools" / "prerequisites.py"
RUN = f"import ctypes, importlib.util, os, runpy, sys\n{{}}\nrunpy.run_path({str(TOOL)!r}, run_name='__main__')"
NO_LIBRARY = """
def CDLL(name):
    if not os.path.exists("libnuma"):
        raise OSError(name)
ctypes.CDLL = CDLL
"""
NO_VENV = "importlib.util.find_spec = lambda name: None"
ROOT_USER, NO_ROOT = "os.geteuid = lambda: 0", "os.geteuid = lambda: 1000"


def program(folder: Path, name: str, text: str = "") -> None:
    """Write an executable that replaces a program of the system."""
    (folder / "bin").mkdir(exist_ok=True)
    path = folder / "bin" / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def check(folder: Path, *circumstances: str, gpu: bool = False) -> subprocess.CompletedProcess[str]:
    """Run the checks in ``folder`` with only the programs of ``folder/bin``.

    Args:
        circumstances: lines of Python that make requirements disappear. Without them nothing is missing.
    """
    (folder / "libnuma").touch()
    lines = [NO_LIBRARY, NO_ROOT, f"sys.argv = {['x', *['--gpu'] * gpu]}", *circumstances]
    return subprocess.run(
        [sys.executable, "-c", RUN.format("\n".join(lines))],
        cwd=folder,
        env={"PATH": str(folder / "bin")},
        capture_output=True,
        text=True,
        check=False,
    )


LIBRARY_GONE = "os.unlink('libnuma')"


def test_complete_systems_get_no_message(tmp_path: Path) -> None:
    program(tmp_path, "lscpu")
    program(tmp_path, "gcc")
    for gpu in (False, True):
        done = check(tmp_path, gpu=gpu)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("manager", "command"),
    [
        ("apt-get", "apt-get install libnuma1 util-linux"),
        ("dnf", "dnf install numactl-libs util-linux"),
        ("pacman", "pacman -S numactl util-linux"),
    ],
)
def test_the_command_is_for_the_systems_package_manager(tmp_path: Path, manager: str, command: str) -> None:
    program(tmp_path, manager, "exit 7")
    done = check(tmp_path, LIBRARY_GONE)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: missing on this system: libnuma.so.1")
    assert done.stderr.endswith(f"run make again: {command}\n")


def test_without_a_known_package_manager_all_commands_are_shown(tmp_path: Path) -> None:
    done = check(tmp_path, LIBRARY_GONE, NO_VENV)
    assert all(word in done.stderr for word in ("-venv libnuma1", "dnf install python3 ", "pacman -S python "))


def test_venv_support_is_not_required_if_a_venv_exists(tmp_path: Path) -> None:
    program(tmp_path, "lscpu")
    assert "venv with ensurepip" in check(tmp_path, NO_VENV).stderr
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").touch()
    assert check(tmp_path, NO_VENV).returncode == 0


def test_a_gpu_needs_a_compiler_with_the_headers_of_python_and_no_libnuma(tmp_path: Path) -> None:
    program(tmp_path, "dnf")
    done = check(tmp_path, LIBRARY_GONE, gpu=True)
    assert done.stderr.endswith("run make again: dnf install gcc python3-devel\n")
    program(tmp_path, "gcc", "exit 1")
    assert check(tmp_path, gpu=True).returncode == 1
    assert check(tmp_path, f"os.environ['CC'] = {os.devnull!r}", gpu=True).returncode == 1
    program(tmp_path, "cc-of-mine")
    assert check(tmp_path, f"os.environ['CC'] = {str(tmp_path / 'bin/cc-of-mine')!r}", gpu=True).returncode == 0


def test_root_with_apt_gets_the_small_packages_installed(tmp_path: Path) -> None:
    program(tmp_path, "lscpu")
    program(tmp_path, "apt-get", f'echo "$@" >> {tmp_path}/calls; [ $1 = update ] || echo > {tmp_path}/libnuma')
    done = check(tmp_path, LIBRARY_GONE, ROOT_USER)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "missing system packages are installed: apt-get install libnuma1\n"
    update, install = (tmp_path / "calls").read_text().splitlines()
    assert update.startswith("update")
    assert install.endswith(" libnuma1")


def test_if_apt_fails_the_command_is_shown(tmp_path: Path) -> None:
    program(tmp_path, "lscpu")
    program(tmp_path, "apt-get", "echo no network >&2; exit 100")
    done = check(tmp_path, LIBRARY_GONE, ROOT_USER)
    assert done.returncode == 1
    assert done.stderr.endswith("run make again: apt-get install libnuma1\n")
    assert "no network" in done.stderr


def test_without_root_nothing_is_installed(tmp_path: Path) -> None:
    program(tmp_path, "lscpu")
    program(tmp_path, "apt-get", f'echo "$@" >> {tmp_path}/calls')
    assert check(tmp_path, LIBRARY_GONE).returncode == 1
    assert not (tmp_path / "calls").exists()
