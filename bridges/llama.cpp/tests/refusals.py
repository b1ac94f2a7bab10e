# SPDX-License-Identifier: Apache-2.0
"""What must be refused, each with a part of the message: folders that llama.cpp would compute
otherwise, would abort on, or that lack something."""

import folders
from folders import change_tensors, set_config

# fixture, what is changed in config.json, what the message has
CONFIGS = [
    ("llama", dict(architectures=["FalconForCausalLM"]), "supported: LlamaForCausalLM"),
    ("llama", dict(architectures=...), "no architectures"),
    ("llama", dict(hidden_size=0), "hidden_size is 0"),
    ("llama", dict(hidden_size=2 ** 33), "hidden_size"),
    ("llama", dict(num_hidden_layers=2 ** 40), "num_hidden_layers"),
    ("llama", dict(num_hidden_layers=600), "up to 512"),
    ("llama", dict(num_hidden_layers=3), "model.layers.2"),
    ("llama", dict(num_hidden_layers=1), "has no place"),
    ("llama", dict(num_attention_heads=-6), "num_attention_heads is -6"),
    ("llama", dict(num_attention_heads="6"), "a whole number"),
    ("llama", dict(num_key_value_heads=4), "a divisor of num_attention_heads"),
    ("llama", dict(head_dim=7), "even"),
    ("llama", dict(rms_norm_eps=-1e-6), "rms_norm_eps"),
    ("llama", dict(rms_norm_eps=1.0), "rms_norm_eps"),
    ("llama", dict(vocab_size=97), "[97, 48]"),
    ("llama", dict(intermediate_size=...), "no intermediate_size"),
    ("llama", dict(hidden_act="gelu"), "supported: silu"),
    ("llama", dict(attention_bias=True), "q_proj.bias"),
    ("llama", dict(sliding_window=64), "sliding_window"),
    ("llama", dict(rope_parameters=dict(rope_type="dynamic", factor=2.0)), "rope_type"),
    ("llama", dict(rope_parameters=dict(rope_type="longrope", factor=2.0)), "llama3"),
    ("llama", dict(rope_parameters=dict(rope_type="linear", factor=0)), "factor"),
    ("llama", dict(rope_parameters=dict(rope_type="default", partial_rotary_factor=0.5)), "partial_rotary_factor"),
    ("llama_yarn", dict(rope_parameters=dict(rope_type="yarn", factor=4.0, attention_factor=1.0)), "attention_factor"),
    ("llama_yarn", dict(rope_parameters=dict(rope_type="yarn", factor=4.0, mscale=1.0)), "mscale"),
    ("mistral", dict(sliding_window=32), "sliding_window"),
    ("qwen2", dict(use_sliding_window=True, sliding_window=32), "sliding_window"),
    ("phi3", dict(sliding_window=32), "sliding_window"),
    ("phi3", dict(rope_parameters=dict(rope_type="longrope", short_factor=[1.0], long_factor=[1.0])), "default"),
    ("qwen3_moe", dict(norm_topk_prob=False), "norm_topk_prob"),
    ("qwen3_moe", dict(norm_topk_prob=...), "norm_topk_prob"),
    ("qwen3_moe", dict(mlp_only_layers=[0]), "mlp_only_layers"),
    ("qwen3_moe", dict(decoder_sparse_step=2), "decoder_sparse_step"),
    ("qwen3_moe", dict(num_experts_per_tok=5), "num_experts_per_tok"),
    ("mixtral", dict(num_local_experts=5), "[5, 48]"),
    ("mixtral", dict(num_local_experts=2 ** 20), "up to 1024"),
    ("gemma2", dict(query_pre_attn_scalar=24), "query_pre_attn_scalar"),
    ("gemma2", dict(attn_logit_softcapping=None), "attn_logit_softcapping"),
    ("gemma3", dict(layer_types=["full_attention"] * 7), "layer_types[0]"),
    ("gemma3", dict(hidden_activation="relu"), "gelu_pytorch_tanh"),
    ("gemma", dict(tie_word_embeddings=False), "tie_word_embeddings"),
    ("bert", dict(position_embedding_type="relative_key"), "absolute"),
    ("bert", dict(hidden_act="relu"), "supported: gelu"),
    ("bert", dict(max_position_embeddings=256), "[256, 48]"),
]


def without(name):
    return lambda tensors: tensors.pop(name)


def extra(tensors):
    tensors["model.layers.0.self_attn.sinks"] = tensors["model.norm.weight"]


def renamed_dtype(tensors):
    dtype, shape, data = tensors["lm_head.weight"]
    tensors["lm_head.weight"] = ("I32", shape, data)


def cut(tensors):
    name = "model.layers.1.mlp.up_proj.weight"
    dtype, shape, data = tensors[name]
    tensors[name] = (dtype, [shape[0] // 2, shape[1]], data[:len(data) // 2])


TENSORS = [
    (without("model.layers.1.self_attn.k_proj.weight"), "model.layers.1.self_attn.k_proj.weight\" is missing"),
    (extra, "sinks"),
    (renamed_dtype, "I32"),
    (cut, "[80, 48] [intermediate_size, hidden_size]"),
]


def all_refusals(scratch):
    """Yields (name, folder, text)."""
    for i, (fixture, values, text) in enumerate(CONFIGS):
        folder = set_config(folders.copy(fixture, scratch / f"refused-{i}"), **values)
        yield f"{fixture} {values}", folder, text
    for i, (change, text) in enumerate(TENSORS):
        yield f"tensors {i}", change_tensors(folders.copy("llama", scratch / f"tensors-{i}"), change), text
    hostile = [("no JSON", "{", "config.json"), ("a list", "[]", "not an object"), ("deep", "[" * 100000, "config.json"), ("deep and closed", "[" * 100000 + "]" * 100000, "not an object"),
               ("empty", "", "config.json"), ("null", "null", "not an object"), ("bytes", "\x00\x01", "config.json")]
    for i, (name, text, message) in enumerate(hostile):
        folder = folders.copy("llama", scratch / f"hostile-{i}")
        (folder / "config.json").write_text(text)
        yield name, folder, message
    folder = folders.copy("llama", scratch / "no-config")
    (folder / "config.json").unlink()
    yield "no config.json", folder, "config.json"
    folder = folders.copy("llama", scratch / "cut")
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-100])
    yield "a file cut short", folder, "model.safetensors"
    yield "no folder", scratch / "nothing", "config.json"
