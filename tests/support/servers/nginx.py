"""nginx with the configuration of docs/scaling.md in front of servers of a test."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.commands import wait_until

PAGE = Path(__file__).parents[3] / "docs" / "scaling.md"
_MAIN = """\
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
worker_processes 2;
{user}
events {{ worker_connections 768; }}
http {{
    access_log {folder}/access.log;
    {paths}
    include {folder}/page.conf;
}}
"""
"""What a system's own nginx.conf has around the page's block; 768 connections are Debian's."""
_PATHS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def find_nginx() -> str | None:
    """Return the path of nginx, which Debian keeps out of users' PATH; None if it is not installed."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin")


def page_config(backends: tuple[str, str], port: int) -> str:
    """Return the nginx block of docs/scaling.md with its two servers and its port replaced.

    Args:
        backends: addresses of the servers, as HOST:PORT.
    """
    blocks = re.findall(r"^```nginx\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1
    config = blocks[0]
    for pattern, value in (
        (r"(?<=server )one:8000\b", backends[0]),
        (r"(?<=server )two:8000\b", backends[1]),
        (r"(?<=listen )8080(?=;)", f"127.0.0.1:{port}"),
    ):
        config, count = re.subn(pattern, value, config)
        assert count == 1, pattern
    return str(config)


@contextmanager
def nginx_before(first: str, second: str, folder: Path) -> Iterator[str]:
    """Run nginx before two servers' URLs within the context and yield its URL.

    Args:
        folder: new folder for its files; ``access.log`` and ``error.log`` stay there.
    """
    program = find_nginx()
    assert program is not None
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    backends = first.removeprefix("http://"), second.removeprefix("http://")
    (folder / "page.conf").write_text(page_config(backends, port), encoding="utf-8")
    paths = " ".join(f"{name}_temp_path {folder}/{name};" for name in _PATHS)
    user = "user root;" if os.geteuid() == 0 else ""  # else its workers could not enter the test's folder
    main = folder / "nginx.conf"
    main.write_text(_MAIN.format(folder=folder, user=user, paths=paths), encoding="utf-8")
    process = subprocess.Popen([program, "-p", str(folder), "-c", str(main)], stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: process.poll() is not None or _listens(port))
        assert process.poll() is None, process.communicate()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
