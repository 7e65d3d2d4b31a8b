"""What the machine and the servers of a run of test-time training can do, checked before hours of training."""

from __future__ import annotations

import os

from harness.cli.workflows.ttt.answering.rescoring import unrescored_tasks
from harness.cli.workflows.ttt.job import TttJob
from harness.core.errors import ConfigError, MissingExtraError, ServerError
from harness.core.gpus import list_gpus, visible_gpus
from serve.client import admin
from serve.launch.machine import detect_machine
from trainers.model.lora import targets_head


def check_servers(job: TttJob) -> None:
    """Check that the given servers, or one of our own beside the trainer, can do what is left of a run.

    Raises:
        AdapterError, MissingExtraError, ServerError: vLLM is not installed or does not fit the machine, or a server
            cannot be reached.
        ConfigError: our server would take nearly all of the GPU on which the trainer is, or a server cannot rescore
            with the adapters that are to be trained.
    """
    options = job.options
    if not (options.again or job.pending() or (options.rescore and unrescored_tasks(job, options.rescore))):
        return
    on_gpu = not options.servers and detect_machine().device == "cuda"
    if options.schedule == "resident" and options.gpu_memory is None and on_gpu:
        raise ConfigError(
            "--schedule resident has server and trainer on one GPU: give the server its share with --gpu-memory, e.g. "
            "0.5, which leaves the rest to the trainer's weights and both programs, or use --schedule train-first"
        )
    lora = options.recipe.lora
    if options.rescore and lora is not None and targets_head(lora):
        unable = ["a GPU"] if on_gpu else [url for url in options.servers if not _scores_output_layer(url)]
        if unable:
            raise ConfigError(
                f"--rescore: the recipe trains the output layer (lm_head in lora.targets), with which vLLM's "
                f"log-probabilities of prompts are wrong on {unable[0]}; leave out lm_head, or --rescore"
            )


def _scores_output_layer(url: str) -> bool:
    return bool(admin.list_adapters(url).get("scores_output_layer", False))


def gpu_is_here() -> bool:
    """Return whether this machine serves on a GPU: whether the CUDA build of vLLM is installed, and usable."""
    try:
        return detect_machine().device == "cuda"
    except (MissingExtraError, ServerError):  # vLLM or its GPU is elsewhere, where the given servers are
        return False


def trainer_is_on_gpu() -> bool:
    """Return whether training may compute on a GPU: whether the machine shows one, whatever vLLM is installed here."""
    gpus = list_gpus() or []
    return bool(gpus) and visible_gpus(gpus, os.environ) != []
