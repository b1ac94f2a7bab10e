# SPDX-License-Identifier: Apache-2.0
"""What numpy slices, for tests/reading/slices.rs: prints tests/reading/slices/reference.txt.

Each line is a shape, the ranges (an empty stop is the end), the shape of the
result, and the FNV-1a hash of its bytes, where the tensor counts 0, 1, 2, ...
as I64.

    pip install numpy==2.4.6
    python3 tests/reading/slices/make_reference.py > tests/reading/slices/reference.txt
"""

import random

import numpy


def fnv(data: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def bound(value: int, size: int) -> int:
    return value - size if value < size and random.random() < 0.4 else value


def one_range(size: int) -> slice:
    start, stop = sorted((random.randint(0, size), random.randint(0, size)))
    step = random.choice((1, 1, 1, 2, 3, size + 1))
    return slice(bound(start, size), None if random.random() < 0.3 else bound(stop, size), step)


def text(numbers) -> str:
    return ",".join(map(str, numbers)) or "-"


random.seed(1)
for _ in range(300):
    shape = [random.choice((0, 1, 2, 3, 4, 5, 7)) if random.random() < 0.3 else random.randint(1, 7)
             for _ in range(random.randint(0, 6))]
    ranges = [one_range(size) for size in shape][: random.randint(0, 6)]
    tensor = numpy.arange(numpy.prod(shape, dtype="<i8"), dtype="<i8").reshape(shape)
    result = tensor[tuple(ranges)]
    spelled = ",".join(f"{r.start}:{'' if r.stop is None else r.stop}:{r.step}" for r in ranges) or "-"
    print(text(shape), spelled, text(result.shape), f"{fnv(result.tobytes()):016x}")
