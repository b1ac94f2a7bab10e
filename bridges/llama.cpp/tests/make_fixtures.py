# SPDX-License-Identifier: Apache-2.0
"""Makes tests/fixtures: small random models and what transformers computes with them.

Run at development time alone, with transformers 5.24 and torch:

    python make_fixtures.py [NAME...]

Each folder gets config.json, safetensors files, expected.json (token ids that were run, ids that
follow greedily, how far results may be off) and result.f32: logits, or an encoder's last hidden
state, F32, little-endian, [tokens][columns].
"""

import json
import shutil
import sys
from pathlib import Path

import torch
import transformers as hf

OUT = Path(__file__).parent / "fixtures"
SIZES = dict(vocab_size=96, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=6,
             num_key_value_heads=2, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0)
CLOSE = 2e-4
TABLE = 2e-2  # ggml computes GELU by a table of halves

FIXTURES = {
    "llama": (hf.LlamaConfig, hf.LlamaForCausalLM, dict(tie_word_embeddings=False), dict()),
    "llama_tied_sharded_bf16": (hf.LlamaConfig, hf.LlamaForCausalLM, dict(tie_word_embeddings=True), dict(dtype="bfloat16", shards="12KB")),
    "llama_bias": (hf.LlamaConfig, hf.LlamaForCausalLM, dict(attention_bias=True, mlp_bias=True, num_key_value_heads=6), dict()),
    "llama_head_dim_f16": (hf.LlamaConfig, hf.LlamaForCausalLM, dict(head_dim=16), dict(dtype="float16")),
    "llama_llama3": (hf.LlamaConfig, hf.LlamaForCausalLM, dict(max_position_embeddings=256, rope_parameters=dict(
        rope_type="llama3", rope_theta=500.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)), dict()),
    "llama_linear": (hf.LlamaConfig, hf.LlamaForCausalLM, dict(rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=4.0)), dict()),
    "llama_yarn": (hf.LlamaConfig, hf.LlamaForCausalLM, dict(rope_parameters=dict(
        rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=32)), dict()),
    "mistral": (hf.MistralConfig, hf.MistralForCausalLM, dict(sliding_window=None, head_dim=8), dict()),
    "mixtral": (hf.MixtralConfig, hf.MixtralForCausalLM, dict(num_local_experts=4, num_experts_per_tok=2, sliding_window=None), dict()),
    "qwen2": (hf.Qwen2Config, hf.Qwen2ForCausalLM, dict(tie_word_embeddings=True), dict()),
    "qwen2_yarn": (hf.Qwen2Config, hf.Qwen2ForCausalLM, dict(rope_parameters=dict(
        rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=32)), dict()),
    "qwen3": (hf.Qwen3Config, hf.Qwen3ForCausalLM, dict(head_dim=16), dict()),
    "qwen3_moe": (hf.Qwen3MoeConfig, hf.Qwen3MoeForCausalLM, dict(head_dim=16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32,
                                                               norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[]), dict()),
    "gemma": (hf.GemmaConfig, hf.GemmaForCausalLM, dict(head_dim=16, num_key_value_heads=1), dict(close=TABLE)),
    "gemma2": (hf.Gemma2Config, hf.Gemma2ForCausalLM, dict(head_dim=16, query_pre_attn_scalar=16, sliding_window=16, num_hidden_layers=3), dict(close=TABLE)),
    "gemma3": (hf.Gemma3TextConfig, hf.Gemma3ForCausalLM, dict(head_dim=16, query_pre_attn_scalar=16, sliding_window=16, num_hidden_layers=7), dict(close=TABLE)),
    "phi3": (hf.Phi3Config, hf.Phi3ForCausalLM, dict(sliding_window=None, original_max_position_embeddings=128), dict()),
    "olmo2": (hf.Olmo2Config, hf.Olmo2ForCausalLM, dict(), dict()),
    "bert": (hf.BertConfig, hf.BertModel, dict(type_vocab_size=2, num_key_value_heads=None), dict(close=TABLE)),
}


def randomise(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            if "norm" in name.lower() and name.endswith("weight"):
                centre = 0.0 if "gemma" in type(model).__name__.lower() else 1.0
                value.copy_(centre + 0.2 * noise)
            elif value.dim() == 1:
                value.copy_(0.2 * noise)
            elif "embed" in name:
                value.copy_(noise)
            else:
                value.copy_(noise * 1.2 / value.shape[-1] ** 0.5)


def make(name, seed):
    config_class, model_class, more, how = FIXTURES[name]
    sizes = {k: v for k, v in {**SIZES, **more}.items() if v is not None or k == "sliding_window"}
    torch.manual_seed(seed)
    config = config_class(**sizes, attn_implementation="eager")
    model = model_class(config).eval()
    randomise(model, seed)
    dtype = getattr(torch, how.get("dtype", "float32"))
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    model.to(dtype).save_pretrained(folder, max_shard_size=how.get("shards", "1GB"))
    (folder / "generation_config.json").unlink(missing_ok=True)

    model = model_class.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    tokens = torch.randint(3, sizes["vocab_size"], (24,), generator=torch.Generator().manual_seed(seed + 1))
    generated = []
    with torch.no_grad():
        if model_class is hf.BertModel:
            result = model(tokens[None]).last_hidden_state[0]
        else:
            result = model(tokens[None]).logits[0]
            row = tokens
            for _ in range(12):
                row = torch.cat([row, model(row[None]).logits[0, -1].argmax()[None]])
            generated = row[len(tokens):].tolist()
    (folder / "result.f32").write_bytes(result.float().contiguous().numpy().astype("<f4").tobytes())
    expected = dict(tokens=tokens.tolist(), generated=generated, columns=result.shape[1], close=how.get("close", CLOSE), largest=result.abs().max().item())
    (folder / "expected.json").write_text(json.dumps(expected) + "\n")
    print(name, sum(f.stat().st_size for f in folder.iterdir()), "bytes, largest", expected["largest"])


if __name__ == "__main__":
    names = sys.argv[1:] or list(FIXTURES)
    for each in names:
        make(each, 100 + list(FIXTURES).index(each))
