"""Why a server did not answer: its error bodies read into faults that may pass and refusals that will not.

Servers word the same reason in many ways and put it in many places. What decides is, in this order: the words about
the account, about being busy, and about the chat template; then the status.
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

_SHOWN = 300
_READ = 4000
"""Characters of an error body that are searched for known words."""
_BUSY = frozenset((409, 423, 424, 425, 429, 498, 503, 529))
"""Conflict, locked, failed dependency, too early, too many, no capacity (Groq), unavailable, overloaded (Anthropic)."""
_PASSING = frozenset((408, 421, 499))
_ABOUT_THE_REQUEST = frozenset((400, 413, 414, 422))
"""All other 4xx are about the key, the account, the route or the server, and never about a prompt."""
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
_CUT = re.compile(r"max_tokens or model output limit was reached|could not finish the message", re.I)
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
_LATER = re.compile(
    r"rate.?limit|overloaded|at capacity|temporar|try again (later|in |shortly)|too many (concurrent )?requests"
    r"|(server|engine|model)( is|'s)?( currently)? (busy|loading|warming)|not ready",
    re.I,
)

FaultKind = Literal["connection", "timeout", "busy", "server", "garbage", "abort"]


class Fault(ServerError):
    """One attempt failed in a way that may pass: the request can be sent again."""

    def __init__(self, kind: FaultKind, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after = retry_after


class Refusal(ServerError):
    """The server answered with an error that would come again for the same request.

    Args:
        message: what is shown.
        named: what is searched for words: the message with all else that the error says.
    """

    def __init__(self, status: int, message: str, named: str = "") -> None:
        super().__init__(f"HTTP {status}: {message}")
        self.status = status
        self.named = f"{message} {named}"

    @property
    def is_context(self) -> bool:
        """The prompt, or the prompt with its answer, is longer than the model's context."""
        return not self.ends_run and (self.status in (413, 414) or bool(_CONTEXT.search(self.named)))

    @property
    def is_answer_limit(self) -> bool:
        """It names the bound on the answer's tokens, and not the context."""
        return not self.ends_run and bool(_ANSWER_LIMIT.search(self.named)) and not self.is_context

    @property
    def is_cut(self) -> bool:
        """The bound on the answer's tokens was reached before there was an answer (OpenAI's reasoning models)."""
        return self.status == 400 and bool(_CUT.search(self.named))

    @property
    def lacks_template(self) -> bool:
        """The server's model has no chat template (vLLM, SGLang, TGI)."""
        return bool(_NO_TEMPLATE.search(self.named))

    @property
    def is_systematic(self) -> bool:
        """It is about the key, the account, the route or the model, and so about every request."""
        return self.ends_run or self.status in (404, 405) or self.status < 400 or bool(_NO_MODEL.search(self.named))

    @property
    def ends_run(self) -> bool:
        """It is about the key or the account, which only the user can mend."""
        if self.status in _ABOUT_THE_REQUEST:
            return bool(_NO_FUNDS.search(self.named) or _ACCOUNT.search(self.named))
        return 400 <= self.status < 500 and self.status not in (404, 405)


@dataclass(frozen=True)
class _Told:
    """What an error body says: a line to show, all of its words, and a status where it names one."""

    message: str
    named: str
    status: int | None


def failure(status: int, body: object, retry_after: str | None, where: str) -> Fault | Refusal:
    """The typed form of an error that a server answered.

    Args:
        status: of HTTP. Where the body comes with status 200, its own code counts, and else 500.
        body: the JSON value, or a text that is none.
    """
    told = _read(body)
    if status == 200:
        status = told.status or 500
    words, pause = told.named, _seconds(retry_after)
    line = f"{where}: HTTP {status}: {told.message}"
    if status == 429 and _NO_FUNDS.search(words):
        return Refusal(402, told.message, words)
    if status in _BUSY:
        if status == 429 and re.search(r"request too large|tokens must be reduced", words, re.I):
            return Refusal(413, told.message, words)
        return Fault("busy", line, pause)
    if status in _ABOUT_THE_REQUEST and _LATER.search(words) and not _NO_FUNDS.search(words):
        return Fault("busy", line, pause)
    if status in _PASSING or (status >= 500 and not _TEMPLATE.search(words) and not _CONTEXT.search(words)):
        return Fault("server", line, pause)
    return Refusal(status, told.message, words)


def read_error(content: bytes) -> object:
    """The JSON value of an error's body, or its text."""
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return content[:_READ].decode(errors="replace")


def _read(body: object) -> _Told:
    """What an error body says, in the forms of OpenAI, FastAPI, Google, Ollama, Cloudflare and plain text."""
    if isinstance(body, list) and len(body) == 1:
        body = body[0]
    error: Any = body
    if isinstance(body, dict):
        error = body.get("error") or body
        if isinstance(body.get("errors"), list) and body["errors"]:
            error = body["errors"][0]
    if not isinstance(error, dict):
        text = error if isinstance(error, str) else orjson.dumps(error, default=str).decode()
        return _Told(cut(text), text[:_READ], None)
    message = _text(error.get("message") or error.get("Message") or error.get("detail") or error)
    more = error.get("metadata")
    raw = _text(more["raw"]) if isinstance(more, dict) and more.get("raw") else ""
    rest = [raw, *(str(error.get(name) or "") for name in ("param", "type", "code", "status"))]
    code = next((int(c) for c in map(str, (error.get("code"), error.get("status"))) if c.isdecimal()), 0)
    shown = f"{message} ({raw})" if raw else message
    return _Told(cut(shown), " ".join([message, *rest])[:_READ], code if 400 <= code < 600 else None)


def _text(value: object) -> str:
    """A message as text; FastAPI's list of fields without the values, which may be the whole prompt."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(entry, dict) and "msg" in entry for entry in value):
        return "; ".join(f"{entry['msg']}: {'.'.join(map(str, entry.get('loc', ())))}" for entry in value)
    return orjson.dumps(value, default=str).decode()


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After in seconds, given as seconds or as a date."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time()
        except ValueError:
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def cut(text: str) -> str:
    """A server's text on one line, of bounded length, to be shown."""
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
