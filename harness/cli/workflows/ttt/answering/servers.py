"""The servers of a run of test-time training: adapters are registered, loaded while they answer, and removed again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import click

from harness.cli.workflows.ttt.job import TttJob
from harness.core.deadline import Deadline, check_time
from harness.core.errors import AdapterError, ArcBenchError, DeadlineError, ServerError
from serve.client import admin
from serve.launch.process import START_SECONDS, ServerDiedError, serving
from serve.registry.base_model import BaseModel
from serve.registry.leases import file_lock
from serve.registry.store import Registry

_LOCK = ".ttt.lock"
"""File in a registry that a run of test-time training holds while an adapter of it is loaded."""
_RESTARTS = 3
"""How often our own server is started again without a task answered in between."""


@dataclass(frozen=True)
class AdapterSite:
    """Running servers and the registry from which they load adapters.

    Args:
        urls: addresses of the servers.
        registry: its folder.
        base: the base model, against which adapters are validated; its weights are read once.
    """

    urls: tuple[str, ...]
    registry: Path
    base: BaseModel

    @contextmanager
    def loaded(self, name: str, folder: Path) -> Iterator[str]:
        """Register an adapter and load it on every server while the block runs; yield its version ``NAME@VERSION``.

        Runs that share a registry take turns, because they may have the same version. No name's live version changes.
        Afterwards the version is unloaded, and removed from the registry, unless it is the live one of its name, which
        the user made so.

        Raises:
            AdapterError, ServerError: it cannot be served, or a server cannot be reached.
        """
        self.registry.mkdir(parents=True, exist_ok=True)
        with file_lock(self.registry / _LOCK), self._loaded(name, folder) as version:
            yield version

    @contextmanager
    def _loaded(self, name: str, folder: Path) -> Iterator[str]:
        """Do what ``loaded`` says, but for taking turns."""
        registry = Registry(self.registry)
        added = registry.add(name, folder, self.base)
        version, of_user = added.id, registry.live(name).version == added.version
        try:
            for url in self.urls:
                admin.stage(url, version)
            yield version
        except BaseException:
            with suppress(ArcBenchError):  # the first error is reported; a server that died has nothing to unload
                if not of_user:
                    self._remove(version)
            raise
        if not of_user:
            self._remove(version)

    def base_name(self) -> str:
        """Return the name of the base model on the servers.

        Raises:
            ServerError: a server cannot be reached.
        """
        return str(admin.list_adapters(self.urls[0])["base"])

    def sleep(self) -> None:
        """Make every server free its GPU memory until ``wake``."""
        for url in self.urls:
            admin.sleep(url)

    def wake(self) -> None:
        """Make every server compute again."""
        failed: ArcBenchError | None = None
        for url in self.urls:
            try:
                admin.wake(url)
            except ArcBenchError as error:  # the others are woken all the same
                failed = failed or error
        if failed is not None:
            raise failed

    def _remove(self, version: str) -> None:
        """Unload a version on every server, and remove it from the registry."""
        for url in self.urls:
            with suppress(AdapterError):  # it was never loaded there
                admin.unload(url, version)
        Registry(self.registry).remove(version)


def servers_can_sleep(urls: Sequence[str]) -> bool:
    """Return whether all servers were started with vLLM's sleep mode; True for none.

    Raises:
        AdapterError, ServerError: a server cannot be reached, or has no adapters.
    """
    return all(admin.list_adapters(url).get("can_sleep", False) for url in urls)


@contextmanager
def loss_is_cut(deadline: Deadline | None) -> Iterator[None]:
    """Say of a server that fails after the deadline that the deadline passed: nothing more would have been asked of it.

    Raises:
        DeadlineError: instead of a ServerError after the deadline.
    """
    try:
        yield
    except ServerError as error:
        if isinstance(error.__cause__, DeadlineError):  # ``serving`` puts the server's end before the block's error
            raise error.__cause__ from None
        if deadline is None or deadline.seconds_left > 0:
            raise
        raise DeadlineError(f"the deadline (--deadline) passed: {str(error).splitlines()[0]}") from error


def with_own_server(
    run: Callable[[AdapterSite], None],
    progress: Callable[[], int],
    job: TttJob,
    extra: Sequence[str] = (),
    before_restart: Callable[[], None] = lambda: None,
) -> None:
    """Start a server, call ``run`` with it, and stop it; a server that dies is started again, and ``run`` called again.

    Args:
        run: resumes when it is called again after a restart.
        progress: counts what is done; a server that dies again and again without progress is given up.
        extra: further vLLM options.
        before_restart: frees what the server needs.

    Raises:
        DeadlineError: the run's deadline passed before ``run`` had ended. ServerError: the server does not start, or
            dies again and again.
    """
    deadline = job.options.deadline
    registry, options, lora = job.registry, job.options, job.options.recipe.lora
    assert lora is not None
    rank = max((lora.rank, *lora.rank_pattern.values()))
    memory = {} if options.gpu_memory is None else {"gpu_memory": options.gpu_memory}
    shutil.rmtree(registry, ignore_errors=True)  # what an interrupted run left; no server runs on it
    deaths, done = 0, progress()
    while True:
        served: list[str] = []
        check_time(deadline, "the server was started")
        try:
            with loss_is_cut(deadline), serving(
                job.base, registry, log=job.out / "server.log", port=options.port, progress=say, dtype=options.dtype,
                max_lora_rank=rank, extra=(*options.serve_extra, *extra), **memory,
                ready_seconds=START_SECONDS if deadline is None else min(START_SECONDS, deadline.seconds_left),
            ) as server:  # fmt: skip
                served.append(server.url)
                say(f"serving at {server.url}")
                run(AdapterSite((server.url,), registry, job.base_model))
                return
        except ServerDiedError as error:
            deaths = 1 if progress() > done else deaths + 1
            done = progress()
            if not served or deaths > _RESTARTS:
                raise
            say(f"the server is started again: {str(error).splitlines()[0]}")
            shutil.rmtree(registry, ignore_errors=True)
            before_restart()


def say(text: str) -> None:
    """Show a line about the progress of the run."""
    click.echo(text, err=True)
