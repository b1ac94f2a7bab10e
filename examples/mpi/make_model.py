#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes a small random Llama and records what transformers computes with it.

    make_model.py FOLDER [--hidden 36] [--heads 9] [--kv-heads 3] [--intermediate 48] [--layers 2] [--vocabulary 50]

Writes FOLDER/config.json, FOLDER/model.safetensors (weights in BF16) and FOLDER/logits.safetensors: tokens, and the
logits after each, computed in F32 from those weights. What is in model/ was made so, with transformers 5.24.0 and
torch 2.15.0; needs both.
"""

import argparse
import json
import pathlib

import torch
import transformers
from safetensors.torch import save_file

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=pathlib.Path)
for name, default in dict(hidden=36, heads=9, kv_heads=3, intermediate=48, layers=2, vocabulary=50).items():
    parser.add_argument("--" + name.replace("_", "-"), type=int, default=default)
given = parser.parse_args()

torch.manual_seed(14)
config = transformers.LlamaConfig(
    hidden_size=given.hidden,
    num_attention_heads=given.heads,
    num_key_value_heads=given.kv_heads,
    intermediate_size=given.intermediate,
    num_hidden_layers=given.layers,
    vocab_size=given.vocabulary,
    max_position_embeddings=512,
    attn_implementation="eager",
)
model = transformers.LlamaForCausalLM(config).eval()
with torch.no_grad():
    for name, weight in model.named_parameters():
        # Large enough for logits of a few units, so that 1e-4 of them means something.
        spread = 0.1 if "norm" in name else 1.5 / weight.shape[-1] ** 0.5
        weight.copy_(torch.randn_like(weight) * spread + (1.0 if "norm" in name else 0.0))
        weight.copy_(weight.to(torch.bfloat16).to(torch.float32))
    tokens = torch.randint(0, given.vocabulary, (1, 12))
    logits = model(tokens).logits[0]

given.folder.mkdir(parents=True, exist_ok=True)
weights = {name: weight.detach().to(torch.bfloat16) for name, weight in model.named_parameters()}
save_file(weights, given.folder / "model.safetensors", metadata={"format": "pt"})
save_file({"tokens": tokens[0].contiguous(), "logits": logits.contiguous()}, given.folder / "logits.safetensors")
text = {key: value for key, value in config.to_dict().items() if key in (
    "architectures", "head_dim", "hidden_size", "intermediate_size", "model_type", "num_attention_heads",
    "num_hidden_layers", "num_key_value_heads", "rms_norm_eps", "rope_parameters", "rope_theta", "vocab_size",
    "tie_word_embeddings")}
(given.folder / "config.json").write_text(json.dumps(text, indent=1) + "\n")
print(f"transformers {transformers.__version__}, torch {torch.__version__}, logits from {logits.min():.2f} to {logits.max():.2f}")
