"""A vLLM server started by vLLM's own command, without our plugins and middleware."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from serve.launch.compiler import EAGER_ENV, compiler_fault
from tests.support.commands import wait_until
from tests.support.vllm.dtypes import vllm_words


class PlainVllm:
    """vLLM with one model in float32 on a free port, which can be killed and restarted."""

    def __init__(self, model: Path, name: str, log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._arguments = [
            sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model),
            "--served-model-name", name, "--port", str(self.port), *vllm_words(with_adapters=False),
            "--max-model-len", "2048", "--enforce-eager",
        ]  # fmt: skip
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server without waiting until it is ready."""
        env = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
        env |= EAGER_ENV if compiler_fault(os.environ) else {}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._arguments, stdout=log, stderr=log, env=env, start_new_session=True)

    def wait(self) -> None:
        """Wait until the server accepts connections."""
        assert self._process is not None
        wait_until(lambda: self._process is None or self._process.poll() is not None or self._is_ready(), seconds=300)
        assert self._process.poll() is None, self._log.read_text()[-3000:]

    def kill(self) -> None:
        """Kill all processes of the server."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _is_ready(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
