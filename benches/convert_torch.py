# SPDX-License-Identifier: Apache-2.0
"""Converting on one thread, beside torch, in turn and on the same buffers.

    cargo build --release && python3 benches/convert_torch.py target/release/libsafetensors.so

Needs torch and numpy. Times are CPU time of the thread, so that a busy machine
disturbs them less; GB/s count what is read and what is written.
"""
import ctypes
import statistics
import sys
import time

import torch

NUMBERS = {"F8_E5M2": (7, torch.float8_e5m2), "F8_E4M3": (8, torch.float8_e4m3fn), "F16": (14, torch.float16),
           "BF16": (15, torch.bfloat16), "F32": (18, torch.float32), "F64": (20, torch.float64), "I64": (21, torch.int64)}
PAIRS = [("BF16", "F32"), ("F16", "F32"), ("F32", "BF16"), ("F32", "F16"), ("F8_E4M3", "F32"), ("F8_E5M2", "F32"),
         ("F8_E4M3", "BF16"), ("F32", "F8_E4M3"), ("F32", "F8_E5M2"), ("F16", "BF16"), ("I64", "F32"), ("F64", "F32")]


def main():
    library = ctypes.CDLL(sys.argv[1])
    library.st_convert.argtypes = [ctypes.c_int32, ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    torch.set_num_threads(1)
    for elements, rounds in ((64 << 20, 7), (64 << 10, 301)):
        print(f"\n{elements} elements, torch {torch.__version__}\n")
        print(f"{'from':>8} {'to':>8} {'ours GB/s':>10} {'torch GB/s':>11} {'ratio':>7}")
        for name_from, name_to in PAIRS:
            (number_from, dtype_from), (number_to, dtype_to) = NUMBERS[name_from], NUMBERS[name_to]
            src = torch.randn(elements).to(dtype_from)
            dst = torch.ones(elements).to(dtype_to)

            def ours():
                assert library.st_convert(number_from, src.data_ptr(), number_to, dst.data_ptr(), elements, None) == 0

            def theirs():
                dst.copy_(src)

            times = {ours: [], theirs: []}
            for turn in range(rounds + 1):
                for contender, found in times.items():
                    start = time.thread_time()
                    contender()
                    if turn:
                        found.append(time.thread_time() - start)
            moved = elements * (src.element_size() + dst.element_size()) / 1e9
            a, b = (statistics.median(found) for found in times.values())
            print(f"{name_from:>8} {name_to:>8} {moved / a:>10.2f} {moved / b:>11.2f} {b / a:>6.2f}x", flush=True)


main()
