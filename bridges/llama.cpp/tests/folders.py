# SPDX-License-Identifier: Apache-2.0
"""Model folders for the tests: fixtures, changed in one thing, and random ones made on the spot."""

import json
import random
import shutil
import struct
from pathlib import Path

FIXTURES = Path(__file__).parent / "fixtures"
TOKENIZERS = Path(__file__).parent / "tokenizers"


def copy(name, to):
    shutil.copytree(FIXTURES / name, to)
    return to


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def set_config(folder, **values):
    """Values of ... remove their key."""
    config = config_of(folder)
    for key, value in values.items():
        if value is ...:
            config.pop(key, None)
        else:
            config[key] = value
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def hub_spelling(folder):
    """rope_parameters as older files spell them: rope_theta at the root, the rest in rope_scaling."""
    config = config_of(folder)
    rope = config.pop("rope_parameters", None)
    config["torch_dtype"] = config.pop("dtype", "float32")
    if rope and "full_attention" in rope:
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    if rope:
        config["rope_theta"] = rope.pop("rope_theta", 10000.0)
        kind = rope.pop("rope_type", "default")
        config["rope_scaling"] = None if kind == "default" else dict(rope, type=kind)
    if config.get("num_local_experts") and "moe_intermediate_size" in config:
        config["num_experts"] = config.pop("num_local_experts")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def read_header(path):
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8:8 + size]), data[8 + size:]


def write_file(path, tensors):
    """tensors: name -> (dtype, shape, bytes)"""
    header, body = {}, b""
    for name, (dtype, shape, data) in tensors.items():
        header[name] = dict(dtype=dtype, shape=shape, data_offsets=[len(body), len(body) + len(data)])
        body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def read_file(path):
    header, body = read_header(path)
    header.pop("__metadata__", None)
    return {n: (h["dtype"], h["shape"], body[h["data_offsets"][0]:h["data_offsets"][1]]) for n, h in header.items()}


def change_tensors(folder, change):
    path = folder / "model.safetensors"
    tensors = read_file(path)
    change(tensors)
    write_file(path, tensors)
    return folder


