"""The first requests to a server, which show what it accepts, and the errors for the user if it cannot be used."""

from __future__ import annotations

from harness.client.http.http_client import Client
from harness.client.pool.retry import RetryPolicy
from harness.client.protocol.error_response import Refusal, TransientError
from harness.client.protocol.request import ChatRequest, Request
from harness.client.protocol.token_logprobs import UnusableLogprobs
from harness.core.errors import ServerError


class NoSystemRole(ServerError):
    """A server or a chat template accepts a prompt of the run only without its system message."""


async def send_trial(client: Client, request: Request, probe: Request) -> None:
    """Negotiate the parameters with a request of the run, or with the probe if the server refuses the request.

    Raises:
        NoSystemRole: the server accepts the request only without system messages.
        TransientError, Refusal: as ``Client.send``.
    """
    try:
        await client.negotiate_parameters(request)
        return
    except Refusal as refusal:
        if refusal.is_systematic:
            raise
        reason = str(refusal)
        plain = None if refusal.is_context or not isinstance(request, ChatRequest) else request.without_system()
    if plain is not None and await _is_accepted(client, plain):
        raise NoSystemRole(f"{client.url} takes no system message for {request.model!r} ({reason})")
    # Perhaps the server refuses only this prompt.
    await client.negotiate_parameters(probe)


def startup_error(client: Client, policy: RetryPolicy, error: TransientError | Refusal) -> ServerError:
    """Return the error for the user if a server cannot be used from the beginning."""
    if isinstance(error, UnusableLogprobs):
        return ServerError(f"{client.url}: {error}")
    if isinstance(error, TransientError) and error.kind == "busy":
        return ServerError(f"{client.url} was busy for {policy.wait:g} s (--wait): {error}")
    if isinstance(error, Refusal) and error.is_about_account:
        return ServerError(f"{client.url} refuses this user: {error}")
    if isinstance(error, Refusal) and error.lacks_template:
        return ServerError(
            f"{client.url} has no chat template for its model: start it with one (bench serve MODEL -- "
            f"--chat-template FILE), or use --api completions for an adapter with a template of its own ({error})"
        )
    return ServerError(f"{client.url} is not answering as an OpenAI-compatible server: {error}")


async def _is_accepted(client: Client, request: Request) -> bool:
    """Return whether the server answers a request instead of refusing it."""
    try:
        await client.negotiate_parameters(request)
    except Refusal:
        return False
    return True
