"""Servers that crash at a prompt, hang, or ask for pauses; and what a killed session has recorded."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from time import monotonic

import orjson
import pytest

from harness.client.http import http_client as client_module
from harness.core.errors import RunError
from harness.runs.folder import RunFolder
from tests.support.commands import wait_until
from tests.support.runs.sampling_runs import PATIENT_POLICY, QUICK_POLICY, count_outcomes, run_options, run_sampling
from tests.support.servers.chat_answers import Body, echo, mixed_answer
from tests.support.servers.chat_server import ChatServer


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [False, True], ids=["chat", "completions"])
def test_only_the_prompt_that_crashes_its_server_is_given_up(tmp_path: Path, tokens: bool) -> None:
    """A prompt that crashes its server at every try is given up, and no other prediction is lost."""
    dead, over = threading.Event(), threading.Event()
    poison: list[object] = []
    deaths = []

    def answer(body: Body) -> str:
        poison.extend([] if poison else [body["messages"]])
        if body["messages"] == poison[0]:
            deaths.append(body)
            runner, server._runner = server._runner, None
            assert runner is not None
            for connection in list(runner.server.connections):  # type: ignore[union-attr]
                connection.transport.abort()  # type: ignore[union-attr]
            asyncio.get_running_loop().create_task(runner.cleanup()).add_done_callback(lambda _: dead.set())
        return echo(body)

    def supervise() -> None:
        while not over.is_set():
            if dead.wait(0.01):
                dead.clear()
                over.wait(0.5)  # as long as a server takes to start, and more than it takes to see that it is away
                server.start()

    with ChatServer(answer, tokens=tokens) as server:
        supervisor = threading.Thread(target=supervise)
        supervisor.start()
        run_sampling(run_options(server, tmp_path / "run", models=("base",), policy=replace(PATIENT_POLICY, wait=20.0)))
        over.set()
        supervisor.join()
    assert count_outcomes(tmp_path / "run") == {"grid": 19, "error": 1}
    assert len(deaths) <= 12


def test_the_work_of_a_hanging_server_is_given_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that accepts requests and never answers loses its work to the others, without an error."""
    monkeypatch.setattr(client_module, "_LOOK_SECONDS", 0.5)
    with ChatServer(mixed_answer) as hung, ChatServer(mixed_answer) as other:
        hung.hangs = True
        policy = replace(QUICK_POLICY, timeout=1.0, retries=100, wait=30.0)
        start = monotonic()
        run_sampling(run_options(hung, tmp_path / "run", servers=(hung.url, other.url), policy=policy))
        assert monotonic() - start < 50  # all attempts at the hanging server would take 100 s
    assert count_outcomes(tmp_path / "run")["error"] == 0


def test_the_work_of_a_busy_server_is_given_to_others(tmp_path: Path) -> None:
    """A server that answers every request with Retry-After leaves its work to the others."""

    def refuse(body: Body) -> tuple[int, Body] | None:
        return None if body.get("max_tokens") == 1 else (429, {"error": "later"})

    with ChatServer(refuse=refuse, headers={"Retry-After": "20"}) as busy, ChatServer() as free:
        start = monotonic()
        policy = replace(QUICK_POLICY, wait=30.0)
        assert run_sampling(run_options(busy, tmp_path / "run", servers=(busy.url, free.url), policy=policy)).finished
    assert monotonic() - start < 15
    assert count_outcomes(tmp_path / "run") == {"grid": 40}


def test_another_adapter_version_after_a_crash_is_a_warning_of_the_run(tmp_path: Path) -> None:
    """A server that dies during a session and comes back with another adapter version is named in the warnings of
    the run.
    """
    with ChatServer(mixed_answer, seconds=0.05) as server:
        server.answered_as = lambda body: "base@0"
        chosen = run_options(
            server, tmp_path / "run", models=("base",), policy=replace(QUICK_POLICY, max_in_flight=1, wait=1.0)
        )
        killer = threading.Thread(target=lambda: (wait_until(lambda: len(server.bodies) > 5), server.stop()))
        killer.start()
        with pytest.raises(RunError, match="no server answered"):
            run_sampling(chosen)
        killer.join()
        assert RunFolder(tmp_path / "run").manifest().answered_as == {"base": ["base@0"]}
        server.answered_as = lambda body: "base@1"
        server.start()
        run_sampling(replace(chosen, resume=True))
    assert any("base@0 and base@1" in warning for warning in RunFolder(tmp_path / "run").manifest().warnings)


def test_versions_and_the_base_of_an_adapter_are_recorded_and_old_manifests_load(tmp_path: Path) -> None:
    """A manifest without the fields of later versions is read."""
    models: dict[str, Body] = {"base": {"root": "some/base"}, "cross": {"parent": "base"}}
    with ChatServer(models=models) as server:
        server.version = "1.2.3"
        run_sampling(run_options(server, tmp_path / "run", models=("cross",)))
    folder = RunFolder(tmp_path / "run")
    manifest = folder.manifest()
    assert manifest.server_versions == {server.url: "1.2.3"}
    assert [(m.name, m.root) for m in manifest.served] == [("cross", None), ("base", "some/base")]
    old = orjson.loads(folder.manifest_path.read_bytes())
    for later in ("server_versions", "predictions_sha256", "checksum"):
        del old[later]
    folder.manifest_path.write_bytes(orjson.dumps(old))
    assert folder.manifest().server_versions == {}
