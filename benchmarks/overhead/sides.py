"""The clients that are compared: the files that each needs, and the command that sends the requests."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.common.peers import interpreter
from benchmarks.overhead.server import MODEL
from harness.core.augmentation import sampling_view
from harness.data.spec import open_dataset
from harness.prompts.file_tokenizer import FileTokenizer
from harness.prompts.grid_encoder import DEFAULT_ENCODER, parse_encoder
from harness.prompts.prompt_template import DEFAULT_PROMPT, load_prompt

ROOT = Path(__file__).parent.parent.parent
TINY_BASE = ROOT / "trainers" / "weights" / "tiny-base"
SAMPLES = 32
"""Predictions a task, each under a view of its own."""
LENGTHS = range(1100, 1501)
"""Tokens of the prompts of the tasks that are taken."""
_SYSTEM = "You are a helpful assistant."
_LM_EVAL_TASK = """\
task: overhead
dataset_path: json
dataset_kwargs: {{data_files: {requests}}}
test_split: train
output_type: generate_until
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{target}}}}"
generation_kwargs: {{until: [], max_gen_toks: 1000, temperature: 0}}
metric_list: [{{metric: exact_match}}]
"""
_INSPECT_TASK = """\
import json
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessageSystem, ChatMessageUser
from inspect_ai.scorer import exact
from inspect_ai.solver import generate

KINDS = {{"system": ChatMessageSystem, "user": ChatMessageUser}}


def sample(line):
    row = json.loads(line)
    return Sample(input=[KINDS[m["role"]](content=m["content"]) for m in row["messages"]], target=row["target"])


@task
def overhead():
    with open({requests!r}) as lines:
        return Task(dataset=[sample(line) for line in lines], solver=generate(), scorer=exact())
"""


@dataclass(frozen=True)
class Case:
    """A number of requests that are the same for every side."""

    folder: Path
    requests: int
    in_flight: int

    @property
    def path(self) -> Path:
        """Return the file of the requests as chats, one per line."""
        return self.folder / f"requests-{self.requests}.jsonl"

    @property
    def ids(self) -> Path:
        """Return the ids of their tasks."""
        return self.folder / f"tasks-{self.requests}.txt"

    def prepare(self) -> float:
        """Write the files, and return the mean number of tokens per prompt."""
        self.folder.mkdir(parents=True, exist_ok=True)
        dataset, prompt, encoder = (
            open_dataset("arc1/training"),
            load_prompt(DEFAULT_PROMPT),
            parse_encoder(DEFAULT_ENCODER),
        )
        tokenizer = FileTokenizer(TINY_BASE)
        ids: list[str] = []
        lengths: list[int] = []
        with self.path.open("w", encoding="utf-8") as file:
            for task in map(dataset.task, range(len(dataset.ids))):
                if len(task.test) > 1 or len(ids) * SAMPLES >= self.requests:
                    continue
                chats = []
                for k in range(SAMPLES):
                    view = sampling_view(0, task.id, k, len(task.train)).apply_task(task)
                    chats.append([{"role": m.role, "content": m.content} for m in prompt.messages(view, 0, encoder)])
                text = tokenizer.apply_chat_template(chats[0], tokenize=False, add_generation_prompt=True)
                length = len(tokenizer.encode(text, add_special_tokens=False))
                if length not in LENGTHS:
                    continue
                ids.append(task.id)
                lengths.append(length)
                for chat in chats:
                    file.write(json.dumps({"messages": chat, "prompt": chat[-1]["content"], "target": "grid"}) + "\n")
        if len(ids) * SAMPLES != self.requests:
            raise SystemExit(f"there are {len(ids) * SAMPLES} requests, in steps of {SAMPLES}, and not {self.requests}")
        self.ids.write_text("\n".join(ids) + "\n", encoding="utf-8")
        return sum(lengths) / len(lengths)


@dataclass(frozen=True)
class Launch:
    """Command and environment of a side."""

    argv: list[str]
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)


def launch(side: str, url: str, case: Case, peers: Path, out: Path) -> Launch:
    """Return how to send the requests of a case with a side, which may write to ``out``."""
    if side.startswith("bench run"):
        api = "chat" if side == "bench run" else "completions"
        words = [sys.executable, "-m", "harness.cli", "run", "--server", url, "--model", MODEL, "--api", api]
        words += ["--dataset", f"arc1/training#ids={case.ids}", "-n", str(SAMPLES), "--max-tokens", "1000"]
        return Launch([*words, "--max-in-flight", str(case.in_flight), "--out", str(out)], ROOT)
    if side.startswith("bare"):
        words = [sys.executable, "-m", "benchmarks.overhead.bare", url, str(case.path), str(case.in_flight)]
        return Launch(words + (["logprobs"] if "log" in side else []), ROOT)
    python = str(interpreter(peers, side))
    out.mkdir(parents=True)
    if side == "lm-eval":
        (out / "overhead.yaml").write_text(_LM_EVAL_TASK.format(requests=case.path), encoding="utf-8")
        model = f"model={MODEL},base_url={url}/v1/chat/completions,num_concurrent={case.in_flight}"
        words = [python, "-m", "lm_eval", "run", "--model", "local-chat-completions"]
        words += ["--model_args", f"{model},tokenized_requests=False", "--tasks", "overhead", "--include_path", "."]
        words += ["--apply_chat_template", "--system_instruction", _SYSTEM, "--log_samples", "--output_path", "."]
        return Launch(words, out, {"HF_DATASETS_CACHE": str(out / "cache"), "HF_HUB_OFFLINE": "1"})
    (out / "overhead.py").write_text(_INSPECT_TASK.format(requests=str(case.path)), encoding="utf-8")
    words = [python, "-m", "inspect_ai", "eval", "overhead.py", "--model", f"openai-api/local/{MODEL}"]
    words += ["--max-connections", str(case.in_flight), "--max-samples", str(case.in_flight), "--temperature", "0"]
    words += ["--max-tokens", "1000", "--log-dir", ".", "--display", "none"]
    return Launch(words, out, {"LOCAL_API_KEY": "none", "LOCAL_BASE_URL": f"{url}/v1"})
