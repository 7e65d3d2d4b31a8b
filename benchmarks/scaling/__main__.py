"""Write the model on paper of 1, 8 and 64 GPUs into docs/scaling.md.

    python -m benchmarks.scaling

It reads the measured figures from the benchmarks' pages, and measures nothing itself.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.common.entry import FOLDER
from benchmarks.common.marked_block import replace_block
from benchmarks.scaling.figures import Gpu, read_measured
from benchmarks.scaling.page import page

MODULE = "benchmarks.scaling"
PAGE = FOLDER.parent / "docs" / "scaling.md"


def write_block() -> str:
    """Write the block of the page with the figures of the benchmarks' pages, and return it."""
    block = page(read_measured(), Gpu())
    PAGE.write_text(replace_block(PAGE.read_text(encoding="utf-8"), block, MODULE), encoding="utf-8")
    return block


def main() -> int:
    """Write the block of the page and print it."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args()
    print(write_block())
    return 0


if __name__ == "__main__":
    sys.exit(main())
