"""Classify a server's error responses: retryable ones (``TransientError``) and ``Refusal``.

Servers word the same reason in many ways and put it in different places of the body. The classification looks, in this
order, for words about the account, about being busy, and about the chat template or the context; then at the status.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import time
from typing import Any, Literal

import orjson

from harness.core.errors import ServerError

_SHOWN_CHARACTERS = 300
_SEARCHED_CHARACTERS = 4000
"""Characters of an error body that are searched for known words."""
_BUSY = frozenset((409, 423, 424, 425, 429, 498, 503, 529))
"""Conflict, locked, failed dependency, too early, too many, no capacity (Groq), unavailable, overloaded (Anthropic)."""
_TRANSIENT = frozenset((408, 421, 499))
"""Request timeout, misdirected request, connection closed by the client."""
_REQUEST_STATUSES = frozenset((400, 413, 414, 422))
"""Statuses that may be about one prompt; all other 4xx are about the key, the account, the route or the server."""
_CONTEXT = re.compile(
    r"context.?(length|window|size|limit)|context the overflows|maximum (sequence|model) length|too many tokens"
    r"|(prompt|input|messages?|request|conversation)\W{0,3}( is| are|:)? (too|longer|exceed)"
    r"|input (token count|length)|\binputs?\W{0,3} (must have|tokens?)|max_(input|model)_(tokens|len(gth)?)"
    r"|reduce (the length|your (prompt|message|input))|range of input length|request too large",
    re.I,
)
_ANSWER_LIMIT = re.compile(
    r"max_?(new_?|completion_?|output_?|gen_?)?(tokens|toks)|(completion|output|answer|generat\w+) tokens"
    r"|maximum tokens you requested|num_predict",
    re.I,
)
_LIMIT_REACHED = re.compile(r"max_tokens or model output limit was reached|could not finish the message", re.I)
_NO_MODEL = re.compile(r"model.{0,80}(not exist|not found|unknown)|unknown model|no such model", re.I | re.S)
_TEMPLATE = re.compile(r"jinja|chat.?template|template error|roles? (must|is|are|not)|system (role|message)", re.I)
_NO_TEMPLATE = re.compile(
    r"(default|without|no|have a|define a|missing|provide a) chat.?template"
    r"|chat.?template (is )?not (set|found|defined)",
    re.I,
)
_NO_FUNDS = re.compile(
    r"insufficient.{0,20}(quota|balance|credit|fund)|credit balance|out of credits|billing.?hard.?limit|arrear"
    r"|(account|organi[sz]ation|project|workspace).{0,60}(suspend|disabled|deactivat|inactive|standing|overdue|blocked)",
    re.I | re.S,
)
_ACCOUNT = re.compile(
    r"\bquota|\bbilling|\bpayment|\bcredits?\b|\bsubscription|\bbudget|(free )?trial.{0,20}(end|expire|over)"
    r"|(api|access|secret)[ _-]?key|location is not supported|unsupported_country|licen[cs]e|permission.?denied",
    re.I,
)
_TRY_LATER = re.compile(
    r"rate.?limit|overloaded|at capacity|temporar|try again (later|in |shortly)|too many (concurrent )?requests"
    r"|(server|engine|model)( is|'s)?( currently)? (busy|loading|warming)|not ready",
    re.I,
)

TransientKind = Literal["connection", "timeout", "busy", "server", "garbage", "abort"]


class TransientError(ServerError):
    """One attempt failed, and sending the same request again may succeed.

    Attributes:
        kind: ``connection`` (not established, or lost), ``timeout``, ``busy`` (the server asks to wait),
            ``server`` (5xx), ``garbage`` (not a valid response), ``abort`` (the server is shutting down).
        retry_after: seconds that the server asks to wait; None if it does not say.
    """

    def __init__(self, kind: TransientKind, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after = retry_after


class Refusal(ServerError):
    """The server answered with an error that the same request would cause again.

    Args:
        status: the HTTP status.
        message: the text to show.
        details: further text of the error, which is classified together with the message.
    """

    def __init__(self, status: int, message: str, details: str = "") -> None:
        super().__init__(f"HTTP {status}: {message}")
        self.status = status
        self.searchable = f"{message} {details}"

    @property
    def is_context(self) -> bool:
        """Whether the prompt, or the prompt with its answer, exceeds the model's context."""
        return not self.is_about_account and (self.status in (413, 414) or bool(_CONTEXT.search(self.searchable)))

    @property
    def is_answer_limit(self) -> bool:
        """Whether the error is about the limit on the answer's tokens and not about the context."""
        return not self.is_about_account and bool(_ANSWER_LIMIT.search(self.searchable)) and not self.is_context

    @property
    def reached_answer_limit(self) -> bool:
        """Whether the answer reached its token limit before it had any text (OpenAI's reasoning models)."""
        return self.status == 400 and bool(_LIMIT_REACHED.search(self.searchable))

    @property
    def lacks_template(self) -> bool:
        """Whether the error says that the model has no chat template, in the words of vLLM, SGLang or TGI."""
        return bool(_NO_TEMPLATE.search(self.searchable))

    @property
    def is_systematic(self) -> bool:
        """Whether the error concerns the key, the account, the route or the model, and therefore every request."""
        missing = self.status in (404, 405) or self.status < 400
        return self.is_about_account or missing or bool(_NO_MODEL.search(self.searchable))

    @property
    def is_about_account(self) -> bool:
        """Whether the error concerns the key or the account. Only the user can fix that, so it ends the run."""
        if self.status in _REQUEST_STATUSES:
            return bool(_NO_FUNDS.search(self.searchable) or _ACCOUNT.search(self.searchable))
        return 400 <= self.status < 500 and self.status not in (404, 405)


