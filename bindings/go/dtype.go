// SPDX-License-Identifier: Apache-2.0

package safetensors

import (
	"fmt"

	"github.com/libsafetensors/libsafetensors/bindings/go/internal/cst"
)

// A DType is an element type, spelled as in files. The numbers are those of the
// C library and never change.
type DType int32

const (
	AsStored DType = 0 // no conversion, where a dtype may be chosen

	BOOL        DType = 1  // one byte, 0 or 1
	F4          DType = 2  // 4-bit float E2M1, two in a byte, low bits first
	F6_E2M3     DType = 3  // 6-bit float, packed from the low bits up
	F6_E3M2     DType = 4  // 6-bit float, packed from the low bits up
	U8          DType = 5  // unsigned byte
	I8          DType = 6  // signed byte
	F8_E5M2     DType = 7  // 8-bit float with infinities
	F8_E4M3     DType = 8  // 8-bit float without infinity
	F8_E8M0     DType = 9  // a power of two
	F8_E4M3FNUZ DType = 10 // 8-bit float with one zero
	F8_E5M2FNUZ DType = 11 // 8-bit float with one zero
	I16         DType = 12
	U16         DType = 13
	F16         DType = 14 // IEEE 754 half precision
	BF16        DType = 15 // the upper half of an F32
	I32         DType = 16
	U32         DType = 17
	F32         DType = 18
	C64         DType = 19 // two F32: real, imaginary
	F64         DType = 20
	I64         DType = 21
	U64         DType = 22

	// UnknownDType stands for what this version does not know, kept as opaque
	// bytes where [OpenOptions] tolerates it; [Tensor.DTypeName] has its spelling.
	UnknownDType DType = 255
)

// DTypes returns all dtypes of the format, by number.
func DTypes() []DType {
	all := make([]DType, 0, U64)
	for dtype := BOOL; dtype <= U64; dtype++ {
		all = append(all, dtype)
	}
	return all
}

// String returns the spelling in files, as "F32"; "UNKNOWN" for UnknownDType
// and "?" for a number that is not a dtype.
func (d DType) String() string { return cst.DTypeName(int32(d)) }

// Bits returns the bits of one element: 4, 6, 8, 16, 32 or 64; 0 for
// UnknownDType and for a number that is not a dtype.
func (d DType) Bits() int { return int(cst.DTypeBits(int32(d))) }

// ParseDType returns the dtype that files spell so; case matters, as in files.
func ParseDType(name string) (DType, error) {
	for _, dtype := range DTypes() {
		if dtype.String() == name {
			return dtype, nil
		}
	}
	return 0, &Error{Code: ErrDType, Message: fmt.Sprintf("no dtype is spelled %q", name)}
}

// MarshalText implements [encoding.TextMarshaler]: the spelling in files.
func (d DType) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (d *DType) UnmarshalText(text []byte) error {
	dtype, err := ParseDType(string(text))
	if err == nil {
		*d = dtype
	}
	return err
}

// Convert converts elements from one dtype to another: every float, integer
// and BOOL to F32, F16 and BF16, F32 to F8_E4M3, F8_E5M2 and their FNUZ kinds,
// and each dtype to itself. Values are rounded once, to nearest even; nothing
// saturates.
//
// src holds whole elements, as little-endian bytes. dst needs room for as many,
// may be larger, and must not overlap src. Errors: [ErrInvalidArgument],
// [ErrBufferSize], [ErrSubByte], and [ErrUnsupported] for other pairs.
func Convert(from DType, src []byte, to DType, dst []byte) error {
	if err := compatible(); err != nil {
		return err
	}
	fromBits, toBits := uint64(from.Bits()), uint64(to.Bits())
	if fromBits == 0 || toBits == 0 {
		return invalid("can't convert from %v to %v", from, to)
	}
	bits := uint64(len(src)) * 8
	count := bits / fromBits
	if bits%fromBits != 0 {
		return invalid("%d bytes are not a whole number of %v", len(src), from)
	}
	if needed := (count*toBits + 7) / 8; uint64(len(dst)) < needed {
		text := fmt.Sprintf("%d elements of %v need %d bytes, the destination has %d", count, to, needed, len(dst))
		return &Error{Code: ErrBufferSize, Message: text}
	}
	if overlap(src, dst) {
		return invalid("source and destination of a conversion overlap")
	}
	return failed(cst.Convert(int32(from), src, int32(to), dst, count), nil)
}