def random_llama(folder, seed, hidden, inner, layers, heads, vocab):
    """A Llama of random F32."""
    folder.mkdir()
    generator = random.Random(seed)

    def matrix(rows, columns):
        scale = columns ** -0.5
        return "F32", [rows, columns], struct.pack(f"<{rows * columns}f", *(generator.gauss(0, scale) for _ in range(rows * columns)))

    def ones(size):
        return "F32", [size], struct.pack(f"<{size}f", *(1 + generator.gauss(0, 0.1) for _ in range(size)))

    tensors = {"model.embed_tokens.weight": matrix(vocab, hidden), "model.norm.weight": ones(hidden), "lm_head.weight": matrix(vocab, hidden)}
    for i in range(layers):
        at = f"model.layers.{i}."
        tensors.update({at + "input_layernorm.weight": ones(hidden), at + "post_attention_layernorm.weight": ones(hidden)})
        for name, rows, columns in (("self_attn.q_proj", hidden, hidden), ("self_attn.k_proj", hidden, hidden), ("self_attn.v_proj", hidden, hidden), ("self_attn.o_proj", hidden, hidden),
                                    ("mlp.gate_proj", inner, hidden), ("mlp.up_proj", inner, hidden), ("mlp.down_proj", hidden, inner)):
            tensors[at + name + ".weight"] = matrix(rows, columns)
    write_file(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text(json.dumps(dict(
        architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=heads, vocab_size=vocab, max_position_embeddings=256, rms_norm_eps=1e-5, hidden_act="silu", tie_word_embeddings=False)))
    return folder


def random_bert(folder, seed, vocab, hidden=32, inner=32, layers=1):
    folder.mkdir()
    generator = random.Random(seed)

    def tensor(*shape):
        count = 1
        for size in shape:
            count *= size
        return "F32", list(shape), struct.pack(f"<{count}f", *(generator.gauss(0, 0.3) for _ in range(count)))

    tensors = {"embeddings.word_embeddings.weight": tensor(vocab, hidden), "embeddings.position_embeddings.weight": tensor(128, hidden),
               "embeddings.token_type_embeddings.weight": tensor(2, hidden), "embeddings.LayerNorm.weight": tensor(hidden), "embeddings.LayerNorm.bias": tensor(hidden)}
    for i in range(layers):
        at = f"encoder.layer.{i}."
        for name, rows, columns in (("attention.self.query", hidden, hidden), ("attention.self.key", hidden, hidden), ("attention.self.value", hidden, hidden),
                                    ("attention.output.dense", hidden, hidden), ("intermediate.dense", inner, hidden), ("output.dense", hidden, inner)):
            tensors[at + name + ".weight"] = tensor(rows, columns)
            tensors[at + name + ".bias"] = tensor(rows)
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            tensors[at + name + ".weight"] = tensor(hidden)
            tensors[at + name + ".bias"] = tensor(hidden)
    write_file(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text(json.dumps(dict(
        architectures=["BertModel"], model_type="bert", hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=4, vocab_size=vocab,
        max_position_embeddings=128, type_vocab_size=2, layer_norm_eps=1e-12, hidden_act="gelu")))
    return folder


def hard_to_round(tensors):
    """Halves, what is just beside them, zeros of both signs and the smallest numbers, in a matrix's first rows."""
    name = "model.layers.0.mlp.up_proj.weight"
    dtype, shape, data = tensors[name]
    below = struct.unpack("<f", struct.pack("<I", 0x3effffff))[0]
    halves = [127.0] + [sign * (i + 0.5) for i in range(12) for sign in (1, -1)] + [below, -below, 1 + below, -0.0, 0.0, 126.5, -126.5]
    rows = [halves, [x * 2.0 ** -140 for x in halves], [-0.0] * 32, [2.0 ** -149] * 32, [x * 0.1 for x in halves]]
    front = struct.pack("<160f", *(x for row in rows for x in row[:32]))
    tensors[name] = dtype, shape, front + data[len(front):]


def with_text(scratch):
    """Models with text, in folders whose names say what they are: name -> (tokenizer, folder)."""
    out = {}
    for name, tokenizer, more in (("Tiny-7b-Instruct-v0.1", "gpt2", dict(temperature=0.7, top_p=0.9, top_k=40, repetition_penalty=1.1, do_sample=True)),
                                  ("tiny_thing", "smollm", None), ("Foo-36K-chat-128k", "llama3", dict(eos_token_id=1)), ("all-Tiny-L1-v2", "bert", None)):
        vocab = json.loads((TOKENIZERS / tokenizer / "expected.json").read_text())["vocab_size"]
        folder = scratch / name
        if tokenizer == "bert":
            random_bert(folder, 41, vocab)
        else:
            random_llama(folder, 41, 64, 96, 2, 4, vocab + 32)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(TOKENIZERS / tokenizer / file, folder)
        if more is not None:
            (folder / "generation_config.json").write_text(json.dumps(more))
        out[name] = tokenizer, folder
    set_config(out["tiny_thing"][1], _name_or_path="some-org/Tiny-13M-base")
    return out


def unpack(data):
    return list(struct.unpack(f"<{len(data) // 4}f", data))


def fp8_value(byte):
    """F8_E4M3 as a number; no byte of these tests is its NaN."""
    sign = -1.0 if byte & 0x80 else 1.0
    exponent, fraction = byte >> 3 & 15, byte & 7
    return sign * (fraction / 8 * 2.0 ** -6 if exponent == 0 else (1 + fraction / 8) * 2.0 ** (exponent - 7))


def fp8_blocks(name, rows, columns, generator):
    """A matrix in FP8 with a scale for each 128 x 128: (stored tensors, decoded matrix)."""
    codes = bytes(generator.choice((0, 0x80)) | generator.randrange(0x10, 0x70) for _ in range(rows * columns))
    across, down = -(-columns // 128), -(-rows // 128)
    scales = [struct.unpack("<f", struct.pack("<f", generator.uniform(0.0005, 0.002)))[0] for _ in range(across * down)]
    values = [fp8_value(code) * scales[i // columns // 128 * across + i % columns // 128] for i, code in enumerate(codes)]
    stored = {name + ".weight": ("F8_E4M3", [rows, columns], codes), name + ".weight_scale_inv": ("F32", [down, across], struct.pack(f"<{across * down}f", *scales))}
    return stored, struct.pack(f"<{rows * columns}f", *values)


def gptq(name, rows, columns, generator, group=32):
    """A matrix in GPTQ's 4 bits, zero points of 8 (stored as 7): (stored tensors, decoded matrix)."""
    codes = [[generator.randrange(16) for _ in range(columns)] for _ in range(rows)]
    scales = [[half(generator.uniform(0.01, 0.03)) for _ in range(rows)] for _ in range(columns // group)]
    words = [sum(codes[row][8 * i + k] << 4 * k for k in range(8)) for i in range(columns // 8) for row in range(rows)]
    stored = {name + ".qweight": ("I32", [columns // 8, rows], struct.pack(f"<{len(words)}I", *words)),
              name + ".qzeros": ("I32", [columns // group, rows // 8], b"\x77" * (columns // group * rows // 2)),
              name + ".scales": ("F16", [columns // group, rows], struct.pack(f"<{columns // group * rows}e", *(s for line in scales for s in line))),
              name + ".g_idx": ("I32", [columns], struct.pack(f"<{columns}i", *(i // group for i in range(columns))))}
    values = [scales[c // group][r] * (codes[r][c] - 8) for r in range(rows) for c in range(columns)]
    return stored, struct.pack(f"<{rows * columns}f", *values)


def half(value):
    return struct.unpack("<e", struct.pack("<e", value))[0]


def awq(name, rows, columns, generator, group=32):
    """A matrix in AWQ's 4 bits for GEMM, with zero points: (stored tensors, decoded matrix)."""
    order = (0, 2, 4, 6, 1, 3, 5, 7)
    codes = [[generator.randrange(16) for _ in range(columns)] for _ in range(rows)]
    zeros = [[generator.randrange(16) for _ in range(rows)] for _ in range(columns // group)]
    scales = [[half(generator.uniform(0.01, 0.03)) for _ in range(rows)] for _ in range(columns // group)]
    words = [sum(codes[8 * i + order[k]][column] << 4 * k for k in range(8)) for column in range(columns) for i in range(rows // 8)]
    zero_words = [sum(line[8 * i + order[k]] << 4 * k for k in range(8)) for line in zeros for i in range(rows // 8)]
    stored = {name + ".qweight": ("I32", [columns, rows // 8], struct.pack(f"<{len(words)}I", *words)),
              name + ".qzeros": ("I32", [columns // group, rows // 8], struct.pack(f"<{len(zero_words)}I", *zero_words)),
              name + ".scales": ("F16", [columns // group, rows], struct.pack(f"<{columns // group * rows}e", *(s for line in scales for s in line)))}
    values = [scales[c // group][r] * (codes[r][c] - zeros[c // group][r]) for r in range(rows) for c in range(columns)]
    return stored, struct.pack(f"<{rows * columns}f", *values)


def packed(name, rows, columns, generator, group=32):
    """A matrix as compressed-tensors packs 4 bits: (stored tensors, decoded matrix)."""
    codes = [[generator.randrange(16) for _ in range(columns)] for _ in range(rows)]
    scales = [half(generator.uniform(0.01, 0.03)) for _ in range(rows * columns // group)]
    words = [sum(line[8 * i + k] << 4 * k for k in range(8)) for line in codes for i in range(columns // 8)]
    stored = {name + ".weight_packed": ("I32", [rows, columns // 8], struct.pack(f"<{len(words)}I", *words)),
              name + ".weight_scale": ("F16", [rows, columns // group], struct.pack(f"<{len(scales)}e", *scales)),
              name + ".weight_shape": ("I64", [2], struct.pack("<2q", rows, columns))}
    values = [scales[(r * columns + c) // group] * (codes[r][c] - 8) for r in range(rows) for c in range(columns)]
    return stored, struct.pack(f"<{rows * columns}f", *values)


def mxfp4(name, rows, columns, generator):
    """A matrix in MXFP4 as compressed-tensors stores it: (stored tensors, decoded matrix)."""
    numbers = (0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6)
    codes = [generator.randrange(16) for _ in range(rows * columns)]
    exponents = [generator.randrange(119, 123) for _ in range(rows * columns // 32)]
    stored = {name + ".weight_packed": ("U8", [rows, columns // 2], bytes(codes[2 * i] | codes[2 * i + 1] << 4 for i in range(len(codes) // 2))),
              name + ".weight_scale": ("U8", [rows, columns // 32], bytes(exponents))}
    return stored, struct.pack(f"<{rows * columns}f", *(numbers[code] * 2.0 ** (exponents[i // 32] - 127) for i, code in enumerate(codes)))


def compressed(**weights):
    scheme = dict(dict(symmetric=True, strategy="group", group_size=32, dynamic=False, block_structure=None, actorder=None), **weights)
    return dict(quant_method="compressed-tensors", config_groups=dict(group_0=dict(targets=["Linear"], weights=scheme)), ignore=["lm_head"], quantization_status="compressed")


# What makes a matrix, its configuration, the member that a broken checkpoint lacks.
QUANTISED = {
    "fp8": (fp8_blocks, dict(quant_method="fp8", fmt="e4m3", activation_scheme="dynamic", weight_block_size=[128, 128]), ".weight_scale_inv"),
    "gptq": (gptq, dict(quant_method="gptq", bits=4, group_size=32, desc_act=False, sym=True, checkpoint_format="gptq"), ".scales"),
    "awq": (awq, dict(quant_method="awq", bits=4, group_size=32, zero_point=True, version="gemm"), ".scales"),
    "packed": (packed, dict(compressed(num_bits=4, type="int"), format="pack-quantized"), ".weight_scale"),
    "mxfp4": (mxfp4, dict(compressed(num_bits=4, type="float"), format="mxfp4-pack-quantized"), ".weight_scale"),
}


def quantised_pair(scratch, kind, seed, heads=4):
    """Two folders of one model: quantised, and what it decodes to."""
    make, config, _ = QUANTISED[kind]
    plain = random_llama(scratch / f"{kind}-{heads}-plain", seed, 192, 256, 2, heads, 64)
    coded = scratch / f"{kind}-{heads}"
    shutil.copytree(plain, coded)
    generator = random.Random(seed + 1)
    decoded, stored = read_file(plain / "model.safetensors"), {}
    for name, (dtype, shape, data) in list(decoded.items()):
        if "_proj" not in name:
            stored[name] = (dtype, shape, data)
            continue
        parts, values = make(name.removesuffix(".weight"), *shape, generator)
        stored.update(parts)
        decoded[name] = (dtype, shape, values)
    write_file(plain / "model.safetensors", decoded)
    write_file(coded / "model.safetensors", stored)
    set_config(coded, quantization_config=config, torch_dtype="float32")
    return coded, plain
