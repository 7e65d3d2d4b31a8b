"""The servers compared: ours, a plain vLLM with LoRA and its own load route, and a plain vLLM with only the base."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.swapping.adapters import NAMES, RANK, SECOND, Adapters
from benchmarks.swapping.stock import stock_vllm
from serve.client import admin
from serve.launch.machine import detect_machine
from serve.launch.process import serving

SLOTS = 16
LENGTH = 1024
CACHE_GIB = 0.5


@dataclass(frozen=True)
class Contestant:
    """A running server with its functions to load and swap adapters; ``base`` is the base's name in requests."""

    name: str
    url: str
    base: str
    pid: int
    load: Callable[[str], object]
    unload: Callable[[str], object]
    swaps: Mapping[str, Callable[[str], object]]
    """Way of swapping to a function that makes the first name mean the version of a key."""

    def processes(self) -> list[psutil.Process]:
        """Return the server's processes."""
        leader = psutil.Process(self.pid)
        return [leader, *leader.children(recursive=True)]

    def cpu_seconds(self) -> float:
        """Return the processor seconds of its processes."""
        return sum(sum(process.cpu_times()[:2]) for process in self.processes())

    def peak_memory(self) -> int:
        """Return the sum of its processes' peak memory in MiB."""
        texts = [Path(f"/proc/{process.pid}/status").read_text() for process in self.processes()]
        return (
            sum(int(line.split()[1]) for text in texts for line in text.splitlines() if line.startswith("VmHWM")) >> 10
        )


@contextmanager
def contestants(adapters: Adapters, work: Path, with_base: bool) -> Iterator[dict[str, Contestant]]:
    """Start the servers with equal limits, memory, threads and dtype (float32), and yield them."""
    binding = ",".join(map(str, detect_machine().cores))
    limits = [
        "--dtype",
        "float32",
        "--max-model-len",
        str(LENGTH),
        "--kv-cache-memory-bytes",
        str(int(CACHE_GIB * 2**30)),
    ]
    lora = ["--max-loras", str(SLOTS), "--max-cpu-loras", "80", "--max-lora-rank", str(RANK)]
    env = {"VLLM_CPU_OMP_THREADS_BIND": binding}
    with ExitStack() as stack:
        our_server = stack.enter_context(
            serving(
                adapters.base,
                adapters.registry.root,
                log=work / "ours.log",
                dtype="float32",
                max_model_len=LENGTH,
                max_loras=SLOTS,
                max_cpu_loras=80,
                max_lora_rank=RANK,
                kv_cache_gib=CACHE_GIB,
            )
        )
        opened = {**env, "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
        first = {NAMES[0]: adapters.folders[NAMES[0]]}
        plain = stack.enter_context(stock_vllm(adapters.base, first, work / "stock.log", [*limits, *lora], opened))
        base = adapters.base.name
        servers = {
            "ours": _ours(our_server.url, our_server.pid, base, adapters),
            "stock": _stock(plain.url, plain.pid, base, adapters),
        }
        if with_base:
            bare = stack.enter_context(stock_vllm(adapters.base, {}, work / "base.log", limits, env))
            servers["base"] = Contestant("base", bare.url, base, bare.pid, _cannot, _cannot, {})
        yield servers


def _ours(url: str, pid: int, base: str, adapters: Adapters) -> Contestant:
    def promote(key: str) -> object:
        return admin.promote(url, adapters.ids[key])

    return Contestant("ours", url, base, pid, promote, lambda name: admin.unload(url, name), {"promote": promote})


def _stock(url: str, pid: int, base: str, adapters: Adapters) -> Contestant:
    def load(key: str, **more: Any) -> None:
        body = {"lora_name": key.partition("-")[0], "lora_path": str(adapters.folders[key]), **more}
        _post(f"{url}/v1/load_lora_adapter", body)

    def unload(name: str) -> None:
        _post(f"{url}/v1/unload_lora_adapter", {"lora_name": name})

    def unload_and_load(key: str) -> None:
        unload(NAMES[0])
        load(key)

    methods: dict[str, Callable[[str], object]] = {
        "unload, then load": unload_and_load,
        "load in place": lambda key: load(key, load_inplace=True),
    }
    return Contestant("stock", url, base, pid, load, unload, methods)


def _cannot(name: str) -> object:
    raise NotImplementedError(f"{name}: this server has no adapters")


def _post(url: str, body: dict[str, Any]) -> None:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as reply:
            reply.read()
    except urllib.error.HTTPError as error:
        message = f"{url}: {error.read().decode()}"
        if error.code >= 500:  # its engine has died; that is a result (see hot_swap.Died)
            raise ConnectionError(message) from error
        raise SystemExit(message) from error


__all__ = ["SECOND", "Contestant", "contestants"]
