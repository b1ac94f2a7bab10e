# SPDX-License-Identifier: Apache-2.0
"""quantise.py FOLDER KIND OUT DECODED: the linear layers of a folder as fp8, gptq, awq, packed
(compressed-tensors) or mxfp4, and what that decodes to as BF16, computed here with numpy.

Rounding to the nearest and no calibration: right for comparing loaders, no way to make a good model.
"""

import json
import shutil
import struct
import sys
from pathlib import Path

import numpy as np

GROUP = 64
FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def read(path):
    data = np.memmap(path, np.uint8, "r")
    size = struct.unpack("<Q", data[:8].tobytes())[0]
    header = json.loads(data[8:8 + size].tobytes())
    header.pop("__metadata__", None)
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        yield name, entry["dtype"], entry["shape"], data[8 + size + begin:8 + size + end]


def write(path, tensors):
    """tensors: name -> (dtype, shape, bytes)"""
    header, at = {}, 0
    for name, (dtype, shape, body) in tensors.items():
        header[name] = dict(dtype=dtype, shape=list(shape), data_offsets=[at, at + len(body)])
        at += len(body)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, _, body in tensors.values():
            file.write(body)


def widened(body):
    return (np.frombuffer(body, "<u2").astype(np.uint32) << 16).view(np.float32)


