"""Tiny models of many kinds with random parameters, for the micro-task: `import tiny_models`.

`WORKS` are kinds that train, `REFUSED` such that a plan refuses, each with what it says of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import micro_task

COMMON: dict[str, Any] = {
    "vocab_size": len(micro_task.TOKENS), "bos_token_id": None, "eos_token_id": micro_task.END, "pad_token_id": None,
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 32, "initializer_range": 0.3,
}  # fmt: skip
HEAD: dict[str, Any] = {"head_dim": 8}
WINDOW: dict[str, Any] = {**HEAD, "sliding_window": 4}  # shorter than what is read: a wider one would hide a mistake
EXPERTS: dict[str, Any] = {
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1,
    "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "topk_group": 1, "first_k_dense_replace": 1,
}  # fmt: skip
LATENT: dict[str, Any] = {
    "head_dim": 4, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 8,
    "num_key_value_heads": 2,
}  # fmt: skip
SEQUENCE: dict[str, Any] = {
    "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
}  # fmt: skip
DECODER: dict[str, Any] = {"is_decoder": True}

WORKS: dict[str, dict[str, Any]] = {
    "apertus": {}, "arcee": {}, "biogpt": {}, "bitnet": {}, "bloom": {},
    "codegen": {"n_embd": 16, "n_layer": 2, "n_head": 4, "num_attention_heads": 4, "rotary_dim": 4},
    "cohere": {}, "cohere2": WINDOW, "deepseek_v2": {**EXPERTS, **LATENT}, "deepseek_v3": {**EXPERTS, **LATENT},
    "diffllama": {"num_key_value_heads": 2}, "ernie4_5": {}, "exaone4": WINDOW, "falcon": {"alibi": True},
    "gemma": HEAD, "gemma2": WINDOW, "gemma3_text": WINDOW, "glm": HEAD, "glm4": HEAD, "glm4_moe": {**EXPERTS, **HEAD},
    "gpt2": {}, "gpt_bigcode": {}, "gpt_neo": {"num_layers": 2, "num_heads": 2, "window_size": 4,
    "attention_types": [[["global", "local"], 1]]}, "gpt_neox": {}, "gpt_oss": {**EXPERTS, **WINDOW},
    "gptj": {"rotary_dim": 4}, "granite": {}, "granitemoe": EXPERTS, "helium": HEAD, "hunyuan_v1_dense": HEAD,
    "llama": {}, "minicpm3": LATENT, "ministral": WINDOW, "mistral": WINDOW, "mixtral": EXPERTS, "mpt": {},
    "nemotron": {}, "olmo": {}, "olmo2": {}, "olmo3": WINDOW, "olmoe": EXPERTS, "opt": {"ffn_dim": 32,
    "word_embed_proj_dim": 16}, "persimmon": {}, "phi": {}, "phi3": {}, "qwen2": {}, "qwen2_moe": EXPERTS,
    "qwen3": HEAD, "qwen3_moe": {**EXPERTS, **HEAD}, "seed_oss": HEAD, "smollm3": {}, "stablelm": {},
    "starcoder2": {}, "xglm": {"attention_heads": 2, "ffn_dim": 32},
}  # fmt: skip

STATE, LATER, FAILS = "keeps a state of all it has read", "whose tokens see later ones", "fails in a first pass"
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "bart": (SEQUENCE, "must be a decoder, got an encoder-decoder"),
    "bert": ({}, LATER),
    "electra": ({"embedding_size": 16}, LATER),
    "falcon_h1": ({"mamba_d_ssm": 16, "mamba_n_heads": 2, "mamba_d_state": 4}, STATE),
    "falcon_mamba": ({"state_size": 4}, STATE),
    "jamba": ({"mamba_d_state": 4, "mamba_dt_rank": 4, **EXPERTS}, STATE),
    "lfm2": ({"layer_types": ["conv", "full_attention"], "block_ff_dim": 32}, FAILS),
    "llama4_text": ({**EXPERTS, **HEAD, "intermediate_size_mlp": 32}, FAILS),
    "mamba": ({"state_size": 4}, STATE),
    "mamba2": ({"num_heads": 4, "head_dim": 8, "state_size": 4, "n_groups": 1, "chunk_size": 4}, STATE),
    "minimax": (EXPERTS, FAILS),
    "openai-gpt": ({}, FAILS),
    "phimoe": (EXPERTS, FAILS),
    "qwen3_next": ({**EXPERTS, **HEAD, "linear_num_value_heads": 2, "linear_num_key_heads": 2}, STATE),
    "recurrent_gemma": ({"lru_width": 16, "attention_window_size": 4, **HEAD}, STATE),
    "rwkv": ({"attention_hidden_size": 16}, STATE),
    "t5": ({**SEQUENCE, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}, "must be a decoder, got an encoder-"),
    "xlm-roberta": ({"pad_token_id": 1}, LATER),
}


def save(kind: str, folder: Path, settings: dict[str, Any]) -> Path:
    """Save a tiny model of a kind with the micro-task's tokenizer."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    config = CONFIG_MAPPING[kind](**{**COMMON, **settings})
    loader: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = loader.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():  # what starts at zero or one would hide mistakes
                parameter += 0.02 * torch.randn(parameter.shape)
    model.save_pretrained(folder)
    micro_task.save_tokenizer(folder)
    return folder
