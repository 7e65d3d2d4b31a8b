"""A report that was written to files, or that a notebook shows."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path


@dataclass(frozen=True, eq=False)
class Report:
    """A report: the files that were written, or the page to show."""

    paths: tuple[Path, ...]
    html: str | None = None

    def __repr__(self) -> str:
        return f"wrote {', '.join(map(str, self.paths))}" if self.paths else "a report, which a notebook shows"

    def _repr_html_(self) -> str | None:
        if self.html is None:
            return None
        style = "width:100%;height:600px;border:1px solid #ccc"
        return f'<iframe sandbox="allow-scripts" style="{style}" srcdoc="{escape(self.html)}"></iframe>'
