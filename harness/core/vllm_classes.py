"""Which classes of vLLM 0.32 take LoRA on embeddings and output layer: those with ``embedding_modules``."""

from __future__ import annotations

from collections.abc import Collection

EMBEDDINGS, HEAD = "embed_tokens", "lm_head"
_BOTH = """
    ApertusForCausalLM DeciLMForCausalLM Ernie4_5ForCausalLM Exaone4ForCausalLM ExaoneMoEForCausalLM
    ExaoneMoeForCausalLM FalconH1ForCausalLM GraniteForCausalLM GraniteMoeForCausalLM GraniteMoeHybridForCausalLM
    GraniteMoeSWAForCausalLM GraniteMoeSharedForCausalLM GraniteSWAForCausalLM HyperCLOVAXForCausalLM
    IQuestCoderForCausalLM InternLM3ForCausalLM JambaForCausalLM K2HorizonForCausalLM LLaMAForCausalLM
    Lfm2ForCausalLM Lfm2MoeForCausalLM Llama4ForCausalLM LlamaForCausalLM MiniCPM3ForCausalLM MiniCPMForCausalLM
    MixtralForCausalLM NemotronForCausalLM NemotronHForCausalLM NemotronHPuzzleForCausalLM Param2MoEForCausalLM
    Phi3ForCausalLM PhiMoEForCausalLM Qwen3ForCausalLM Qwen3MoeForCausalLM SolarForCausalLM TeleChat2ForCausalLM
    TeleChat3ForCausalLM TeleFLMForCausalLM
"""
_EMBEDDINGS_ONLY = """
    ArceeForCausalLM Cohere2ForCausalLM CohereForCausalLM CwmForCausalLM Emu3ForConditionalGeneration
    FlexOlmoForCausalLM GPTBigCodeForCausalLM GPTNeoXForCausalLM GlmForCausalLM HunYuanDenseV1ForCausalLM
    HunYuanMoEV1ForCausalLM HunYuanVLForConditionalGeneration Jais2ForCausalLM MellumForCausalLM
    NanbeigeForCausalLM Olmo2ForCausalLM Olmo3ForCausalLM OlmoForCausalLM PhiForCausalLM SeedOssForCausalLM
    SmolLM3ForCausalLM Starcoder2ForCausalLM VaultGemmaForCausalLM VibeVoiceAsrForConditionalGeneration
"""
_HEAD_ONLY = """
    InklingForCausalLM InklingForConditionalGeneration
"""
MODULES: dict[str, frozenset[str]] = {
    name: frozenset(modules)
    for names, modules in (
        (_BOTH, (EMBEDDINGS, HEAD)),
        (_EMBEDDINGS_ONLY, (EMBEDDINGS,)),
        (_HEAD_ONLY, (HEAD,)),
        ("ExaoneForCausalLM", ("wte", HEAD)),
    )
    for name in names.split()
}
"""By class, as ``architectures`` in config.json names it; a class that is not here takes none."""
MOST_TOKENS = 258_048
"""The largest vocabulary that vLLM serves with LoRA where a class takes it on its output layer."""


def embedding_lora_error(modules: Collection[str], architecture: str | None) -> str | None:
    """Return why vLLM does not serve LoRA on these of a model's modules; None where it does.

    Args:
        modules: names, of which those that end in ``embed_tokens``, ``wte`` or ``lm_head`` are looked at.
        architecture: the class of the model; None where it is not known, which refuses nothing.
    """
    touched = {module.rpartition(".")[2] for module in modules} & {EMBEDDINGS, HEAD, "wte"}
    refused = touched - MODULES.get(architecture or "", frozenset())
    if architecture is None or not refused:
        return None
    return (
        f"LoRA on {' and '.join(sorted(refused))}, which vLLM does not serve for {architecture} (it does for some "
        "classes, such as LlamaForCausalLM and Qwen3ForCausalLM)"
    )
