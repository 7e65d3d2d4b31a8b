"""Other tools, each installed into an environment of its own."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

PACKAGES = {"lm-eval": ("lm-eval[api]==0.4.13",), "inspect": ("inspect-ai==0.3.285", "openai==3.54.0")}


def folder(options: argparse.Namespace) -> Path:
    """Where the environments are; benchmarks and quick runs share them."""
    chosen: Path = options.peers or options.work / "peers"
    return chosen.resolve()


def add_option(parser: argparse.ArgumentParser) -> None:
    """The option of a benchmark that has peers."""
    parser.add_argument("--peers", type=Path, help="where the peers' environments are (made in --work otherwise)")


def present(options: argparse.Namespace) -> list[str]:
    """The peers to measure: all, but a quick run installs none and leaves the slow one out."""
    if not options.quick:
        return list(PACKAGES)
    return [name for name in PACKAGES if name != "inspect" and (folder(options) / name / ".ready").exists()]


def interpreter(peers: Path, name: str) -> Path:
    """The Python of a peer's own environment, which is made where it is missing."""
    python = peers / name / "bin" / "python"
    if not (peers / name / ".ready").exists():
        subprocess.run([sys.executable, "-m", "venv", str(peers / name)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES[name]], check=True)
        (peers / name / ".ready").touch()
    return python
