"""Selection rules compared on the same predictions: shares by enumeration, and what the tables say."""

from __future__ import annotations
