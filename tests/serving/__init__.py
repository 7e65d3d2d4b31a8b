"""Tests of a real server: vLLM on a tiny random model in float32, compared with transformers and PEFT.

All modules of this folder share one server (``site``), which every test finds in the same state.
"""
