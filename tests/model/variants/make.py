# SPDX-License-Identifier: Apache-2.0
"""Makes the folders beside it: variants of the layouts that no recorded answer
of a library covers. Codes, scales and zero points are drawn, stored as the
layout says (docs/groups.md), and the expected values computed from what was
drawn, with numpy. Run it with a python that has numpy and ml_dtypes.
"""

import hashlib
import json
import math
import os
import struct

import ml_dtypes
import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
F32 = np.float32
rng = np.random.default_rng(15)

DTYPES = {
    "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "I8": np.int8, "U8": np.uint8,
    "I32": np.int32, "U32": np.uint32, "I64": np.int64, "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2, "F8_E8M0": np.uint8,
}
FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], F32)


class Case:
    def __init__(self, name, config=None, metadata=None):
        self.name, self.config, self.metadata = name, config, metadata
        self.tensors, self.groups = {}, []

    def put(self, name, dtype, array):
        array = np.ascontiguousarray(np.asarray(array))
        if array.dtype != DTYPES[dtype]:
            array = array.astype(DTYPES[dtype])
        self.tensors[name] = (dtype, array)
        return name

    def group(self, name, kind, layout, bits, values, block, step, flags, members):
        values = np.ascontiguousarray(values, F32)
        shape = list(values.shape)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        digest = lambda array: hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
        slices = []
        for number in range(3):
            ranges = []
            for size, step_of in zip(shape, step):
                cuts = sorted({*range(0, size, step_of), size})
                at = [cuts[0], cuts[-1]] if number == 0 else sorted(rng.choice(cuts, 2, replace=False).tolist())
                ranges.append(at)
            part = values[tuple(slice(*pair) for pair in ranges)]
            slices.append({"ranges": ranges, "f32_sha256": digest(part), "parts": []})
        self.groups.append({
            "name": name, "status": "ok", "kind": kind, "format": layout, "bits": bits, "shape": shape,
            "block": block, "step": step, "flags": sorted(flags),
            "members": [{"role": role, "tensor": tensor} for role, tensor in members],
            "tolerance": {"ulp": 0},
            "decoded": {"f32": None, "f32_sha256": digest(values), "f16_sha256": digest(half),
                        "bf16_sha256": digest(values.astype(ml_dtypes.bfloat16)), "samples": []},
            "slices": slices,
        })

    def bad(self, name, status, error=None, mentions=()):
        self.groups.append({"name": name, "status": status, "error": error, "mentions": list(mentions)})

    def write(self):
        folder = os.path.join(HERE, self.name)
        os.makedirs(folder, exist_ok=True)
        header, data = {}, b""
        if self.metadata:
            header["__metadata__"] = self.metadata
        for name, (dtype, array) in self.tensors.items():
            raw = array.tobytes()
            header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
            data += raw
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with open(os.path.join(folder, "model.safetensors"), "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text + data)
        if self.config is not None:
            with open(os.path.join(folder, "config.json"), "w") as file:
                json.dump(self.config, file, indent=1)
        self.groups.sort(key=lambda group: group["name"].encode())
        used = {member["tensor"] for group in self.groups for member in group.get("members", [])}
        expected = {"case": self.name, "open": "model.safetensors", "config": "config.json" if self.config is not None else None,
                    "groups": self.groups, "plain": sorted(set(self.tensors) - used)}
        with open(os.path.join(folder, "expected.json"), "w") as file:
            json.dump(expected, file, indent=1)
            file.write("\n")


def scales(shape, dtype="F16"):
    """Not too regular, and of both signs."""
    drawn = rng.uniform(0.003, 0.05, shape) * rng.choice([1, -1], shape, p=[0.9, 0.1])
    return drawn.astype(DTYPES[dtype])


def stream(codes, bits, word=32):
    """Rows of codes to words, least significant bit first."""
    codes = np.asarray(codes)
    rows = []
    for row in codes.reshape(-1, codes.shape[-1]):
        number = 0
        for at, code in enumerate(row.tolist()):
            number |= code << (at * bits)
        count = math.ceil(codes.shape[-1] * bits / word)
        rows.append([(number >> (word * at)) & (2**word - 1) for at in range(count)])
    kind = np.uint32 if word == 32 else np.uint8
    return np.array(rows, kind).reshape(*codes.shape[:-1], -1)


def padded(codes, bits):
    """As many as fit in each word of 32 bits."""
    per = 32 // bits
    rows = []
    for row in codes.reshape(-1, codes.shape[-1]).tolist():
        words = [row[at:at + per] for at in range(0, len(row), per)]
        rows.append([sum(code << (at * bits) for at, code in enumerate(word)) for word in words])
    return np.array(rows, np.uint32).reshape(*codes.shape[:-1], -1)


def signed(words):
    return words.view(np.int32)


def draw(shape, bits):
    return rng.integers(0, 2**bits, shape)


def spread(by_group, group, width):
    """A value for each column, of those for each group of columns."""
    return np.repeat(by_group, group, axis=-1)[..., :width]


def lcm_step(bits, group, groups):
    period = 32 // math.gcd(bits, 32)
    return period if groups == 1 else math.lcm(group, period)


def gptq(case, module, bits, out, width, group, version, dtype="F16", index=None, order_member=False):
    groups = math.ceil(width / group)
    q, z = draw((out, width), bits), draw((out, groups), bits)
    s = scales((groups, out), dtype)
    column_group = np.arange(width) // group if index is None else index
    stored_zeros = (z - 1) % 2**bits if version == "gptq-v1" else z
    members = [("codes", case.put(module + ".qweight", "I32", signed(np.ascontiguousarray(stream(q, bits).T)))),
               ("zeros", case.put(module + ".qzeros", "I32", signed(stream(stored_zeros.T, bits)))),
               ("scales", case.put(module + ".scales", dtype, s))]
    if index is not None or order_member:
        members.append(("order", case.put(module + ".g_idx", "I32", column_group)))
    values = s.astype(F32).T[:, column_group] * (q - z[:, column_group]).astype(F32)
    period = 32 // math.gcd(bits, 32)
    along = period if index is not None else lcm_step(bits, group, groups)
    flags = ["transposed"] + (["act_order"] if index is not None else [])
    case.group(module + ".weight", "gptq", version, bits, values, [1, group], [period, along], flags, members)


def make_gptq():
    dynamic = {"+:.*": {"bits": 4}}
    case = Case("gptq-v2-bits", {"quantization_config": {
        "quant_method": "gptq", "bits": 4, "group_size": 32, "sym": False, "checkpoint_format": "gptq_v2", "dynamic": dynamic}})
    gptq(case, "two", 2, 48, 96, 32, "gptq-v2", "BF16")
    gptq(case, "three", 3, 64, 160, 32, "gptq-v2")
    gptq(case, "eight", 8, 20, 64, 32, "gptq-v2", order_member=True)
    gptq(case, "acted", 4, 24, 128, 32, "gptq-v2", "BF16", index=rng.permutation(np.arange(128) // 32))
    gptq(case, "acted8", 8, 12, 64, 16, "gptq-v2", index=rng.permutation(np.arange(64) // 16))
    case.write()
    case = Case("gptq-v1-short", {"model_type": "llama", "text_config": {"quantization_config": {
        "quant_method": "gptq", "bits": 3, "group_size": 64, "sym": False}}})
    gptq(case, "short", 3, 32, 96, 64, "gptq-v1")
    gptq(case, "acted", 3, 32, 96, 64, "gptq-v1", index=rng.permutation(np.arange(96) // 64))
    case.write()
    case = Case("gptq-whole", {"quantization_config": {
        "quant_method": "gptq", "bits": 2, "group_size": -1, "sym": False, "checkpoint_format": "gptq"}})
    gptq(case, "whole", 2, 32, 80, 80, "gptq-v1", order_member=True)
    case.write()


AWQ = [0, 2, 4, 6, 1, 3, 5, 7]


def awq_words(codes):
    """[rows, columns] to words of eight columns."""
    rows, columns = codes.shape
    words = np.zeros((rows, columns // 8), np.uint32)
    for word in range(columns // 8):
        for nibble, column in enumerate(AWQ):
            words[:, word] |= codes[:, 8 * word + column].astype(np.uint32) << np.uint32(4 * nibble)
    return words


def make_awq():
    case = Case("awq-gemm-sizes", {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 16, "version": "gemm", "zero_point": True}})
    for module, out, width, group in [("one", 136, 48, 48), ("many", 264, 80, 16), ("small", 8, 16, 16)]:
        groups = width // group
        q, z, s = draw((out, width), 4), draw((out, groups), 4), scales((groups, out))
        members = [("codes", case.put(module + ".qweight", "I32", signed(awq_words(q.T)))),
                   ("zeros", case.put(module + ".qzeros", "I32", signed(awq_words(z.T)))),
                   ("scales", case.put(module + ".scales", "F16", s))]
        values = spread(s.astype(F32).T, group, width) * (q - spread(z, group, width)).astype(F32)
        case.group(module + ".weight", "awq", "awq-gemm", 4, values, [1, group], [8, group if groups > 1 else 1], ["transposed"], members)
    case.write()
    case = Case("awq-gemv-sizes", {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemv", "zero_point": True}})
    for module, out, width, group, words in [("many", 10, 320, 32, 2), ("padded", 3, 96, 32, 4)]:
        groups = width // group
        q, z, s = draw((out, width), 4), draw((out, 8 * words), 4), scales((out, 8 * words))
        members = [("codes", case.put(module + ".qweight", "I32", signed(stream(q, 4)))),
                   ("zeros", case.put(module + ".qzeros", "I32", signed(stream(z, 4)))),
                   ("scales", case.put(module + ".scales", "F16", s))]
        values = spread(s.astype(F32)[:, :groups], group, width) * (q - spread(z[:, :groups], group, width)).astype(F32)
        case.group(module + ".weight", "awq", "awq-gemv", 4, values, [1, group], [1, group], [], members)
    case.write()


def mlx(case, module, bits, shape, group, dtype):
    q = draw(shape, bits)
    width = shape[-1]
    s = scales((*shape[:-1], width // group), dtype)
    b = scales((*shape[:-1], width // group), dtype)
    members = [("codes", case.put(module + ".weight", "U32", stream(q, bits))),
               ("scales", case.put(module + ".scales", dtype, s)), ("offsets", case.put(module + ".biases", dtype, b))]
    wide = lambda array: spread(array.astype(np.float64), group, width)
    # Exact in F64, so that there is one rounding.
    values = (wide(s) * q + wide(b)).astype(F32)
    case.group(module + ".weight", "mlx", "mlx-affine", bits, values, [1] * (len(shape) - 1) + [group], [1] * (len(shape) - 1) + [group], [], members)


def make_mlx():
    case = Case("mlx-bits", {"quantization": {
        "group_size": 64, "bits": 5, "six": {"group_size": 32, "bits": 6}, "eight": {"group_size": 128, "bits": 8},
        "stack.three": {"bits": 3, "group_size": 32}, "stack.two": {"bits": 2, "group_size": 128}, "left": False}})
    mlx(case, "five", 5, (7, 192), 64, "F16")
    mlx(case, "six", 6, (9, 96), 32, "BF16")
    mlx(case, "eight", 8, (5, 256), 128, "BF16")
    mlx(case, "stack.three", 3, (3, 4, 64), 32, "F16")
    mlx(case, "stack.two", 2, (2, 5, 256), 128, "F16")
    case.put("left.weight", "F16", scales((3, 8)))
    case.write()
    case = Case("mlx-nvfp4", {"quantization": {"group_size": 16, "bits": 4, "mode": "nvfp4"}})
    for module, shape in [("a", (6, 64)), ("experts", (2, 3, 48))]:
        q = draw(shape, 4)
        s = e4m3((*shape[:-1], shape[-1] // 16))
        members = [("codes", case.put(module + ".weight", "U32", stream(q, 4))), ("scales", case.put(module + ".scales", "U8", s.view(np.uint8)))]
        values = FP4[q] * spread(s.astype(F32), 16, shape[-1])
        steps = [1] * (len(shape) - 1) + [16]
        case.group(module + ".weight", "nvfp4", "mlx-nvfp4", 4, values, steps, steps, [], members)
    case.write()


def e4m3(shape):
    """Any but NaN."""
    bytes_ = rng.integers(0, 0x7f, shape) | rng.choice([0, 0x80], shape)
    return bytes_.astype(np.uint8).view(ml_dtypes.float8_e4m3fn)


def e8m0(shape, low=1, high=250):
    codes = rng.integers(low, high, shape).astype(np.uint8)
    return codes, np.ldexp(F32(1), codes.astype(np.int32) - 127).astype(F32)


def ct_config(targets, fmt="pack-quantized"):
    groups = {}
    for number, (target, weights) in enumerate(targets):
        groups[f"group_{number}"] = {"targets": [target], "weights": weights}
    return {"quantization_config": {"quant_method": "compressed-tensors", "format": fmt, "config_groups": groups, "ignore": ["lm_head"]}}


def weights(bits, symmetric=True, strategy="group", group=32, kind="int"):
    return {"num_bits": bits, "type": kind, "symmetric": symmetric, "strategy": strategy, "group_size": group}


def ct_pack(case, module, bits, shape, group, symmetric, dtype="BF16", old=False, index=None):
    *outer, out, width = shape
    groups = math.ceil(width / group)
    q = draw(shape, bits)
    z = draw((*outer, out, groups), bits) if not symmetric else np.full((*outer, out, groups), 2 ** (bits - 1))
    s = scales((*outer, out, groups), dtype)
    pack = (lambda codes: padded(codes, bits)) if old else (lambda codes: stream(codes, bits))
    members = [("codes", case.put(module + ".weight_packed", "I32", signed(pack(q)))),
               ("scales", case.put(module + ".weight_scale", dtype, s)),
               ("shape", case.put(module + ".weight_shape", "I64", list(shape)))]
    if not symmetric:
        zeros = np.swapaxes(pack(np.swapaxes(z, -1, -2)), -1, -2)
        members.append(("zeros", case.put(module + ".weight_zero_point", "I32", signed(np.ascontiguousarray(zeros)))))
    if index is None:
        wide = lambda array: spread(array, group, width)
    else:
        members.append(("order", case.put(module + ".weight_g_idx", "I32", index)))
        def wide(array):
            return np.take_along_axis(array, np.broadcast_to(index[..., None, :] if index.ndim > 1 else index, shape), axis=-1)
    values = wide(s.astype(F32)) * (q - wide(z)).astype(F32)
    period = 32 // bits if old else 32 // math.gcd(bits, 32)
    flags = ([] if symmetric else ["asymmetric"]) + (["padded_words"] if old else []) + (["act_order"] if index is not None else [])
    along = period if groups == 1 or index is not None else math.lcm(group, period)
    ones = [1] * len(outer)
    case.group(module + ".weight", "int_packed", "ct-pack-old" if old else "ct-pack", bits, values,
               [*ones, 1, group], [*ones, 1 if symmetric else period, along], flags, members)


def make_ct():
    targets = []
    case = Case("ct-pack-bits")
    for bits in [1, 2, 3, 5, 6, 7, 8]:
        for symmetric in [True, False]:
            module = f"m.{'even' if symmetric else 'odd'}{bits}"
            targets.append((module, weights(bits, symmetric)))
            ct_pack(case, module, bits, (21, 96), 32, symmetric, "F32" if bits == 5 else "F16" if bits == 6 else "BF16")
    case.config = ct_config(targets)
    case.write()
    targets = []
    case = Case("ct-pack-old-bits")
    for bits in [3, 5, 6, 7]:
        for symmetric in [True, False]:
            module = f"m.{'even' if symmetric else 'odd'}{bits}"
            targets.append((module, weights(bits, symmetric)))
            ct_pack(case, module, bits, (23, 160), 32, symmetric, old=True)
    case.config = ct_config(targets)
    case.write()
    case = Case("ct-pack-stacks", ct_config([("re:.*experts.*", weights(4, False)), ("re:.*acted.*", weights(4, False, group=16)), ("Linear", weights(8))]))
    ct_pack(case, "m.experts.w1", 4, (3, 10, 64), 32, False)
    ct_pack(case, "m.acted.one", 4, (18, 64), 16, False, index=rng.permutation(np.arange(64) // 16))
    ct_pack(case, "m.acted.stack", 4, (2, 9, 64), 16, False, index=np.stack([rng.permutation(np.arange(64) // 16) for _ in range(2)]))
    ct_pack(case, "m.other", 8, (5, 64), 32, True)
    case.write()
    case = Case("ct-int8-groups", ct_config([("re:.*", weights(8, False, "group", 16))], "int-quantized"))
    for module, shape in [("m.a", (9, 48)), ("m.experts", (2, 5, 32))]:
        *outer, out, width = shape
        q = rng.integers(-128, 128, shape).astype(np.int8)
        s, z = scales((*outer, out, width // 16), "BF16"), rng.integers(-128, 128, (*outer, out, width // 16)).astype(np.int8)
        members = [("codes", case.put(module + ".weight", "I8", q)), ("scales", case.put(module + ".weight_scale", "BF16", s)),
                   ("zeros", case.put(module + ".weight_zero_point", "I8", z))]
        values = (q.astype(F32) - spread(z.astype(F32), 16, width)) * spread(s.astype(F32), 16, width)
        ones = [1] * (len(outer) + 1)
        case.group(module + ".weight", "int8", "ct-int8", 8, values, [*ones, 16], [1] * len(shape), ["asymmetric"], members)
    case.write()


E2M3 = np.array([(1 - 2 * (c >> 5)) * ((c & 7) / 8 if (c >> 3 & 3) == 0 else (1 + (c & 7) / 8) * 2.0 ** ((c >> 3 & 3) - 1)) for c in range(64)], F32)
E2M3[32] = -0.0


def make_floats():
    case = Case("fp8-block-sizes", {"text_config": {"quantization_config": {"quant_method": "fp8", "weight_block_size": [64, 32]}}})
    for module, shape, dtype in [("a", (200, 300), "F16"), ("b", (65, 33), "BF16"), ("experts", (2, 70, 40), "F32")]:
        w = e4m3(shape)
        *outer, out, width = shape
        s = scales((*outer, math.ceil(out / 64), math.ceil(width / 32)), dtype)
        members = [("codes", case.put(module + ".weight", "F8_E4M3", w)), ("scales", case.put(module + ".weight_scale_inv", dtype, s))]
        grid = np.repeat(np.repeat(s.astype(F32), 64, -2), 32, -1)[..., :out, :width]
        ones = [1] * len(outer)
        case.group(module + ".weight", "fp8_block", "fp8-block", 8, w.astype(F32) * grid, [*ones, 64, 32], [1] * len(shape), [], members)
    case.write()
    case = Case("fp8-e5m2")
    for module, suffix, shape in [("a", ".weight_scale", [40, 1]), ("b", ".weight_scale", [40]), ("c", ".qscale_weight", []), ("d", ".weight_scale", [1])]:
        w = rng.integers(0, 0x7c, (40, 130)) | rng.choice([0, 0x80], (40, 130))
        w = w.astype(np.uint8).view(ml_dtypes.float8_e5m2)
        s = scales(shape, "F32")
        members = [("codes", case.put(module + ".weight", "F8_E5M2", w)), ("scales", case.put(module + suffix, "F32", s))]
        values = w.astype(F32) * (s.reshape(-1, 1) if len(shape) and shape[0] > 1 else s.reshape(()))
        single = shape in ([], [1])
        case.group(module + ".weight", "fp8", "fp8-tensor" if single else "fp8-channel", 8, values,
                   [40, 130] if single else [1, 130], [1, 1], [], members)
    case.write()
    case = Case("mx-sizes", ct_config([("re:m4.*", weights(4, group=32, kind="float")), ("re:m6.*", weights(6, group=32, kind="float")),
                                       ("re:m8.*", weights(8, group=32, kind="float"))], "mixed"))
    for bits, kind, layout in [(4, "mxfp4", "mxfp4-ct"), (6, "mxfp6", "mxfp6-ct"), (8, "mxfp8", "mxfp8-ct")]:
        for module, shape in [(f"m{bits}.a", (5, 160)), (f"m{bits}.experts", (2, 3, 64))]:
            *lead, width = shape
            codes, powers = e8m0((*lead, width // 32), 0, 140)
            powers = spread(powers, 32, width)
            if bits == 8:
                w = e4m3(shape)
                plain, tensor = w.astype(F32), case.put(module + ".weight", "F8_E4M3", w)
            else:
                q = draw(shape, bits)
                plain, tensor = (FP4 if bits == 4 else E2M3)[q], case.put(module + ".weight_packed", "U8", stream(q, bits, 8))
            members = [("codes", tensor), ("scales", case.put(module + ".weight_scale", "U8", codes))]
            steps = [1] * len(lead) + [32]
            case.group(module + ".weight", kind, layout, bits, plain * powers, steps, steps, [], members)
    case.write()
    case = Case("nvfp4-sizes", {"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}})
    for module, shape in [("a", (256, 128)), ("b", (70, 48))]:
        q, s, g = draw(shape, 4), e4m3((shape[0], shape[1] // 16)), scales((), "F32")
        members = [("codes", case.put(module + ".weight", "U8", stream(q, 4, 8))), ("scales", case.put(module + ".weight_scale", "F8_E4M3", s)),
                   ("global", case.put(module + ".weight_scale_2", "F32", g)), ("input_scale", case.put(module + ".input_scale", "F32", np.ones(()))),
                   ("pre_scale", case.put(module + ".pre_quant_scale", "BF16", np.ones(shape[1])))]
        values = (FP4[q] * spread(s.astype(F32), 16, shape[1])) * g
        case.group(module + ".weight", "nvfp4", "nvfp4-modelopt", 4, values, [1, 16], [1, 16], [], members)
    case.write()
    case = Case("nvfp4-comfy-sizes", None, {"_quantization_metadata": json.dumps({"layers": {"marked": {"format": "nvfp4"}}})})
    for module, shape in [("marked", (256, 128)), ("padded", (200, 176))]:
        rows, width = shape
        q, s, g = draw(shape, 4), e4m3((rows, width // 16)), scales((), "F32")
        down, across = math.ceil(rows / 128) * 128, math.ceil(width / 64) * 4
        swizzled = np.zeros(down * across, np.uint8)
        for row in range(rows):
            for group in range(width // 16):
                tile = (row // 128) * (across // 4) + group // 4
                swizzled[tile * 512 + (row % 32) * 16 + (row % 128 // 32) * 4 + group % 4] = s.view(np.uint8)[row, group]
        pairs = q.reshape(rows, -1, 2)
        members = [("codes", case.put(module + ".weight", "U8", pairs[..., 0] << 4 | pairs[..., 1])),
                   ("scales", case.put(module + ".weight_scale", "F8_E4M3", swizzled.view(ml_dtypes.float8_e4m3fn).reshape(down, across))),
                   ("global", case.put(module + ".weight_scale_2", "F32", g))]
        values = (FP4[q] * spread(s.astype(F32), 16, width)) * g
        case.group(module + ".weight", "nvfp4", "nvfp4-comfy", 4, values, [1, 16], [1, 16], ["swizzled", "high_nibble_first"], members)
    case.write()


def make_bnb():
    case = Case("bnb-sizes")
    for module, kind, shape, block, nested in [("a", "fp4", (40, 72), 64, 16), ("b", "nf4", (9, 50), 128, None), ("c", "nf4", (2, 12, 64), 64, None), ("d", "fp4", (11, 13), 32, 4)]:
        count = math.prod(shape)
        q, table = draw(count, 4), np.sort(rng.uniform(-1, 1, 16)).astype(F32)
        blocks = math.ceil(count / block)
        state = {"quant_type": kind, "blocksize": block, "dtype": "bfloat16", "shape": list(shape)}
        even = np.append(q, np.zeros(count % 2, int)).reshape(-1, 2)
        weight = module + ".weight"
        members = [("codes", case.put(weight, "U8", (even[:, :1] << 4 | even[:, 1:]))), ("map", case.put(weight + ".quant_map", "F32", table))]
        if nested:
            codes, outer = draw(blocks, 8), scales(math.ceil(blocks / nested), "F32")
            map2, offset = np.sort(rng.uniform(-1, 1, 256)).astype(F32), float(F32(0.0137))
            state |= {"nested_blocksize": nested, "nested_offset": offset, "nested_dtype": "float32"}
            absmax = (map2[codes] * np.repeat(outer, nested)[:blocks]).astype(F32) + F32(offset)
            members += [("scales", case.put(weight + ".absmax", "U8", codes)), ("nested_scales", case.put(weight + ".nested_absmax", "F32", outer)),
                        ("nested_map", case.put(weight + ".nested_quant_map", "F32", map2))]
        else:
            absmax = scales(blocks, "F32")
            members.append(("scales", case.put(weight + ".absmax", "F32", absmax)))
        text = np.frombuffer(json.dumps(state).encode(), np.uint8)
        members.append(("state", case.put(weight + ".quant_state.bitsandbytes__" + kind, "U8", text)))
        values = (table[q] * np.repeat(absmax, block)[:count]).astype(F32).reshape(shape)
        row = math.prod(shape[1:])
        step = [min(block // math.gcd(row, block), shape[0]), *shape[1:]]
        case.group(weight, "bnb4", f"bnb-{kind}" + ("-nested" if nested else ""), 4, values, [1] * (len(shape) - 1) + [block], step, ["flat", "high_nibble_first"], members)
    case.write()


def make_bad():
    case = Case("x-opaque")
    q = rng.integers(-128, 128, (8, 16)).astype(np.int8)
    for module, marker in [("rotated", {"format": "int8_tensorwise", "convrot": True}), ("strange", {"format": "int3_magic"})]:
        case.put(module + ".weight", "I8", q)
        case.put(module + ".weight_scale", "F32", np.ones(()))
        case.put(module + ".comfy_quant", "U8", np.frombuffer(json.dumps(marker).encode(), np.uint8))
        case.bad(module + ".weight", "opaque")
    case.put("tiled.weight", "I8", q)
    case.put("tiled.SCB", "F32", np.ones(8))
    case.put("tiled.weight_format", "U8", np.array(2, np.uint8))
    case.bad("tiled.weight", "opaque")
    case.write()
    case = Case("x-config-says-otherwise", {"quantization_config": {"quant_method": "gptq", "bits": 8, "group_size": 16, "sym": False}})
    other = Case("", None)
    for module, bits, group in [("bits", 4, 16), ("group", 8, 8)]:
        gptq(other, module, bits, 8, 32, group, "gptq-v1")
        case.bad(module + ".weight", "broken", "config")
    case.tensors = other.tensors
    case.write()
    case = Case("x-mlx-says-otherwise", {"quantization": {"bits": 4, "group_size": 32}})
    other = Case("", None)
    mlx(other, "m", 8, (4, 64), 64, "F16")
    case.tensors = other.tensors
    case.bad("m.weight", "broken", "config")
    case.write()
    case = Case("x-left-alone", {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128], "modules_to_not_convert": ["m.left"]}})
    case.put("m.left.weight", "F8_E4M3", e4m3((4, 4)))
    case.put("m.left.weight_scale_inv", "F32", np.ones((1, 1)))
    case.put("m.taken.weight", "F8_E4M3", e4m3((4, 4)))
    case.bad("m.taken.weight", "broken", "missing", ["m.taken.weight_scale_inv"])
    case.write()


def any_scales(shape, dtype="F16"):
    """Any finite bits: subnormal, tiny, huge."""
    bits, kept, exponent = {"F16": (16, 0x83ff, 0x7c00), "BF16": (16, 0x807f, 0x7f80), "F32": (32, 0x807fffff, 0x7f800000)}[dtype]
    drawn = rng.integers(0, 2**bits, shape)
    drawn = np.where(drawn & exponent == exponent, drawn & kept, drawn)
    return np.asarray(drawn).astype(f"u{bits // 8}").view(DTYPES[dtype])


def make_extremes():
    global scales
    ordinary, scales = scales, any_scales
    case = Case("any-scales-ct", ct_config([(f"m.{dtype}", weights(bits, symmetric)) for dtype, bits, symmetric in EXTREMES]))
    for dtype, bits, symmetric in EXTREMES:
        ct_pack(case, f"m.{dtype}", bits, (19, 288), 32, symmetric, dtype)
    case.write()
    case = Case("any-scales-gptq", {"quantization_config": {
        "quant_method": "gptq", "bits": 4, "group_size": 32, "sym": False, "checkpoint_format": "gptq_v2"}})
    gptq(case, "f16", 4, 72, 320, 32, "gptq-v2", "F16")
    gptq(case, "bf16", 4, 24, 128, 32, "gptq-v2", "BF16")
    gptq(case, "acted", 4, 24, 128, 32, "gptq-v2", "BF16", index=rng.permutation(np.arange(128) // 32))
    case.write()
    case = Case("any-scales-fp8", {"quantization_config": {"quant_method": "modelopt", "quant_algo": "FP8"}})
    for module, dtype, shape in [("rows", "F32", [9, 1]), ("one", "BF16", []), ("f16", "F16", [9])]:
        w, s = e4m3((9, 300)), any_scales(shape, dtype)
        members = [("codes", case.put(module + ".weight", "F8_E4M3", w)), ("scales", case.put(module + ".weight_scale", dtype, s))]
        with np.errstate(over="ignore"):
            values = w.astype(F32) * s.astype(F32).reshape(-1, 1)
        single = shape == []
        case.group(module + ".weight", "fp8", "fp8-tensor" if single else "fp8-channel", 8, values,
                   [9, 300] if single else [1, 300], [1, 1], [], members)
    case.write()
    scales = ordinary


EXTREMES = [("F16", 4, False), ("BF16", 3, True), ("F32", 8, False)]

for make in [make_gptq, make_awq, make_mlx, make_ct, make_floats, make_bnb, make_bad, make_extremes]:
    make()
