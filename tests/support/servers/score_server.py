"""A small server that scores answers in one of the ways of harness.client.scoring.score_format, or badly."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]


def logprob(tokens: Sequence[int], at: int) -> float:
    """Return a made-up log-probability of a token that depends on all tokens before it."""
    return -((sum((k + 1) * token for k, token in enumerate(tokens[: at + 1])) % 97) + 1) / 16


def total(prompt: Sequence[int], answer: Sequence[int]) -> float:
    """Return the log-probability of an answer behind a prompt."""
    tokens = [*prompt, *answer]
    return sum(logprob(tokens, at) for at in range(len(prompt), len(tokens)))


def prompt_logprobs(body: Body) -> Body:
    """Answer as vLLM does with ``prompt_logprobs``, with the choices in reverse order."""
    choices = []
    for index, tokens in enumerate(body["prompt"]):
        rows = [{str(token): {"logprob": logprob(tokens, at), "rank": 1}} for at, token in enumerate(tokens)]
        choices.append({"index": index, "text": "x", "prompt_logprobs": [None, *rows[1:]], "finish_reason": "length"})
    return {"model": body["model"], "choices": choices[::-1]}


def echo(body: Body) -> Body:
    """Answer as vLLM does with ``echo``; one token is generated."""
    choices = []
    for index, tokens in enumerate(body["prompt"]):
        values = [None, *(logprob(tokens, at) for at in range(1, len(tokens))), -0.5]
        names = [*(f"token_id:{token}" for token in tokens), "token_id:9"]
        logprobs = {"tokens": names, "token_logprobs": values}
        choices.append({"index": index, "text": "x", "logprobs": logprobs, "finish_reason": "length"})
    return {"model": body["model"], "choices": choices}


def route(body: Body) -> Body:
    """Answer as /arc/score does."""
    scores = [
        [{"logprob": total(item["prompt"], answer), "n_tokens": len(answer)} for answer in item["answers"]]
        for item in body["prompts"]
    ]
    return {"model": body["model"] + "@1", "scores": scores}


def generation_only(body: Body) -> Body:
    """Answer a completion without anything about the prompt."""
    choices = [{"index": k, "text": "x", "finish_reason": "length"} for k in range(len(body["prompt"]))]
    return {"model": body["model"], "choices": choices}


class ScoreServer:
    """Serves a list of models, ``/v1/completions``, and ``/arc/score`` if ``scores`` is given; use as a context.

    Args:
        completions: returns the reply to a completions request, or its status with an error's message.
        scores: the same for ``/arc/score``, which is then listed.

    Attributes:
        bodies: path and body of each request.
    """

    def __init__(
        self,
        completions: Callable[[Body], Body | tuple[int, str]] = generation_only,
        scores: Callable[[Body], Body | tuple[int, str]] | None = None,
    ) -> None:
        self.bodies: list[tuple[str, Body]] = []
        replies = {"/v1/completions": completions} | ({} if scores is None else {"/arc/score": scores})
        listed = None if scores is None else "/arc/score"
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send(200, {"data": [{"id": "base", "arc_bench": {"score": listed}}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                site.bodies.append((self.path, body))
                reply = replies[self.path](body)
                if isinstance(reply, tuple):
                    self._send(reply[0], {"error": {"message": reply[1]}})
                else:
                    self._send(200, reply)

            def _send(self, status: int, reply: Body) -> None:
                data = json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> ScoreServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
