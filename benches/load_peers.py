# SPDX-License-Identifier: Apache-2.0
"""Loading a checkpoint with what Python programs use, for the bench beside it.

    load_peers.py FILE     prints "name seconds" for each peer that is installed

The page cache is emptied of FILE before each. What is timed begins when the
imports are done.
"""
import os
import sys
import time


def cold(path):
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def numpy(path):
    import ml_dtypes  # noqa: F401  (it tells numpy of bfloat16)
    from safetensors.numpy import load_file
    cold(path)
    start = time.perf_counter()
    tensors = load_file(path)
    assert tensors
    return time.perf_counter() - start


def runai(path):
    import torch  # noqa: F401
    from runai_model_streamer import SafetensorsStreamer
    cold(path)
    start = time.perf_counter()
    with SafetensorsStreamer() as streamer:
        streamer.stream_file(path)
        seen = sum(tensor.nbytes for _, tensor in streamer.get_tensors())
    taken = time.perf_counter() - start
    assert seen
    return taken


for name, peer in (("PyPI safetensors + numpy", numpy), ("runai-model-streamer", runai)):
    try:
        print(f"{name}\t{peer(sys.argv[1]):.6f}")
    except ImportError as missing:
        print(f"{name}: not installed ({missing.name})", file=sys.stderr)
