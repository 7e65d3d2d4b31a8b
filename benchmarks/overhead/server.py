"""A local server without latency: every answer is the same prepared grid, so that only clients are measured.

    python -m benchmarks.overhead.server [--tokens 100] [--tokenizer MODEL_FOLDER]

It speaks HTTP/1.1 on a bare asyncio protocol. It prints its port, ``first`` at the first request for an answer, and,
when its standard input ends, the seconds from the first request to the last. With a tokenizer it also accepts token
ids.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from harness.core.grid import Grid
from harness.prompts.file_tokenizer import FileTokenizer
from harness.prompts.grid_encoder import DEFAULT_ENCODER, parse_encoder

MODEL = "canned"
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


def answer_text(tokens: int) -> str:
    """Return an answer in the default prompt and encoder with about this many tokens."""
    side = max(1, round((tokens - 20) ** 0.5))
    grid = Grid(side, side, bytes(i % 10 for i in range(side * side)))
    return "### Output\n\n" + parse_encoder(DEFAULT_ENCODER).encode(grid)


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _http(body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Answers:
    """Complete HTTP responses in vLLM's form, prepared once.

    Args:
        tokens: tokens per answer.
        tokenizer: model folder whose tokenizer the server claims to have.
    """

    def __init__(self, tokens: int, tokenizer: Path | None) -> None:
        self.tokenizer = None if tokenizer is None else FileTokenizer(tokenizer)
        self._text = text = answer_text(tokens)
        self._pieces = [text[i * len(text) // tokens : (i + 1) * len(text) // tokens] for i in range(tokens)]
        self._ready: dict[object, bytes] = {}
        root = None if tokenizer is None else str(tokenizer.resolve())
        entry = {"id": MODEL, "object": "model", "max_model_len": 32768, "root": root, "parent": None}
        self.models = _http(_dump({"object": "list", "data": [entry]}))

    def chat(self, body: bytes) -> bytes:
        """Return the response to a chat."""
        logprobs = b'"logprobs":true' in body.replace(b" ", b"")
        key = ("chat", logprobs)
        if key not in self._ready:
            content = [
                {"token": p, "logprob": -0.01, "bytes": list(p.encode()), "top_logprobs": []} for p in self._pieces
            ]
            message = {"role": "assistant", "content": self._text, "refusal": None, "tool_calls": []}
            choice = {"index": 0, "message": message, "logprobs": {"content": content} if logprobs else None}
            self._ready[key] = self._completion("chat.completion", [choice])
        return self._ready[key]

    def completions(self, body: bytes) -> bytes:
        """Return the response to a list of prompts in token ids."""
        count = body.count(b"],[") + 1
        if count not in self._ready:
            logprobs = {
                "text_offset": list(range(len(self._pieces))),
                "token_logprobs": [-0.01] * len(self._pieces),
                "tokens": self._pieces,
                "top_logprobs": [{piece: -0.01} for piece in self._pieces],
            }
            choices: list[dict[str, Any]] = [
                {"index": i, "text": self._text, "logprobs": logprobs} for i in range(count)
            ]
            self._ready[count] = self._completion("text_completion", choices)
        return self._ready[count]

    def tokenize(self, body: bytes) -> bytes:
        """Return the token ids of a chat."""
        assert self.tokenizer is not None
        text = self.tokenizer.apply_chat_template(
            json.loads(body)["messages"], tokenize=False, add_generation_prompt=True
        )
        return _http(_dump({"tokens": self.tokenizer.encode(text, add_special_tokens=False)}))

    def _completion(self, kind: str, choices: list[dict[str, Any]]) -> bytes:
        count = len(self._pieces) * len(choices)
        finished = [{**choice, "finish_reason": "stop", "stop_reason": None} for choice in choices]
        usage = {
            "prompt_tokens": 1300,
            "total_tokens": 1300 + count,
            "completion_tokens": count,
        }
        return _http(
            _dump({"id": "0", "object": kind, "created": 0, "model": MODEL, "choices": finished, "usage": usage})
        )


class Canned(asyncio.Protocol):
    """The protocol of one connection."""

    first: float | None = None
    last = 0.0

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._data = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._data[:end]).lower()
            mark = head.find(b"content-length:")
            size = int(head[mark + 15 :].split(b"\r\n", 1)[0]) if mark >= 0 else 0
            if len(self._data) < end + 4 + size:
                return
            body = bytes(self._data[end + 4 : end + 4 + size])
            del self._data[: end + 4 + size]
            self._transport.write(self._answer(head, body))

    def _answer(self, head: bytes, body: bytes) -> bytes:
        route = head.split(b" ", 2)[1]
        if route == b"/v1/models":
            return self._answers.models
        if route == b"/tokenize" and self._answers.tokenizer is not None:
            return self._answers.tokenize(body)
        if route not in (b"/v1/chat/completions", b"/v1/completions"):
            return _NOT_FOUND
        if b'"max_tokens":1,' not in body:
            Canned.last = time.perf_counter()
            if Canned.first is None:
                Canned.first = Canned.last
                print("first", flush=True)
        return self._answers.chat(body) if route.startswith(b"/v1/chat") else self._answers.completions(body)


async def serve(answers: Answers) -> None:
    """Serve until the standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Canned(answers), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await loop.run_in_executor(None, sys.stdin.read)
    print(Canned.last - (Canned.first or 0.0), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--tokenizer", type=Path)
    options = parser.parse_args()
    asyncio.run(serve(Answers(options.tokens, options.tokenizer)))
