# SPDX-License-Identifier: Apache-2.0
"""Loading a checkpoint into the memory of a GPU with what Python programs use, for the bench beside it.

    cuda_peers.py ROUNDS FILE...     prints a line for each peer that is installed

What is timed begins when the imports are done and the GPU is at work, and the
page cache is warm. Between rounds the tensors go back to torch's cache, so that
the memory of the GPU is there from the second on.
"""
import statistics
import sys
import time

rounds, files = int(sys.argv[1]), sys.argv[2:]


def load_file(torch):
    from safetensors.torch import load_file
    return [load_file(file, device="cuda") for file in files]


def host_first(torch):
    from safetensors.torch import load_file
    return [{name: tensor.to("cuda") for name, tensor in load_file(file).items()} for file in files]


def runai(torch):
    from runai_model_streamer import SafetensorsStreamer
    with SafetensorsStreamer() as streamer:
        streamer.stream_files(files, device="cuda")
        return [{name: tensor for name, tensor in streamer.get_tensors()}]


def fast(torch):
    from fastsafetensors import fastsafe_open
    with fastsafe_open(files, nogds=True, device="cuda:0") as opened:
        return [{name: opened.get_tensor(name).clone() for name in opened.keys()}]


try:
    import torch
    torch.zeros(1, device="cuda")
except Exception as missing:  # whatever it is: there are no peers then
    sys.exit(f"no torch with a GPU here ({missing})")
for name, peer in (("safetensors (Python), load_file(device='cuda')", load_file),
                   ("safetensors (Python), load_file, then .to('cuda')", host_first),
                   ("runai-model-streamer", runai), ("fastsafetensors", fast)):
    try:
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            loaded = peer(torch)
            torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
            size = sum(tensor.nbytes for part in loaded for tensor in part.values())
            del loaded
        took = statistics.median(times)
        print(f"{name}: {took * 1e3:.1f} ms, {size / took / 1e9:.2f} GB/s", flush=True)
    except ImportError as missing:
        print(f"{name}: not installed ({missing.name})", file=sys.stderr)
