"""Parse command lines as vLLM's server does, up to the arguments of its engine; a process of its own, as vLLM takes
seconds to import. Reads a JSON list of argument lists, prints a JSON list of what was understood."""

from __future__ import annotations

import json
import sys
from typing import Any

from vllm.config import CacheConfig
from vllm.config.lora import LoRAConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.utils.argparse_utils import FlexibleArgumentParser


def understood(parser: FlexibleArgumentParser, words: list[str]) -> dict[str, Any]:
    """Return every option by name, those of the engine as the engine gets them, or the error."""
    try:
        options = parser.parse_args(words)
    except SystemExit:
        return {"error": f"refused: {words}"}
    validate_parsed_serve_args(options)
    engine = AsyncEngineArgs.from_cli_args(options)
    values = vars(options) | vars(engine)
    # What checks the values themselves; both raise.
    names = ("gpu_memory_utilization", "kv_cache_memory_bytes")
    CacheConfig(**{name: values[name] for name in names})
    if engine.enable_lora:
        LoRAConfig(**{name: values[name] for name in ("max_lora_rank", "max_loras", "max_cpu_loras")})
    return {name: value for name, value in values.items() if isinstance(value, str | int | float | list | None)}


if __name__ == "__main__":
    parser = make_arg_parser(FlexibleArgumentParser())
    print(json.dumps([understood(parser, words) for words in json.load(sys.stdin)]))
