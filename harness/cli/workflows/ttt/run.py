"""Run test-time training: train every task and bench its adapter, in the order that the schedule says."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from time import monotonic

from harness.cli.workflows.cluster.options import Placement
from harness.cli.workflows.ttt.answering.answerer import Answerer, TaskDisplay
from harness.cli.workflows.ttt.answering.rescoring import (
    RescoringCutError,
    check_rescored_adapters,
    rescore_tasks,
    unrescored_tasks,
)
from harness.cli.workflows.ttt.answering.servers import (
    AdapterSite,
    loss_is_cut,
    say,
    servers_can_sleep,
    with_own_server,
)
from harness.cli.workflows.ttt.cutting import Missing, record_missing
from harness.cli.workflows.ttt.estimate import RunEstimate
from harness.cli.workflows.ttt.job import Schedule, TttJob, TttOptions
from harness.cli.workflows.ttt.machines import gpu_is_here
from harness.cli.workflows.ttt.resuming import check_resumed, forget_partial_answers, redo_tasks
from harness.cli.workflows.ttt.training.groups import collect_groups, train_on_cluster
from harness.cli.workflows.ttt.training.trainer import TrainerProcess
from harness.cli.workflows.ttt.training.training_order import (
    TaskTraining,
    Trained,
    TrainedAlready,
    TrainedBefore,
    TrainedInBlocks,
    TrainedMeanwhile,
)
from harness.core.errors import ConfigError, DeadlineError
from harness.core.grid import Task
from harness.runs.environment import now
from harness.runs.folder import TTT_LOCK
from harness.runs.schemas.task_training import Protocol
from trainers.ttt.protocol import ReplyLine, StepLine, remove_adapter, write_recipe

_STEP_SECONDS = 30.0
"""Between two lines about the steps of one task."""


def run_ttt(job: TttJob, estimate: RunEstimate) -> Missing | None:
    """Train and answer every task that is not answered. A kill loses the task in work at most; a resume completes it.

    Returns:
        What the deadline left out, which the run's files then record; None if the run is complete.

    Raises:
        Interrupted: the user ended it. ArcBenchError: something failed; the message says what.
    """
    job.folder.check_free(job.options.sampling.resume, in_parts=True)
    _check_space(job, estimate)
    with job.folder.locked(TTT_LOCK):
        check_resumed(job)
        protocol = job.write_plan(say)  # first: a folder with a plan can be resumed
        write_recipe(job.out, job.options.recipe)
        collect_groups(job.out)
        redo_tasks(job, job.options.again)
        forget_partial_answers(job)
        views = job.options.rescore
        tasks = job.pending()
        unrescored = [] if views is None else unrescored_tasks(job, views)
        answered = [task for task in job.tasks if task.id in job.log.records()] if views and tasks else unrescored
        check_rescored_adapters(job, answered)
        try:
            if tasks or unrescored:
                _Session(job, protocol, now()).run(tasks)
        except DeadlineError as error:
            say(str(error))
            failed = error.failed if isinstance(error, RescoringCutError) else 0
            return record_missing(job, failed)  # adapters that are to be discarded may have to rescore
        _remove_discarded(job)
        return None


@dataclass
class _Session:
    """One call of the command.

    Args:
        began: date and time of its start.
    """

    job: TttJob
    protocol: Protocol
    began: str
    n_trained: int = 0
    last_line: float = 0.0

    def run(self, tasks: list[Task]) -> None:
        """Train and answer tasks as the schedule says."""
        job = self.job
        schedule = job.options.schedule or default_schedule(job)
        if job.options.placement is not None or schedule == "train-first":
            _note_training_time(job.options)
        if job.options.placement is not None:
            trained_there = self._train_on_cluster(job.options.placement, tasks)
            self._serve(lambda site: trained_there, own_gpu_sleep=False)
            return
        with ExitStack() as stack:
            trainer = TrainerProcess(job.out, job.out / "trainer.log", self._show_step, say)
            stack.callback(trainer.close)
            training = TaskTraining(job, trainer)
            if schedule == "train-first":
                trained: Trained = TrainedBefore(training, tasks, self._show_reply)
                trainer.close()  # its memory and cores are the server's now
                self._serve(lambda site: trained, own_gpu_sleep=False)
            elif gpu_is_here() and servers_can_sleep(job.options.servers):
                blocks = TrainedInBlocks(training, tasks, self._show_reply)
                self._serve(blocks.on_site, own_gpu_sleep=True, before_restart=trainer.close)
            else:
                meanwhile = TrainedMeanwhile(training, tasks, self._show_reply)
                self._serve(lambda site: meanwhile, own_gpu_sleep=False)

    def _train_on_cluster(self, placement: Placement, tasks: list[Task]) -> TrainedAlready:
        """Train all tasks on a cluster."""
        replies = train_on_cluster(self.job, placement, tasks, self._show_reply)
        return TrainedAlready((task, replies[task.id]) for task in tasks)

    def _serve(
        self,
        source: Callable[[AdapterSite], Trained],
        *,
        own_gpu_sleep: bool,
        before_restart: Callable[[], None] = lambda: None,
    ) -> None:
        """Answer all tasks with the given servers, or with our own.

        Args:
            own_gpu_sleep: our own server gets vLLM's option for its sleep mode.
            before_restart: frees memory that our own server needs when it is started again.
        """
        job, options = self.job, self.job.options
        display = TaskDisplay()

        def answer_all(site: AdapterSite) -> None:
            answerer = Answerer(job, site, self.protocol, display, self.began, owned=not options.servers)
            trained = source(site)
            while (current := trained.current()) is not None:
                record = answerer.answer(*current)
                trained.advance()
                by = "its adapter" if record.own_adapter else record.answered_by
                say(f"answered {record.task_id} by {by} in {record.sample_seconds:.1f} s")
            if options.rescore is not None:
                rescore_tasks(answerer, options.rescore)

        if options.servers:
            with loss_is_cut(options.deadline):
                answer_all(AdapterSite(options.servers, job.registry, job.base_model))
            return
        extra = ["--enable-sleep-mode"] if own_gpu_sleep else []
        with_own_server(answer_all, lambda: len(job.log.records()), job, extra, before_restart)

    def _show_step(self, step: StepLine) -> None:
        """Show a training step, at most one per half a minute."""
        now = monotonic()
        if now - self.last_line >= _STEP_SECONDS:
            self.last_line = now
            loss = "not finite" if step.loss is None else f"{step.loss:.3f}"
            say(f"training {step.task_id}: step {step.step} of {self.job.options.recipe.max_steps}, loss {loss}")

    def _show_reply(self, task: Task, reply: ReplyLine) -> None:
        """Show the end of a task's training."""
        self.n_trained += 1
        self.last_line = monotonic()
        why = f" ({reply.reason})" if reply.reason else ""
        name = reply.outcome.replace("_", " ")
        say(f"{name} {self.n_trained}: {task.id}, {reply.steps} steps in {reply.seconds:.1f} s{why}")


