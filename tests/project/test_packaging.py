"""A non-editable installation gets every file of the packages."""

from __future__ import annotations

import tomllib
from pathlib import Path

from setuptools import find_packages

ROOT = Path(__file__).parents[2]


def test_every_file_of_the_packages_is_installed() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    patterns = config["packages"]["find"]["include"]
    tops = {pattern.removesuffix("*") for pattern in patterns}
    code = {path for top in tops for path in (ROOT / top).rglob("*.py")}
    packages = {ROOT / name.replace(".", "/") for name in find_packages(str(ROOT), include=patterns)}
    assert {path.parent for path in code} == packages
    globbed = {
        path
        for name, globs in config["package-data"].items()
        for glob in globs
        for path in (ROOT / name.replace(".", "/")).glob(glob)
    }
    present = {path for top in tops for path in (ROOT / top).rglob("*") if path.is_file()}
    data = {path for path in present if path.suffix not in (".py", ".pyc")}
    assert data == globbed
    assert ROOT / "trainers" / "weights" / "tiny-base" / "model.safetensors" in globbed
