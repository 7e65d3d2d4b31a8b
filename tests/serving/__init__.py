"""The server for real: vLLM on a tiny random model in float32, compared with what transformers and PEFT answer.

One server is shared by all modules of this folder (``site``); every test finds it in the same state.
"""