def _note_training_time(options: TttOptions) -> None:
    """Say that trainings may leave no time for answers, where all of them come first."""
    if options.deadline is not None and options.training_deadline is None:
        say("note: all tasks are trained before the first is answered; --training-deadline leaves time for answers")


def default_schedule(job: TttJob) -> Schedule:
    """Return the schedule that is used where none is chosen (docs/test-time-training.md has the measurement)."""
    return "resident" if job.options.servers or not gpu_is_here() else "train-first"


def _check_space(job: TttJob, estimate: RunEstimate) -> None:
    """Make sure that the disk has room for the adapters.

    Raises:
        ConfigError: it has not.
    """
    place = next(path for path in (job.out, *job.out.resolve().parents) if path.exists())
    free = shutil.disk_usage(place).free
    if estimate.disk_bytes > free:
        raise ConfigError(
            f"the adapters need {estimate.disk_bytes / 1e9:.1f} GB, and {place} has {free / 1e9:.1f} GB left; use "
            "--schedule resident with --discard-adapters, a smaller lora.rank, or another --out"
        )


def _remove_discarded(job: TttJob) -> None:
    """Delete the adapters of tasks that are answered and keep only a digest; a kill may have left them."""
    if job.options.discard:
        answered = job.log.records()
        for task in job.tasks:
            if task.id in answered:
                remove_adapter(job.out, task.id)
