# SPDX-License-Identifier: Apache-2.0
"""Makes tests/agreement/convert/reference.txt: what conversions must give, by others' word.

    pip install numpy==2.4.6 ml_dtypes==0.6.0
    python3 tests/agreement/convert/make_reference.py > tests/agreement/convert/reference.txt

A line is: from, to, number of elements, how NaNs were compared, FNV-1a over the
elements of the result. The inputs are made the same way in tests/agreement/convert.rs.
NaNs are "exact", or "signed" (only their sign counts) where oracles differ or
keep payloads their own way.

Who says it: numpy and ml_dtypes for sources that F32 holds exactly and for
results in F32. They (and torch) round I32, U32, I64 and U64 to F16 and BF16, and
F64 to BF16, twice, by way of F32; there exact integer arithmetic in this file
does. It is checked against them first, on values where one rounding is all there is.

With --torch, tells on standard error where torch differs, NaNs aside.
"""
import math
import sys

import ml_dtypes
import numpy as np

BITS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
TYPES = {
    "BOOL": np.bool_, "F4": ml_dtypes.float4_e2m1fn, "F6_E2M3": ml_dtypes.float6_e2m3fn, "F6_E3M2": ml_dtypes.float6_e3m2fn,
    "U8": np.uint8, "I8": np.int8, "F8_E5M2": ml_dtypes.float8_e5m2, "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu, "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz, "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "I16": np.int16, "U16": np.uint16, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "I32": np.int32, "U32": np.uint32,
    "F32": np.float32, "F64": np.float64, "I64": np.int64, "U64": np.uint64,
}
TORCH = {"F8_E5M2": "float8_e5m2", "F8_E4M3": "float8_e4m3fn", "F8_E8M0": "float8_e8m0fnu", "F8_E4M3FNUZ": "float8_e4m3fnuz",
         "F8_E5M2FNUZ": "float8_e5m2fnuz", "BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64",
         "I32": "int32", "I64": "int64"}