@dataclass(frozen=True)
class _ErrorText:
    """The contents of an error body."""

    message: str
    """One line to show."""
    searchable: str
    """All of its words."""
    status: int | None
    """The HTTP status that the body itself names, if any."""


def classify_error(status: int, body: object, retry_after: str | None, source: str) -> TransientError | Refusal:
    """Return the exception for a server's error response.

    Args:
        status: the HTTP status; for an error that came with 200 the body's own code is used, or 500.
        body: the parsed JSON value, or the text if it is not JSON.
        retry_after: the Retry-After header.
        source: what to name in the message, such as the URL.
    """
    error = _read_error(body)
    if status == 200:
        status = error.status or 500
    words, pause = error.searchable, _parse_retry_after(retry_after)
    line = f"{source}: HTTP {status}: {error.message}"
    if status == 429 and _NO_FUNDS.search(words):
        return Refusal(402, error.message, words)
    if status in _BUSY:
        if status == 429 and re.search(r"request too large|tokens must be reduced", words, re.I):
            return Refusal(413, error.message, words)
        return TransientError("busy", line, pause)
    if status in _REQUEST_STATUSES and _TRY_LATER.search(words) and not _NO_FUNDS.search(words):
        return TransientError("busy", line, pause)
    if status in _TRANSIENT or (status >= 500 and not _TEMPLATE.search(words) and not _CONTEXT.search(words)):
        return TransientError("server", line, pause)
    return Refusal(status, error.message, words)


def parse_error_body(content: bytes) -> object:
    """Return the JSON value of an error response's body, or its text if it is not JSON."""
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return content[:_SEARCHED_CHARACTERS].decode(errors="replace")


def _read_error(body: object) -> _ErrorText:
    """Read an error body in the forms of OpenAI, FastAPI, Google, Ollama, Cloudflare, or plain text."""
    if isinstance(body, list) and len(body) == 1:
        body = body[0]
    error: Any = body
    if isinstance(body, dict):
        error = body.get("error") or body
        if isinstance(body.get("errors"), list) and body["errors"]:
            error = body["errors"][0]
    if not isinstance(error, dict):
        text = error if isinstance(error, str) else orjson.dumps(error, default=str).decode()
        return _ErrorText(shorten(text), text[:_SEARCHED_CHARACTERS], None)
    message = _message_text(error.get("message") or error.get("Message") or error.get("detail") or error)
    metadata = error.get("metadata")
    raw = _message_text(metadata["raw"]) if isinstance(metadata, dict) and metadata.get("raw") else ""
    rest = [raw, *(str(error.get(name) or "") for name in ("param", "type", "code", "status"))]
    code = next((int(c) for c in map(str, (error.get("code"), error.get("status"))) if c.isdecimal()), 0)
    shown = f"{message} ({raw})" if raw else message
    searchable = " ".join([message, *rest])[:_SEARCHED_CHARACTERS]
    return _ErrorText(shorten(shown), searchable, code if 400 <= code < 600 else None)


def _message_text(value: object) -> str:
    """Return an error message as text; FastAPI's list of invalid fields without the values, which may be prompts."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(entry, dict) and "msg" in entry for entry in value):
        return "; ".join(f"{entry['msg']}: {'.'.join(map(str, entry.get('loc', ())))}" for entry in value)
    return orjson.dumps(value, default=str).decode()


def _parse_retry_after(header: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for, as a number or as a date; None if it cannot be read."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time()
        except ValueError:
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def shorten(text: str) -> str:
    """Return a server's text on one line of at most 300 characters."""
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."
