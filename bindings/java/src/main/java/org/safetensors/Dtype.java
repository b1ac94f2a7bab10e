// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

/** An element type, spelled as in files: {@code Dtype.valueOf("BF16")} finds one by that spelling. */
public enum Dtype {
    /** One byte, 0 or 1. */
    BOOL(1, 8),
    /** 4-bit float E2M1, two elements a byte, low bits first (OCP Microscaling Formats 1.0). */
    F4(2, 4),
    /** 6-bit float, 2 exponent bits, packed from the low bits up (OCP Microscaling Formats 1.0). */
    F6_E2M3(3, 6),
    /** 6-bit float, 3 exponent bits, packed from the low bits up (OCP Microscaling Formats 1.0). */
    F6_E3M2(4, 6),
    /** Unsigned byte. */
    U8(5, 8),
    /** Signed byte. */
    I8(6, 8),
    /** 8-bit float with infinities. */
    F8_E5M2(7, 8),
    /** 8-bit float of the "fn" kind: no infinity, NaN is S.1111.111. */
    F8_E4M3(8, 8),
    /** A power of two, 2^(b - 127); NaN is 0xFF (OCP Microscaling Formats 1.0). */
    F8_E8M0(9, 8),
    /** 8-bit float with one zero, NaN is 0x80 (ONNX). */
    F8_E4M3FNUZ(10, 8),
    /** 8-bit float with one zero, NaN is 0x80 (ONNX). */
    F8_E5M2FNUZ(11, 8),
    /** Signed 16-bit integer. */
    I16(12, 16),
    /** Unsigned 16-bit integer. */
    U16(13, 16),
    /** IEEE 754 half precision. */
    F16(14, 16),
    /** The upper half of an F32. */
    BF16(15, 16),
    /** Signed 32-bit integer. */
    I32(16, 32),
    /** Unsigned 32-bit integer. */
    U32(17, 32),
    /** IEEE 754 single precision. */
    F32(18, 32),
    /** Complex number of two F32: real, imaginary. */
    C64(19, 64),
    /** IEEE 754 double precision. */
    F64(20, 64),
    /** Signed 64-bit integer. */
    I64(21, 64),
    /** Unsigned 64-bit integer. */
    U64(22, 64),
    /**
     * None of the above, kept as opaque bytes on request ({@link OpenOptions#tolerateUnknownDtypes(boolean)});
     * {@link Tensor#dtypeName()} has the file's spelling.
     */
    UNKNOWN(255, 0),
    /**
     * One of a newer native library, which this jar does not know: its bytes are there as any other's, and
     * {@link Tensor#dtypeName()} has its spelling.
     */
    UNRECOGNIZED(-1, 0);

    private static final Dtype[] BY_NUMBER = new Dtype[256];

    static {
        for (Dtype dtype : values()) {
            if (dtype.number >= 0) {
                BY_NUMBER[dtype.number] = dtype;
            }
        }
    }

    private final int number;
    private final int bits;

    Dtype(int number, int bits) {
        this.number = number;
        this.bits = bits;
    }

    /** {@return bits of one element: 4, 6, 8, 16, 32 or 64; 0 for the last two} */
    public int bits() {
        return bits;
    }

    /** {@return the number that C has for it; numbers never change; -1 for {@link #UNRECOGNIZED}} */
    public int number() {
        return number;
    }

    static Dtype of(int number) {
        Dtype known = number >= 0 && number < BY_NUMBER.length ? BY_NUMBER[number] : null;
        return known == null ? UNRECOGNIZED : known;
    }
}
