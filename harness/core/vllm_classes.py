"""Model classes for which vLLM 0.32 serves LoRA on the embedding and output layers (``embedding_modules``)."""

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
"""Supported modules by class name (``architectures`` in config.json); classes not listed here support none."""
MOST_TOKENS = 258_048
"""Largest vocabulary that vLLM accepts with LoRA for classes that support LoRA on the output layer."""


def embedding_lora_error(modules: Collection[str], architecture: str | None) -> str | None:
    """Return a message if vLLM does not serve LoRA on one of these modules, else None.

    Args:
        modules: names; only those that end in ``embed_tokens``, ``wte`` or ``lm_head`` are checked.
        architecture: the model's class; with None (unknown) nothing is refused.
    """
    layers = {module.rpartition(".")[2] for module in modules} & {EMBEDDINGS, HEAD, "wte"}
    unsupported = layers - MODULES.get(architecture or "", frozenset())
    if architecture is None or not unsupported:
        return None
    return (
        f"LoRA on {' and '.join(sorted(unsupported))}, which vLLM does not serve for {architecture} (it does for some "
        "classes, such as LlamaForCausalLM and Qwen3ForCausalLM)"
    )
