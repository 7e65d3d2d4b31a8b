"""The workload of ``--search dfs``: enumerate the answers of every view, with the branches of many views in flight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Literal

from harness.candidates.enumeration import AnswerSearch, Branch, EnumeratedAnswer
from harness.client.pool.retry import Job
from harness.client.protocol.request import Request
from harness.client.protocol.response import Reply
from harness.runs.logs.prediction_reader import MASS_TOLERANCE, total_mass
from harness.runs.logs.view_block import ViewAnswer, ViewResult
from harness.runs.schemas.manifest_schema import RunConfig
from harness.runs.schemas.prediction_schema import Outcome
from harness.runs.schemas.view_schema import SearchConfig, ViewOutcome
from harness.sampling.plan import Plan, Sample
from harness.sampling.progress_display import ProgressBoard
from harness.sampling.requests.request_builder import RequestBuilder
from harness.sampling.workloads.view_recording import ViewRecorder


@dataclass(slots=True)
class _OpenView:
    """A view whose answers are being enumerated."""

    sample: Sample
    prompt: list[int]
    search: AnswerSearch
    in_flight: int = 0
    """Branches that were requested and are not answered."""
    requests: int = 0
    n_tokens: int = 0
    seconds: float = 0.0

    def result(
        self, outcome: ViewOutcome, answers: Sequence[ViewAnswer] = (), greedy: int | ViewAnswer | None = None
    ) -> ViewResult:
        """Return what became of the view; only an enumerated one has answers."""
        search, is_enumerated = self.search, outcome == "enumerated"
        return ViewResult(
            outcome,
            answers,
            greedy,
            search.unexplored_mass() if is_enumerated else 1.0,
            search.n_truncated if is_enumerated else 0,
            search.n_dropped if is_enumerated else 0,
            self.requests,
            self.n_tokens,
            self.seconds,
        )


class EnumeratedViews:
    """Requests the branches of the views that have no closing record.

    The answers to a request give further branches of its views, which are requested before other views are begun. A
    prompt's number is that of its branch in this session.
    """

    def __init__(
        self, plan: Plan, config: RunConfig, search: SearchConfig, builder: RequestBuilder, recorder: ViewRecorder
    ) -> None:
        self._plan, self._builder, self._recorder = plan, builder, recorder
        self._search = search
        self._limits: Mapping[str, int] = {model.name: model.max_tokens for model in config.models}
        self._size = 1
        self._numbers = count()
        self._branches: dict[int, tuple[_OpenView, Branch]] = {}
        """By number, the branches that were requested and are not answered."""
        self._open: set[int] = set()
        """Numbers of the samples whose views are open; a view that failed is not, though branches may be in flight."""

    @property
    def board(self) -> ProgressBoard:
        """The counts of each model, for the display."""
        return self._recorder.board

    def prompts_per_request(self, max_in_flight: int) -> int:
        """Return how many branches may share a request."""
        return self._builder.prompts_per_request(max_in_flight)

    def jobs(self, models_at_once: int, size: int) -> Iterator[Job[Request] | None]:
        """Yield a job with the first branch of every view that is not done, in the order of the plan."""
        self._size = size
        for block in self._plan.blocks(models_at_once, size):
            views = [self._begin(number) for number in block if not self._recorder.done[number]]
            yield from self._make_jobs([pair for view in views for pair in self._next_branches(view)])

    def record_replies(self, replies: Sequence[tuple[int, Reply | None]]) -> list[Job[Request]]:
        """Add completions to their views, record the views that are complete, and return jobs for further branches."""
        branches: list[tuple[_OpenView, Branch]] = []
        for number, reply in replies:
            view, branch = self._branches.pop(number)
            view.in_flight -= 1
            if view.sample.number not in self._open:
                continue
            if reply is None and not branch.tokens:
                self._finish(view, view.result("too_long"))
                continue
            self._add_completion(view, branch, reply)
            branches += self._next_branches(view)
            if view.search.complete:
                self._finish(view, self._result(view))
        return list(self._make_jobs(branches))

    def record_failure(self, numbers: Sequence[int], outcome: Outcome, reason: str) -> None:
        """Record that the views of a job's branches failed; their other branches no longer count."""
        failure: Literal["refused", "error"] = "refused" if outcome == "refused" else "error"
        for number in numbers:
            view, _ = self._branches.pop(number)
            if view.sample.number in self._open:
                self._recorder.show_failure(view.sample.model, failure, reason)
                self._finish(view, view.result(failure))

    def commit(self) -> None:
        """Make all recorded views durable; may be called in another thread."""
        self._recorder.commit()

    def _begin(self, number: int) -> _OpenView:
        """Open a view."""
        sample = self._plan.sample(number)
        prompt, stop_ids = self._builder.prompt_ids(sample), self._builder.stop_ids(sample.model)
        self._open.add(number)
        search = AnswerSearch(
            self._search.min_prob,
            frozenset(stop_ids),
            self._search.max_answers,
            keep_greedy=bool(self._search.keep_greedy),
        )
        return _OpenView(sample, prompt, search)

    def _add_completion(self, view: _OpenView, branch: Branch, reply: Reply | None) -> None:
        """Add a completion to a view's search; None stands for a branch that fills the context."""
        positions = () if reply is None else reply.positions
        if reply is not None:
            self._recorder.note_reply(view.sample, reply)
            view.requests += 1
            view.n_tokens += len(positions)
            view.seconds += reply.seconds
        # Branches that share a request have one limit: that of the shortest.
        view.search.add_completion(branch, positions[: self._limits[view.sample.model] - len(branch.tokens)])

    def _next_branches(self, view: _OpenView) -> list[tuple[_OpenView, Branch]]:
        """Return the branches of a view to request now; with ``max_answers``, no more at once than answers are kept.

        A branch that is as long as an answer may be is not requested: it is truncated.
        """
        branches: list[tuple[_OpenView, Branch]] = []
        most = self._search.max_answers
        while most is None or view.in_flight < most:
            branch = view.search.next_branch()
            if branch is None:
                break
            if len(branch.tokens) >= self._limits[view.sample.model]:
                view.search.add_completion(branch, ())
                continue
            view.in_flight += 1
            branches.append((view, branch))
        return branches

    def _make_jobs(self, branches: Sequence[tuple[_OpenView, Branch]]) -> Iterator[Job[Request]]:
        """Yield jobs for branches of one model."""
        for start in range(0, len(branches), self._size):
            part = branches[start : start + self._size]
            numbers = tuple(next(self._numbers) for _ in part)
            self._branches.update(zip(numbers, part, strict=True))
            model = part[0][0].sample.model
            shortest = min(len(branch.tokens) for _, branch in part)
            prompts = [[*view.prompt, *branch.tokens] for view, branch in part]
            yield Job(numbers, self._builder.branch_request(model, prompts, self._limits[model] - shortest))

    def _finish(self, view: _OpenView, result: ViewResult) -> None:
        """Record a view."""
        self._open.remove(view.sample.number)
        self._recorder.record_view(view.sample, result)

    def _result(self, view: _OpenView) -> ViewResult:
        """Return the answers of a view whose search is complete."""
        search, answers = view.search, view.search.answers()
        mass = total_mass(answer.logprob for answer in answers)
        if mass > 1 + MASS_TOLERANCE * max(1, len(answers)):
            reason = f"the probabilities of a view's answers add up to {mass:.7g}: the log-probabilities contradict"
            self._recorder.show_failure(view.sample.model, "error", f"{reason} each other")
            return view.result("error")
        decoded = tuple(self._decode(view, answer) for answer in answers)
        greedy: int | ViewAnswer | None = None
        if search.greedy is not None:
            tokens = [answer.tokens for answer in answers]
            in_answers = search.greedy.tokens in tokens
            greedy = tokens.index(search.greedy.tokens) if in_answers else self._decode(view, search.greedy)
        return view.result("enumerated", decoded, greedy)

    def _decode(self, view: _OpenView, answer: EnumeratedAnswer) -> ViewAnswer:
        """Return an answer as text and grid."""
        model = view.sample.model
        text = self._builder.answer_text(model, view.prompt, answer.tokens)
        outcome, grid = self._plan.formats[model].parse_answer(text, view.sample)
        return ViewAnswer(outcome, grid, text, answer.logprob, len(answer.tokens) + 1)
