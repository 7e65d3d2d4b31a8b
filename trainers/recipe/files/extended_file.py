"""Files that extend another one: ``extends: other.yaml`` names the file whose values are used where this one has none.

Mappings are merged key by key, and the file that extends wins; lists, single values and ``{}`` replace. The path is
relative to the file that names it. A file that is extended cannot extend a third one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.core.errors import ConfigError
from harness.runs.schemas.manifest_schema import SourceFileRecord
from trainers.recipe.explain import InvalidValuesError, Location
from trainers.recipe.files.yaml_text import parse_yaml
from trainers.recipe.parts import expand_home

EXTENDS = "extends"
LISTS_OF_ONE = frozenset({"datasets", "original", "added"})
"""Keys of a list of datasets, for which one mapping may stand. Such a mapping replaces, as a list does."""


@dataclass(frozen=True, slots=True)
class ValuesFile:
    """The values of one YAML file."""

    path: Path
    values: dict[str, object]
    sha256: str
    """Of the file's bytes."""


@dataclass(frozen=True, slots=True)
class ExtendedFile:
    """A YAML file with the file that it extends, if any."""

    child: ValuesFile
    base: ValuesFile | None

    def merged(self) -> dict[str, object]:
        """Return the values of both files, without ``extends``."""
        values = {key: value for key, value in self.child.values.items() if key != EXTENDS}
        return values if self.base is None else merge_values(self.base.values, values)

    def records(self) -> list[SourceFileRecord]:
        """Return paths and digests of both files; empty for a file that extends none."""
        files = [] if self.base is None else [self.child, self.base]
        return [SourceFileRecord(path=str(file.path), sha256=file.sha256) for file in files]

    def source_of(self, location: Location, overrides: Sequence[str] = ()) -> str:
        """Return the name of the file from which the value at a location comes.

        Args:
            location: keys, and indices of lists; empty for an error about several keys.
            overrides: keys, or ``KEY=VALUE`` texts, that were applied after merging.
        """
        if self.base is None:
            return str(self.child.path)
        for override in overrides:
            parts = override.partition("=")[0].strip().split(".")
            if parts == [str(part) for part in location[: len(parts)]]:
                return "the command line"
        in_child, in_base = (_match(file.values, location) for file in (self.child, self.base))
        if in_child.depth == in_base.depth and in_child.is_mapping and in_base.is_mapping:
            return f"{self.child.path}, which extends {self.base.path}"
        return str((self.base if in_base.depth > in_child.depth else self.child).path)


def read_extended(path: Path) -> ExtendedFile:
    """Read a YAML file, and the file that its key ``extends`` names.

    Raises:
        ConfigError: a file cannot be read, or the extended file itself extends another one.
    """
    child = _read_file(path)
    if EXTENDS not in child.values:
        return ExtendedFile(child, None)
    name = child.values[EXTENDS]
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{path}: {EXTENDS}: expected the path of one file, got {name!r}")
    try:
        location = path.parent / str(expand_home(name))
        base = _read_file(location)
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"{path}: {EXTENDS}: {error}") from None
    if EXTENDS in base.values:
        raise ConfigError(
            f"{location}: {EXTENDS}: {path} extends this file, so that it cannot extend another one; "
            "copy the keys that are needed into one of the two"
        )
    return ExtendedFile(child, base)


def opened(file: Path | ExtendedFile | None) -> ExtendedFile | None:
    """Return a file with its values, read now if only its path is given (raises as ``read_extended``)."""
    return file if file is None or isinstance(file, ExtendedFile) else read_extended(file)


@contextmanager
def naming_files(
    file: ExtendedFile | None, overrides: Sequence[str] = (), file_location: Callable[[Location], Location] = tuple
) -> Iterator[None]:
    """Name, in errors about invalid values, the file from which each value comes.

    Args:
        file: None leaves errors as they are.
        overrides: as in ``ExtendedFile.source_of``.
        file_location: returns, for the location of a value that is validated, its location in the file.

    Raises:
        ConfigError: instead of each InvalidValuesError.
    """
    try:
        yield
    except InvalidValuesError as error:
        if file is None:
            raise
        path = file.child.path
        about = "" if error.where == str(path) else f"{error.where}: "
        if file.base is None:
            raise ConfigError(f"{path}: {error}" if about else str(error)) from None
        lines = [
            f"{file.source_of(file_location(location), overrides)}: {about}{text}" for location, text in error.problems
        ]
        raise ConfigError("; ".join(dict.fromkeys(lines)) + error.hint) from None


def _read_file(path: Path) -> ValuesFile:
    try:
        content = path.read_bytes()
        data = parse_yaml(content.decode("utf-8"), str(path))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected keys and values, got {type(data).__name__}")
    return ValuesFile(path, {str(key): value for key, value in data.items()}, hashlib.sha256(content).hexdigest())


def merge_values(base: Mapping[str, object], child: Mapping[str, object]) -> dict[str, object]:
    """Return the union of two mappings: filled mappings under the same key are merged, else the child's is used."""
    merged = dict(base)
    for key, value in child.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and value and isinstance(below, Mapping) and key not in LISTS_OF_ONE:
            merged[key] = merge_values(below, value)
        else:
            merged[key] = value
    return merged


@dataclass(frozen=True, slots=True)
class _Match:
    """How far a file's values reach towards a location."""

    depth: int
    """Number of parts of the location that the file has."""
    is_mapping: bool
    """Whether what it has there is a mapping."""


def _match(values: object, location: Location) -> _Match:
    for depth, part in enumerate(location):
        by_key = dict(enumerate(values)) if isinstance(values, list) else values
        if not isinstance(by_key, Mapping) or part not in by_key:
            return _Match(depth, isinstance(values, Mapping))
        values = by_key[part]
    return _Match(len(location), isinstance(values, Mapping))
