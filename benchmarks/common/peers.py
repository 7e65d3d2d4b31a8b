"""Other tools to compare with, each installed into its own environment."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

PACKAGES = {"lm-eval": ("lm-eval[api]==0.4.13",), "inspect": ("inspect-ai==0.3.285", "openai==3.54.0")}


def folder(options: argparse.Namespace) -> Path:
    """Return the folder of the environments, which normal and quick runs share."""
    chosen: Path = options.peers or options.work / "peers"
    return chosen.resolve()


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add the option of benchmarks that have peers."""
    parser.add_argument("--peers", type=Path, help="folder of the peers' environments (default: created in --work)")


def present(options: argparse.Namespace) -> list[str]:
    """Return the peers to measure: all of them, or in a quick run those installed, without the slow one."""
    if not options.quick:
        return list(PACKAGES)
    return [name for name in PACKAGES if name != "inspect" and (folder(options) / name / ".ready").exists()]


def interpreter(peers: Path, name: str) -> Path:
    """Return the Python of a peer's environment, after creating it if it is missing."""
    python = peers / name / "bin" / "python"
    if not (peers / name / ".ready").exists():
        subprocess.run([sys.executable, "-m", "venv", str(peers / name)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES[name]], check=True)
        (peers / name / ".ready").touch()
    return python
