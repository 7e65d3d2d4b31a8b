"""Servers whose responses are cut, late, doubled or not HTTP, and servers that never respond."""

from __future__ import annotations

import asyncio
import gzip
from dataclasses import replace
from pathlib import Path

import pytest

from harness.sampling.unmeasured_models import NothingMeasuredError
from tests.faults.matrix import count_cases, mostly_slow
from tests.faults.servers.spoiler import IMPATIENT_POLICY, Spoil, SpoilingProxy, with_content_length
from tests.support.runs.sampling_runs import (
    QUICK_POLICY,
    count_outcomes,
    predictions_without_times,
    run_options,
    run_sampling,
)
from tests.support.servers.chat_answers import mixed_answer
from tests.support.servers.chat_server import ChatServer


async def cut_short(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(with_content_length(head, len(body) // 2) + body)


async def ends_early(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(with_content_length(head, len(body) + 50) + body)
    writer.close()


async def no_length(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(with_content_length(head, -1) + body)


async def half_then_close(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(head + body[: len(body) // 2])
    writer.close()


async def half_then_nothing(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(head + body[: len(body) // 2])
    await writer.drain()
    await asyncio.sleep(60)


async def never(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def trickle(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
    """Send a few bytes at a time: never silent for long, and too slow for the timeout."""
    for start in range(0, len(head + body), 4):
        writer.write((head + body)[start : start + 4])
        await writer.drain()
        await asyncio.sleep(0.05)


async def slowly(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
    """Send in pieces, but within the timeout."""
    for start in range(0, len(head + body), 100):
        writer.write((head + body)[start : start + 100])
        await writer.drain()
        await asyncio.sleep(0.005)


async def twice(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write((head + body) * 2)


async def again_later(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
    """Send the response again when the next request may be waiting, which could take it for its own."""
    writer.write(head + body)
    for _ in range(3):
        await writer.drain()
        await asyncio.sleep(0.002)
        writer.write(head + body)


async def doubled_body(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(with_content_length(head, 2 * len(body)) + body * 2)


async def no_http(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x16\x03\x01 what is this?\r\n\r\n" + body)


async def bad_gzip(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
    packed = bytearray(gzip.compress(body))
    packed[len(packed) // 2] ^= 255
    writer.write(with_content_length(head, len(packed))[:-2] + b"Content-Encoding: gzip\r\n\r\n" + packed)


async def bad_chunks(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
    writer.write(b"\r\n".join([*lines[:-2], b"Transfer-Encoding: chunked", b"", b""]) + b"zz\r\n" + body)


async def nothing_new(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")


SPOILS: dict[str, Spoil] = {
    spoil.__name__: spoil
    for spoil in (
    cut_short, ends_early, no_length, half_then_close, half_then_nothing, never, trickle, slowly, twice, again_later,
    doubled_body, no_http, bad_gzip, bad_chunks, nothing_new,
    )
}  # fmt: skip


@pytest.mark.parametrize("tokens", mostly_slow({"chat": False, "completions": True}, "chat"))
@pytest.mark.parametrize(
    "spoil", mostly_slow(SPOILS, "cut_short", "half_then_close", "twice", "again_later", "no_http")
)
def test_spoiled_bytes(tmp_path: Path, undisturbed: Path, spoil: Spoil, tokens: bool) -> None:
    """Responses whose bytes are cut, late, doubled or not HTTP are retried: the run equals an undisturbed one."""
    with (
        ChatServer(mixed_answer, tokens=tokens) as server,
        SpoilingProxy(server, spoil, every=3 if tokens else 10) as spoiler,
    ):
        assert run_sampling(run_options(spoiler.url, tmp_path / "run", policy=IMPATIENT_POLICY)).finished
    assert predictions_without_times(tmp_path / "run") == predictions_without_times(undisturbed)
    assert spoiler.spoiled
    count_cases(spoiler.spoiled)


@pytest.mark.slow
@pytest.mark.parametrize("spoil", [never, no_http, bad_gzip], ids=lambda spoil: spoil.__name__)
def test_spoiled_for_ever(tmp_path: Path, spoil: Spoil) -> None:
    """A server that spoils every response does not block the run: all predictions end as errors."""
    policy = replace(QUICK_POLICY, retries=1, timeout=0.3, wait=1.0)
    with ChatServer() as server, SpoilingProxy(server, spoil, every=1) as spoiler:
        chosen = run_options(
            spoiler.url, tmp_path / "run", models=("base",), dataset="toy/copy#n=2", n=2, policy=policy
        )
        with pytest.raises(NothingMeasuredError):
            run_sampling(chosen)
    assert count_outcomes(tmp_path / "run") == {"error": 4}
    count_cases(spoiler.spoiled)
