"""The minimal client: a bare aiohttp loop that sends prepared chats and parses the answers.

python -m benchmarks.overhead.bare URL REQUESTS.jsonl IN_FLIGHT [logprobs]
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import aiohttp
import orjson


async def main(url: str, path: Path, in_flight: int, logprobs: bool) -> None:
    """Send every request once."""
    bodies = []
    for line in path.read_bytes().splitlines():
        body = {"model": "canned", "messages": orjson.loads(line)["messages"], "max_tokens": 1000, "temperature": 0}
        bodies.append(orjson.dumps({**body, "logprobs": True} if logprobs else body))
    remaining = iter(bodies)
    texts = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def work() -> None:
            for body in remaining:
                async with session.post(
                    f"{url}/v1/chat/completions", data=body, headers={"Content-Type": "application/json"}
                ) as response:
                    texts.append(orjson.loads(await response.read())["choices"][0]["message"]["content"])

        await asyncio.gather(*(work() for _ in range(in_flight)))
    print(f"{len(texts)} answers")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), "logprobs" in sys.argv))