NARROW = ["BOOL", "F4", "F6_E2M3", "F6_E3M2", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"]
# Mantissa bits; F32's bits below the target's last; the exponent of the least subnormal.
SMALL = {"F16": (10, 13, -24), "BF16": (7, 16, -133), "F8_E5M2": (2, 21, -16), "F8_E4M3": (3, 20, -9),
         "F8_E4M3FNUZ": (3, 20, -10), "F8_E5M2FNUZ": (2, 21, -17)}
SIGNED = {("F16", "F32"), ("F32", "F16"), ("BF16", "F16"), ("F64", "F32"), ("F64", "F16"), ("F64", "BF16")}


def boundaries(target):
    """F32 bits: every value of the target, what is halfway to the next, and their neighbours."""
    mantissa, shift, least = SMALL[target]
    half = 1 << (shift - 1)
    upper = np.arange(1 << (32 - shift), dtype=np.uint64) << np.uint64(shift)
    tails = np.array([0, 1, half - 1, half, half + 1, 2 * half - 1], np.uint64)
    normal = (upper[:, None] + tails).astype(np.uint32).ravel()
    quarters = np.arange(4 << mantissa, dtype=np.float64) * 2.0 ** (least - 2)
    exact = quarters.astype(np.float32).view(np.uint32)
    near = np.stack([exact, exact + np.uint32(1), np.maximum(exact, 1) - np.uint32(1)], 1).astype(np.uint32).ravel()
    return np.concatenate([normal, near, near | np.uint32(0x80000000)])


def wide_integers():
    """64-bit patterns: one or two bits far apart, and their neighbours, at every distance."""
    made = []
    for high in range(64):
        for low in range(64):
            for factor in (1, 3, 0xff, 0x1ff, 0x7ff, 0xfff):
                for near in (-1, 0, 1):
                    value = (factor << high) + (1 << low) + near
                    made += [value % 2**64, -value % 2**64]
    return np.array(made, np.uint64)


def wide_floats():
    """F64 bits: mantissas of a few bits far apart, and their neighbours, at every exponent that matters."""
    made = []
    exponents = [0, 1, 2, *range(860, 1160), 2045, 2046, 2047]
    for exponent in exponents:
        for base in (0, 1 << 51, 1 << 45, 1 << 44, 1 << 42, 0x7f << 45, 0x3ff << 42, 0x7fffff << 29):
            for low in range(52):
                for near in (-1, 0, 1):
                    bits = (exponent << 52) + base + (1 << low) + near
                    made += [bits % 2**64, (bits + 2**63) % 2**64]
    return np.array(made, np.uint64)


def packed_codes(bits):
    codes = list(range(1 << bits)) + list(reversed(range(1 << bits)))
    return codes, sum(code << (bits * at) for at, code in enumerate(codes)).to_bytes(len(codes) * bits // 8, "little")


def exact(value, target):
    """The target's bits for an int or a finite float, rounded once, in integers."""
    mantissa, least, infinity = {"F16": (10, -24, 0x7c00), "BF16": (7, -133, 0x7f80)}[target]
    sign = 0x8000 if math.copysign(1, value) < 0 else 0
    if value == 0:
        return sign
    numerator, denominator = abs(value).as_integer_ratio()
    exponent = numerator.bit_length() - denominator.bit_length()
    if numerator < denominator << exponent if exponent >= 0 else numerator << -exponent < denominator:
        exponent -= 1
    last = max(exponent - mantissa, least)  # the exponent of the last bit kept
    if last >= 0:
        denominator <<= last
    else:
        numerator <<= -last
    kept, rest = divmod(numerator, denominator)
    if 2 * rest > denominator or (2 * rest == denominator and kept & 1):
        kept += 1
    # With the leading bit in `kept`, the exponent field is one less than its steps.
    return sign | min(kept + ((last - least) << mantissa), infinity)


def convert(source, name_from, name_to):
    """`source`, as an array of the source's type, by numpy and ml_dtypes."""
    with np.errstate(all="ignore"):
        result = source.astype(TYPES[name_to])
    return result.view(BITS[result.dtype.itemsize])


def convert_exactly(source, name_to):
    result = np.empty(len(source), np.uint16)
    infinity, nan = {"F16": (0x7c00, 0x7e00), "BF16": (0x7f80, 0x7fc0)}[name_to]
    for at, value in enumerate(source.tolist()):
        if isinstance(value, float) and not math.isfinite(value):
            sign = 0x8000 if math.copysign(1, value) < 0 else 0
            result[at] = sign | (infinity if math.isinf(value) else nan)
        else:
            result[at] = exact(value, name_to)
    return result


def canonical(bits, name):
    """NaNs of 16 and 32 bits as the quiet one with their sign."""
    infinity, quiet, sign = {"F16": (0x7c00, 0x7e00, 0x8000), "BF16": (0x7f80, 0x7fc0, 0x8000),
                             "F32": (0x7f800000, 0x7fc00000, 0x80000000)}[name]
    return np.where((bits & (sign - 1)) > infinity, (bits & sign) | quiet, bits).astype(bits.dtype)


def fnv(bits):
    value = 0xcbf29ce484222325
    for element in bits.tolist():
        value = ((value ^ element) * 0x100000001b3) & 0xffffffffffffffff
    return value


def write(source, name_from, name_to, bits):
    nan = "signed" if (name_from, name_to) in SIGNED else "exact"
    if nan == "signed":
        bits = canonical(bits, name_to)
    print(name_from, name_to, len(bits), nan, f"{fnv(bits):016x}", flush=True)
    if "--torch" in sys.argv and name_from in TORCH and name_to in TORCH:
        compare_torch(source, name_from, name_to, bits)


def compare_torch(source, name_from, name_to, bits):
    import torch
    size = source.dtype.itemsize
    raw = torch.from_numpy(source.view({1: np.uint8, 2: np.int16, 4: np.int32, 8: np.int64}[size]).copy())
    result = raw.view(getattr(torch, TORCH[name_from])).to(getattr(torch, TORCH[name_to]))
    both = [torch.from_numpy(bits.view({1: np.uint8, 2: np.int16, 4: np.int32}[bits.dtype.itemsize]).copy()).view(result.dtype), result]
    ours, theirs = (values.to(torch.float32).numpy() for values in both)
    differ = (ours.view(np.uint32) != theirs.view(np.uint32)) & ~(np.isnan(ours) & np.isnan(theirs))
    print(f"torch {name_from} {name_to}: {differ.sum()} of {len(bits)} differ", [
        (hex(a), float(b), float(c)) for a, b, c in zip(source.view(BITS[size])[differ][:3].tolist(), ours[differ], theirs[differ])
    ], file=sys.stderr)


def main():
    targets = ["F32", "F16", "BF16"]
    for name in NARROW:
        codes = np.arange(256, dtype=np.uint8)
        if name in ("F4", "F6_E2M3", "F6_E3M2"):
            codes = np.array(packed_codes(4 if name == "F4" else 6)[0], np.uint8)
        source = codes != 0 if name == "BOOL" else codes.view(TYPES[name])
        for target in targets:
            write(source, name, target, convert(source, name, target))
    for name in ("I16", "U16", "F16", "BF16"):
        source = np.arange(65536, dtype=np.uint16).view(TYPES[name])
        for target in targets:
            if target != name:
                write(source, name, target, convert(source, name, target))
    for target in SMALL:
        source = boundaries(target).view(np.float32)
        write(source, "F32", target, convert(source, "F32", target))

    # The judge of double rounding agrees with the others where there is none.
    for target in ("F16", "BF16"):
        sample = np.random.default_rng(1).integers(0, 2**32, 200_000, dtype=np.uint32).view(np.float32)
        sample = sample[np.isfinite(sample)]
        assert (convert_exactly(sample, target) == convert(sample, "F32", target)).all()
    integers, floats = wide_integers(), wide_floats()
    for name in ("I32", "U32", "I64", "U64", "F64"):
        patterns = floats if name == "F64" else integers
        source = patterns.astype(np.uint32).view(TYPES[name]) if name in ("I32", "U32") else patterns.view(TYPES[name])
        write(source, name, "F32", convert(source, name, "F32"))
        for target in ("F16", "BF16"):
            made = convert_exactly(source, target)
            if (name, target) == ("F64", "F16"):
                assert (made == canonical(convert(source, name, target), target)).all(), "numpy rounds this once too"
            write(source, name, target, made)


main()
