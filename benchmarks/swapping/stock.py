"""Start a plain vLLM without our plugin and middleware, with adapters on its command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from serve.launch.compiler import EAGER_ENV, compiler_fault
from serve.launch.preparation import free_port
from serve.launch.process import Server, stop_server, wait_until_ready


@contextmanager
def stock_vllm(
    model: Path,
    adapters: Mapping[str, Path],
    log: Path,
    options: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Serve ``model`` under its folder's name and each adapter folder under its key, within the context.

    Args:
        options: further vLLM options.
        env: changes of the environment.
    """
    port = free_port("127.0.0.1", None)
    argv = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    argv += ["--served-model-name", model.name, "--host", "127.0.0.1", "--port", str(port)]
    argv += ["--generation-config", "vllm", "--disable-uvicorn-access-log", *options]
    if adapters:
        argv += ["--enable-lora", "--lora-modules", *(f"{name}={folder}" for name, folder in adapters.items())]
    plain = {"VLLM_PLUGINS": "", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", **(env or {})}
    plain |= EAGER_ENV if compiler_fault(os.environ) else {}  # else it dies of the first request for log-probabilities
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv,
            env={**os.environ, **plain},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(f"http://127.0.0.1:{port}", process.pid, log)
    try:
        wait_until_ready(process, server, path="/health")
        yield server
    finally:
        stop_server(process.pid, 0, process)
