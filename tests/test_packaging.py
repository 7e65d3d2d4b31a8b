"""What an installation that is not editable gets: every file that the packages read."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_file_of_the_packages_is_installed() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    packages = {ROOT / name.replace(".", "/") for name in told["packages"]}
    tops = {name for name in told["packages"] if "." not in name}
    code = {path for top in tops for path in (ROOT / top).rglob("*.py")}
    assert {path.parent for path in code} == packages
    globbed = {
        path for top, globs in told["package-data"].items() for glob in globs for path in (ROOT / top).glob(glob)
    }
    present = {path for top in tops for path in (ROOT / top).rglob("*") if path.is_file()}
    data = {path for path in present if path.suffix not in (".py", ".pyc")}
    assert data == globbed
    assert ROOT / "trainers" / "weights" / "tiny-base" / "model.safetensors" in globbed
