"""Whether a machine compiles for vLLM's CPU backend, found by really compiling; and what make checks beforehand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from shutil import which

import pytest

from serve.command import RegistryNeeds, ServeConfig, command_line
from serve.compiler import NOTICE, compiles
from serve.machine import Machine
from tests.conftest import ROOT, BaseModel

WITHOUT = Machine("cpu", (0, 1), 16 << 30, compiles=False)


def script(folder: Path, name: str, text: str) -> Path:
    """An executable that stands for a program of the system."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a Python.h, for programs that only stand for a compiler."""
    folder = tmp_path / "headers"
    folder.mkdir()
    (folder / "Python.h").touch()
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(folder))


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "XDG_CACHE_HOME": str(tmp_path / "cache"), **more}


def test_no_compiler_at_all(tmp_path: Path) -> None:
    assert not compiles(environment(tmp_path, PATH=str(tmp_path)))
    assert not compiles(environment(tmp_path, CXX=str(tmp_path / "absent")))


@pytest.mark.usefixtures("headers")
def test_a_compiler_is_tried_and_the_answer_kept_until_it_changes(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    compiler = script(tmp_path, "c++", f"echo called >> {calls}; exit 1")
    asked = environment(tmp_path, CXX=str(compiler))
    assert not compiles(asked)
    assert not compiles(asked)
    assert calls.read_text() == "called\n"
    script(tmp_path, "c++", f"echo called >> {calls}; : now it works; exit 0")
    assert compiles(asked)
    assert compiles(asked)
    assert calls.read_text() == "called\ncalled\n"
    (tmp_path / "cache/arc-bench/compiler.json").write_text("{torn")
    assert compiles(asked)


@pytest.mark.usefixtures("headers")
def test_a_cache_that_cannot_be_written_is_no_fault(tmp_path: Path) -> None:
    compiler = script(tmp_path, "c++", "exit 0")
    (tmp_path / "cache").write_text("a file, and no folder")
    assert compiles(environment(tmp_path, CXX=str(compiler)))


@pytest.mark.skipif(which("g++") is None, reason="no g++ on this machine")
def test_headers_of_another_python_are_not_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    assert not compiles(environment(tmp_path))
    (tmp_path / "Python.h").write_text("#error broken")
    assert not compiles(environment(tmp_path))
    (tmp_path / "Python.h").write_text("")
    assert compiles(environment(tmp_path))


def test_without_a_compiler_the_server_runs_eagerly_and_says_so(base: BaseModel) -> None:
    config = ServeConfig(model=base.folder or base.name)
    command = command_line(config, base, WITHOUT, RegistryNeeds(), 1, {})
    assert "--enforce-eager" in command.argv
    assert command.env["TORCHDYNAMO_DISABLE"] == "1"
    assert command.notices == (NOTICE,)


@pytest.mark.parametrize("extra", ["--enforce-eager", "--compilation_config={}", "-O0"])
def test_a_user_who_decides_about_compiling_the_model_is_left_alone(base: BaseModel, extra: str) -> None:
    config = ServeConfig(model=base.folder or base.name, extra=(extra,))
    command = command_line(config, base, WITHOUT, RegistryNeeds(), 1, {"TORCH_COMPILE_DISABLE": "0"})
    assert command.argv.count("--enforce-eager") == (extra == "--enforce-eager")
    assert command.env["TORCHDYNAMO_DISABLE"] == "1"  # what vLLM compiles beside the model would end it
    assert "TORCH_COMPILE_DISABLE" not in command.env
    assert command.notices == ()


def test_prerequisites_are_there_or_named_with_their_remedy(tmp_path: Path) -> None:
    """The library is looked for as the system would; without it, and without root's apt, the commands are printed."""
    tool = ROOT / "tools" / "prerequisites.py"
    code = (
        "import runpy, ctypes, os, sys\nsys.argv = ['x']\nos.geteuid = lambda: 1000\n"
        f"{{}}\nrunpy.run_path({str(tool)!r}, run_name='__main__')"
    )
    gone = "ctypes.CDLL = lambda name: (_ for _ in ()).throw(OSError(name))"
    done = subprocess.run([sys.executable, "-c", code.format(gone)], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the system library libnuma.so.1 is missing")
    assert "install" in done.stderr
    assert subprocess.run([sys.executable, tool, "--gpu"]).returncode == 0
    assert done.stdout == ""
