# SPDX-License-Identifier: Apache-2.0
"""The formats' own libraries on the checkpoints that the bench of groups wrote:
each weight to BF16 on one thread of the CPU, warm.

    python3 groups_peers.py FOLDER

scripts/bench groups runs it with a python that has what can be had of numpy,
torch, compressed-tensors, bitsandbytes and mlx. Prints a line for each that
there is: the number of the checkpoint, who decoded it, and GB/s of what was
written, by the least CPU time of a few rounds.
"""

import json
import os
import struct
import sys
import time

for threads in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[threads] = "1"

import numpy as np

ROUNDS = 5
NUMPY = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16, "I32": np.int32, "U32": np.uint32,
         "U8": np.uint8, "I8": np.int8, "I64": np.int64, "F8_E4M3": np.uint8}
FP4 = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6]


def optional(name):
    try:
        return __import__(name, fromlist=["_"])
    except Exception:
        return None


torch, bitsandbytes, mlx = optional("torch"), optional("bitsandbytes.functional"), optional("mlx.core")
packed = optional("compressed_tensors.compressors.pack_quantized.helpers") or optional("compressed_tensors.compressors.quantized_compressors.pack_quantized")
if torch:
    torch.set_num_threads(1)


def tensors_of(path):
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header, data = json.loads(file.read(size)), file.read()
    found = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        array = np.frombuffer(data[start:end], NUMPY[entry["dtype"]]).reshape(entry["shape"])
        found[name.removeprefix("m.")] = (entry["dtype"], array.copy())
    return found


def to_torch(dtype, array):
    tensor = torch.from_numpy(array)
    kinds = {"BF16": torch.bfloat16, "F8_E4M3": torch.float8_e4m3fn}
    return tensor.view(kinds[dtype]) if dtype in kinds else tensor


def nibbles(words, width=32):
    shifts = torch.arange(0, width, 4, dtype=torch.int32)
    return (words.unsqueeze(-1) >> shifts) & 15


def with_torch(t):
    """What the formats' libraries do in torch, for those that have no code of their own for a CPU."""
    half = torch.bfloat16
    if "weight_packed" in t and t["weight_packed"].dtype == torch.int32:
        def run():
            q = nibbles(t["weight_packed"]).flatten(1)
            g = q.shape[1] // t["weight_scale"].shape[1]
            z = 8
            if "weight_zero_point" in t:
                z = nibbles(t["weight_zero_point"].T).flatten(1)[:, : q.shape[0]].T.unsqueeze(-1)
            return ((q.view(q.shape[0], -1, g) - z).to(torch.float32) * t["weight_scale"].unsqueeze(-1)).flatten(1).to(half)
        return run
    if "qweight" in t:
        groups = t["scales"].shape[0]
        if t["qweight"].shape[1] == t["scales"].shape[1]:
            def run():
                q = nibbles(t["qweight"].T).flatten(1)
                z = (nibbles(t["qzeros"]).flatten(1).T + 1) & 15
                q = q.view(q.shape[0], groups, -1) - z.unsqueeze(-1)
                return (q.to(torch.float32) * t["scales"].T.unsqueeze(-1)).flatten(1).to(half)
            return run
        order = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7])

        def run():
            q, z = (nibbles(t[name])[..., order].flatten(1) for name in ("qweight", "qzeros"))
            q = q.view(groups, -1, q.shape[1]) - z.unsqueeze(1)
            return (q.to(torch.float32) * t["scales"].unsqueeze(1)).flatten(0, 1).T.contiguous().to(half)
        return run
    if "weight_scale_inv" in t:
        def run():
            w, s = t["weight"], t["weight_scale_inv"]
            rows, columns = w.shape[0] // s.shape[0], w.shape[1] // s.shape[1]
            w = w.to(torch.float32).view(s.shape[0], rows, s.shape[1], columns)
            return (w * s[:, None, :, None]).view(s.shape[0] * rows, -1).to(half)
        return run
    if "weight_scale" in t:
        codes = t.get("weight_packed", t.get("weight"))
        table = torch.tensor(FP4)

        def run():
            q = torch.stack((codes & 15, codes >> 4), -1).flatten(1).to(torch.int32)
            s = t["weight_scale"]
            s = torch.exp2(s.to(torch.float32) - 127) if s.dtype == torch.uint8 else s.to(torch.float32)
            values = table[q].view(q.shape[0], s.shape[1], -1) * s.unsqueeze(-1)
            if "weight_scale_2" in t:
                values = values * t["weight_scale_2"]
            return values.flatten(1).to(half)
        return run
    if "SCB" in t:
        return lambda: (t["weight"].to(torch.float32) * t["SCB"].unsqueeze(1) * 0.007874015718698502).to(half)
    return None


def with_compressed_tensors(t):
    if "weight_packed" not in t or t["weight_packed"].dtype != torch.int32 or "weight_zero_point" in t:
        return None
    shape = torch.Size(t["weight_shape"].tolist())

    def run():
        q = packed.unpack_from_int32(t["weight_packed"], 4, shape)
        s = t["weight_scale"]
        return (q.view(q.shape[0], s.shape[1], -1).to(s.dtype) * s.unsqueeze(-1)).flatten(1)
    return run


def with_bitsandbytes(t):
    if "weight.absmax" not in t:
        return None
    state = bitsandbytes.QuantState(absmax=t["weight.absmax"], shape=torch.Size([4096, 4096]), dtype=torch.bfloat16, blocksize=64,
                                    quant_type="nf4", code=t["weight.quant_map"])
    return lambda: bitsandbytes.dequantize_4bit(t["weight"], quant_state=state)


def with_mlx(t):
    if "biases" not in t:
        return None
    mlx.set_default_device(mlx.cpu)
    arrays = {name: mlx.array(array) if dtype != "BF16" else mlx.array(array).view(mlx.bfloat16) for name, (dtype, array) in t.items()}

    def run():
        mlx.eval(mlx.dequantize(arrays["weight"], arrays["scales"], arrays["biases"], group_size=64, bits=4))
    return run


def seconds(run):
    run()
    best = float("inf")
    for _ in range(ROUNDS):
        start, cpu = time.perf_counter(), time.process_time()
        run()
        # Of a library that takes more threads, whatever it was asked for, the time that one would take.
        best = min(best, time.process_time() - cpu)
    return best


def main():
    for folder in sorted(os.listdir(sys.argv[1])):
        found = tensors_of(os.path.join(sys.argv[1], folder, "model.safetensors"))
        as_torch = {name: to_torch(*entry) for name, entry in found.items()} if torch else {}
        peers = [("torch", torch, with_torch, as_torch), ("compressed-tensors", torch and packed, with_compressed_tensors, as_torch),
                 ("bitsandbytes", torch and bitsandbytes, with_bitsandbytes, as_torch), ("mlx", mlx, with_mlx, found)]
        for name, there, peer, tensors in peers:
            try:
                run = peer(tensors) if there else None
                if run:
                    print(f"{folder[:2]}\t{name}\t{4096 * 4096 * 2 / seconds(run) / 1e9:.3f}", flush=True)
            except Exception as error:
                print(f"{folder}: {name}: {error!r}"[:300], file=sys.stderr)


main()
