"""Detecting whether this machine can compile for vLLM's CPU backend, by compiling."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from shutil import which

import orjson.orjson
import pytest

from serve.launch.command import command_line
from serve.launch.compiler import NOTICE, compiler_fault, triton_fault
from serve.launch.machine import Machine
from serve.launch.serve_config import RegistryNeeds, ServeConfig
from serve.registry.base_model import BaseModel

LIBRARY = orjson.orjson.__file__
"""A library that every Python can load (some builds have their own modules built in)."""
WITHOUT = Machine("cpu", (0, 1), 16 << 30, compiles=False)


def script(folder: Path, name: str, text: str) -> Path:
    """Write an executable shell script that stands in for a program."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a Python.h, for scripts that stand in for a compiler."""
    folder = tmp_path / "headers"
    folder.mkdir()
    (folder / "Python.h").touch()
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(folder))


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "XDG_CACHE_HOME": str(tmp_path / "cache"), **more}


def works(folder: Path, name: str, count: Path) -> Path:
    """Write a stand-in for a working compiler, whose output can be loaded."""
    return script(folder, name, f'echo called >> {count}; for last; do :; done; cp {LIBRARY} "$last"')


def test_no_compiler_at_all(tmp_path: Path) -> None:
    assert "no program 'g++'" in str(compiler_fault(environment(tmp_path, PATH=str(tmp_path))))
    assert "(CXX)" in str(compiler_fault(environment(tmp_path, CXX=str(tmp_path / "absent"))))


@pytest.mark.usefixtures("headers")
def test_cxx_with_arguments_is_no_compiler(tmp_path: Path) -> None:
    compiler = works(tmp_path, "c++", tmp_path / "calls")
    assert compiler_fault(environment(tmp_path, CXX=str(compiler))) is None
    assert compiler_fault(environment(tmp_path, CXX=f"{compiler} -O2")) is not None


@pytest.mark.usefixtures("headers")
def test_a_success_is_cached_and_a_failure_is_not(tmp_path: Path) -> None:
    """A failure can end without a change of the compiler: when disk space is freed or a package is installed."""
    calls = tmp_path / "calls"
    compiler = script(tmp_path, "c++", f"echo called >> {calls}; echo 'x.cpp:1:1: error: odd' >&2; exit 1")
    variables = environment(tmp_path, CXX=str(compiler))
    for _ in range(2):
        assert str(compiler_fault(variables)).endswith("x.cpp:1:1: error: odd")
    works(tmp_path, "c++", calls)
    for _ in range(2):
        assert compiler_fault(variables) is None
    assert calls.read_text() == "called\n" * 3
    (tmp_path / "cache/arc-bench/compiler.json").write_text("{torn")
    assert compiler_fault(variables) is None
    assert compiler_fault({**variables, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "elsewhere")}) is None
    assert calls.read_text() == "called\n" * 5
    (tmp_path / "headers/Python.h").unlink()
    assert "Python.h is not there" in str(compiler_fault(variables))


@pytest.mark.usefixtures("headers")
def test_the_compiled_library_must_load(tmp_path: Path) -> None:
    """On a disk mounted noexec it does not; here the compiler writes something that is no library."""
    compiler = script(tmp_path, "c++", 'for last; do :; done; echo text > "$last"')
    assert compiler_fault(environment(tmp_path, CXX=str(compiler))) is not None


@pytest.mark.usefixtures("headers")
def test_an_unwritable_folder_is_a_fault(tmp_path: Path) -> None:
    compiler = works(tmp_path, "c++", tmp_path / "calls")
    (tmp_path / "file").touch()
    variables = environment(tmp_path, CXX=str(compiler), TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "file/below"))
    assert str(compiler_fault(variables)).startswith(f"nothing can be compiled: {tmp_path}/file")


@pytest.mark.usefixtures("headers")
def test_triton_takes_cc_else_gcc_else_clang(tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    variables = environment(tmp_path, PATH=f"{folder}")
    assert "neither gcc nor clang" in str(triton_fault(variables))
    copies = f'for last; do :; done; /bin/cp {LIBRARY} "$last"'
    script(folder, "clang", copies)
    assert triton_fault(variables) is None
    script(folder, "gcc", "exit 1")
    assert str(triton_fault(variables)).startswith(f"{folder}/gcc does not compile")
    assert triton_fault({**variables, "CC": str(script(folder, "mine", copies))}) is None
    assert "absent" in str(triton_fault({**variables, "CC": str(folder / "absent")}))


@pytest.mark.usefixtures("headers")
def test_a_cache_that_cannot_be_written_is_no_fault(tmp_path: Path) -> None:
    compiler = works(tmp_path, "c++", tmp_path / "calls")
    (tmp_path / "cache").write_text("a file, and no folder")
    assert compiler_fault(environment(tmp_path, CXX=str(compiler))) is None


@pytest.mark.skipif(which("g++") is None, reason="no g++ on this machine")
def test_headers_of_another_python_are_not_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    assert compiler_fault(environment(tmp_path)) is not None
    (tmp_path / "Python.h").write_text("#error broken")
    assert compiler_fault(environment(tmp_path)) is not None
    (tmp_path / "Python.h").write_text("")
    assert compiler_fault(environment(tmp_path)) is None


@pytest.mark.slow
@pytest.mark.skipif(which("g++") is None, reason="no g++ on this machine")
def test_the_check_agrees_with_torch(tmp_path: Path) -> None:
    """Compare with torch itself, for g++ and for a compiler that fails at everything except its version."""
    broken = script(tmp_path, "broken", 'case "$1" in --version|-v) exec g++ "$1";; esac; exit 1')
    code = "import torch; print(torch.compile(lambda x: x.sin() + 1)(torch.zeros(64)).sum().item())"
    for name in ("g++", str(broken), str(tmp_path / "absent"), "g++ -O2"):
        more = {"CXX": name, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / Path(name).name)}
        done = subprocess.run([sys.executable, "-c", code], env=os.environ | more, capture_output=True, text=True)
        assert (done.returncode == 0) == (compiler_fault(environment(tmp_path, **more)) is None), (
            name,
            done.stderr[-500:],
        )


def test_without_a_compiler_the_server_runs_eagerly_and_says_so(base: BaseModel) -> None:
    config = ServeConfig(model=base.folder or base.name)
    command = command_line(config, base, WITHOUT, RegistryNeeds(), 1, {})
    assert "--enforce-eager" in command.argv
    assert command.env["TORCHDYNAMO_DISABLE"] == "1"
    assert command.notices == (NOTICE,)


@pytest.mark.parametrize(
    "extra",
    ["--enforce-eager", "--compilation_config={}", "-O0", "-cc.mode=3", "--compilation-c.mode=3", "--no-enforce-eager"],
)
def test_the_users_compile_options_are_not_changed(base: BaseModel, extra: str) -> None:
    config = ServeConfig(model=base.folder or base.name, extra=(extra,))
    command = command_line(config, base, WITHOUT, RegistryNeeds(), 1, {"TORCH_COMPILE_DISABLE": "0"})
    assert command.argv.count("--enforce-eager") == (extra == "--enforce-eager")
    assert command.env["TORCHDYNAMO_DISABLE"] == "1"  # what vLLM compiles beside the model would end it
    assert "TORCH_COMPILE_DISABLE" not in command.env
    assert command.notices == ()
