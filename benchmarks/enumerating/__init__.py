"""Sides of the benchmark of candidates: enumeration beside a bare client, and three ways to score given answers."""
