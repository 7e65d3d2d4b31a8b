"""What the user is warned of about chat templates: reasoning, dates, and how answers end."""

from __future__ import annotations

from harness.prompts.assistant_turn import AssistantTurn
from harness.runs.schemas.manifest_schema import ModelConfig, RunConfig
from harness.sampling.plan import Plan
from harness.sampling.requests.local_tokenizer import LocalTokenizers, find_turn, takes_date


def template_warnings(local: LocalTokenizers, plan: Plan, config: RunConfig, *, chats: bool) -> list[str]:
    """Return a warning for each model whose chat template makes it reason first or writes the current date.

    Args:
        chats: whether the user requested chat completions.
    """
    lines = []
    served = local.served()
    for model in config.models:
        tokenizer = local.tokenizers[plan.formats[model.name]]
        trained = served[model.name].prompt is not None
        lines += _reasoning_warnings(model, find_turn(tokenizer), trained=trained)
        if model.template_date is None:
            continue
        if chats and not takes_date(tokenizer, plan.sample(0).task):
            lines.append(
                f"the chat template of {model.name} writes the server's own date and cannot be told another in a "
                "chat: predictions of other days are asked with another prompt; --api completions fixes it"
            )
        elif served[model.name].template_date is None:
            lines.append(
                f"the chat template of {model.name} writes the date: {model.template_date} throughout this run"
            )
    return lines


def stop_warnings(local: LocalTokenizers, plan: Plan, config: RunConfig) -> list[str]:
    """Return a warning for each token that ends answers and is not an eos token of the base; models are grouped."""
    lines: dict[str, list[str]] = {}
    known = ", ".join(map(str, sorted(local.eos_ids))) or "none"
    for model in config.models:
        turn = local.unstopped_turn(plan, config, model)
        if turn is not None:
            end, end_id = turn.answer_suffix.strip(), turn.end_token_id
            line = (
                f"an answer ends with {end!r} (token {end_id}), which is not among the eos tokens of the model's "
                f"own files ({known}), and servers are not asked to stop there: if answers are truncated, begin a "
                f"run with --extra-body '{{\"stop_token_ids\": [{end_id}]}}'"
            )
        elif ends := [id_ for id_ in model.stop_token_ids or () if id_ not in local.eos_ids]:
            line = (
                f"an answer ends with token {' or '.join(map(str, ends))}, which is not among the eos tokens of "
                f"the model's own files ({known}): servers are asked to stop there (stop_token_ids)"
            )
        else:
            continue
        lines.setdefault(line, []).append(model.name)
    return [f"{', '.join(names)}: {line}" for line, names in lines.items()]


def _reasoning_warnings(model: ModelConfig, turn: AssistantTurn | None, *, trained: bool) -> list[str]:
    """Return a warning if a model's template makes it reason before it answers; trained adapters answer at once."""
    if turn is None or trained or not (turn.opens_thought or turn.learns_thought):
        return []
    how = "opens a thought (<think>) before every answer" if turn.opens_thought else "lets the model think (<think>)"
    return [
        f"the chat template of {model.name} {how}: what is not trained to answer at once needs more than the "
        f"{model.max_tokens} tokens of an answer (--max-tokens), or is told not to think where the template can "
        "(--chat-template-kwargs '{\"enable_thinking\": false}')"
    ]