def bf16(values):
    """To the nearest, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7fff + (bits >> 16 & 1)) >> 16).astype("<u2").tobytes()


def fp8_table():
    codes = np.arange(256)
    sign, exponent, fraction = np.where(codes & 0x80, -1.0, 1.0), codes >> 3 & 15, codes & 7
    values = np.where(exponent == 0, fraction / 8 * 2.0 ** -6, (1 + fraction / 8) * 2.0 ** (exponent - 7.0)) * sign
    values[[0x7f, 0xff]] = np.nan
    return values.astype(np.float32)


def nearest(table, values):
    """The index of the number of a sorted table that is nearest."""
    at = np.clip(np.searchsorted(table, values), 1, len(table) - 1)
    return at - (values - table[at - 1] < table[at] - values)


def fp8(name, w):
    table = fp8_table()
    order = np.argsort(np.where(np.isnan(table), np.inf, table), kind="stable")[:254]
    rows, columns = w.shape
    grid = np.empty((-(-rows // 128), -(-columns // 128)), np.float32)
    codes, decoded = np.empty(w.shape, np.uint8), np.empty(w.shape, np.float32)
    for i in range(grid.shape[0]):
        for j in range(grid.shape[1]):
            at = np.s_[128 * i:128 * i + 128, 128 * j:128 * j + 128]
            grid[i, j] = max(np.abs(w[at]).max() / 448, 1e-12)
            codes[at] = order[nearest(table[order], w[at] / grid[i, j])]
            decoded[at] = table[codes[at]] * grid[i, j]
    return {name + ".weight": ("F8_E4M3", w.shape, codes.tobytes()), name + ".weight_scale_inv": ("F32", grid.shape, grid.tobytes())}, decoded


def grouped(w, zero):
    """4 bits in groups with F16 scales: codes [rows, columns], scales and zero points [rows, groups], values."""
    rows, columns = w.shape
    parts = w.reshape(rows, columns // GROUP, GROUP)
    if zero is None:
        low, high = np.minimum(parts.min(2), 0), np.maximum(parts.max(2), 0)
        scales = np.maximum((high - low) / 15, 1e-6).astype(np.float16)
        zeros = np.clip(np.rint(-low / scales.astype(np.float32)), 0, 15)
    else:
        scales = np.maximum(np.abs(parts).max(2) / 7, 1e-6).astype(np.float16)
        zeros = np.full(scales.shape, zero)
    wide = scales.astype(np.float32)[..., None]
    codes = np.clip(np.rint(parts / wide) + zeros[..., None], 0, 15)
    values = (wide * (codes - zeros[..., None]).astype(np.float32)).reshape(w.shape)
    return codes.reshape(w.shape).astype(np.uint32), scales, zeros.astype(np.uint32), values


def words(codes, axis, order=range(8)):
    """Eight codes of 4 bits along an axis to a word."""
    codes = np.moveaxis(codes, axis, -1)
    codes = codes.reshape(*codes.shape[:-1], -1, 8)
    out = np.zeros(codes.shape[:-1], np.uint32)
    for k, column in enumerate(order):
        out |= codes[..., column] << np.uint32(4 * k)
    return np.ascontiguousarray(np.moveaxis(out, -1, axis)).astype("<u4")


def tensor(dtype, values):
    return dtype, values.shape, np.ascontiguousarray(values).tobytes()


def gptq(name, w):
    codes, scales, zeros, values = grouped(w, 8)
    return {name + ".qweight": tensor("I32", words(codes.T, 0)), name + ".qzeros": tensor("I32", words(zeros.T - 1, 1)), name + ".scales": tensor("F16", scales.T),
            name + ".g_idx": tensor("I32", (np.arange(w.shape[1]) // GROUP).astype("<i4"))}, values


def awq(name, w):
    order = (0, 2, 4, 6, 1, 3, 5, 7)
    codes, scales, zeros, values = grouped(w, None)
    return {name + ".qweight": tensor("I32", words(codes.T, 1, order)), name + ".qzeros": tensor("I32", words(zeros.T, 1, order)), name + ".scales": tensor("F16", scales.T)}, values


def packed(name, w):
    codes, scales, _, values = grouped(w, 8)
    return {name + ".weight_packed": tensor("I32", words(codes, 1)), name + ".weight_scale": tensor("F16", scales), name + ".weight_shape": tensor("I64", np.array(w.shape, "<i8"))}, values


def mxfp4(name, w):
    parts = w.reshape(w.shape[0], -1, 32)
    exponents = np.floor(np.log2(np.maximum(np.abs(parts).max(2), 2.0 ** -100))) - 2
    scales = (2.0 ** exponents).astype(np.float32)[..., None]
    size = nearest(FP4[:8], np.minimum(np.abs(parts) / scales, 6))
    codes = (size + 8 * np.signbit(parts)).astype(np.uint8)
    values = (FP4[codes] * scales).reshape(w.shape)
    codes = codes.reshape(w.shape)
    return {name + ".weight_packed": tensor("U8", codes[:, ::2] | codes[:, 1::2] << 4), name + ".weight_scale": tensor("U8", (exponents + 127).astype(np.uint8))}, values


def compressed(form, kind, group):
    weights = dict(num_bits=4, type=kind, symmetric=True, strategy="group", group_size=group, dynamic=False)
    return dict(quant_method="compressed-tensors", format=form, config_groups=dict(group_0=dict(targets=["Linear"], weights=weights)), ignore=["lm_head"])


KINDS = {
    "fp8": (fp8, dict(quant_method="fp8", fmt="e4m3", activation_scheme="dynamic", weight_block_size=[128, 128])),
    "gptq": (gptq, dict(quant_method="gptq", bits=4, group_size=GROUP, desc_act=False, sym=True, checkpoint_format="gptq")),
    "awq": (awq, dict(quant_method="awq", bits=4, group_size=GROUP, zero_point=True, version="gemm")),
    "packed": (packed, compressed("pack-quantized", "int", GROUP)),
    "mxfp4": (mxfp4, compressed("mxfp4-pack-quantized", "float", 32)),
}


def main():
    source, kind, out, plain = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
    make, config = KINDS[kind]
    coded, decoded = {}, {}
    for file in sorted(source.glob("*.safetensors")):
        for name, dtype, shape, body in read(file):
            if not name.endswith("_proj.weight"):
                coded[name] = decoded[name] = dtype, shape, body.tobytes()
                continue
            matrix = (widened(body.tobytes()) if dtype == "BF16" else np.frombuffer(body.tobytes(), "<f4")).reshape(shape)
            parts, values = make(name.removesuffix(".weight"), matrix)
            coded.update(parts)
            decoded[name] = "BF16", shape, bf16(values)
    for folder, tensors in ((out, coded), (plain, decoded)):
        folder.mkdir(parents=True)
        for file in source.glob("*.json"):
            if not file.name.startswith("model.safetensors"):
                shutil.copy(file, folder)
        write(folder / "model.safetensors", tensors)
    settings = json.loads((out / "config.json").read_text())
    settings["quantization_config"] = config
    (out / "config.json").write_text(json.dumps(settings, indent=2))


main()
