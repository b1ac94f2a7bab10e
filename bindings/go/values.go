// SPDX-License-Identifier: Apache-2.0

package safetensors

import (
	"fmt"
	"math"
	"unsafe"
)

// Float16 is an F16 as bits, and BFloat16 a BF16; [Checkpoint.Load] and
// [Convert] turn many of them into float32, and Float32 one. Bool is a BOOL:
// a byte, which in a file may be another than 0 and 1, as a Go bool may not.
type (
	Float16  uint16
	BFloat16 uint16
	Bool     uint8
)

// Float32 returns the value, which is exact.
func (f Float16) Float32() float32 {
	sign, exponent, mantissa := uint32(f>>15)<<31, uint32(f>>10)&0x1F, uint32(f)&0x3FF
	switch {
	case exponent == 0x1F: // infinity, or NaN with its bits
		return math.Float32frombits(sign | 0xFF<<23 | mantissa<<13)
	case exponent != 0:
		return math.Float32frombits(sign | (exponent+112)<<23 | mantissa<<13)
	case sign != 0:
		return -float32(mantissa) / (1 << 24)
	}
	return float32(mantissa) / (1 << 24)
}

// Float32 returns the value, which is exact.
func (f BFloat16) Float32() float32 { return math.Float32frombits(uint32(f) << 16) }

// Bool says whether it is another byte than 0.
func (b Bool) Bool() bool { return b != 0 }

// A Value is a Go type that a dtype has.
type Value interface {
	int8 | int16 | int32 | int64 | uint8 | uint16 | uint32 | uint64 |
		float32 | float64 | complex64 | Float16 | BFloat16 | Bool
}

// DTypeOf returns the dtype of a Go type: F32 of float32, BF16 of [BFloat16].
func DTypeOf[T Value]() DType {
	var value T
	switch any(value).(type) {
	case int8:
		return I8
	case int16:
		return I16
	case int32:
		return I32
	case int64:
		return I64
	case uint8:
		return U8
	case uint16:
		return U16
	case uint32:
		return U32
	case uint64:
		return U64
	case float32:
		return F32
	case float64:
		return F64
	case complex64:
		return C64
	case Float16:
		return F16
	case Bool:
		return BOOL
	default:
		return BF16
	}
}

// Values returns a tensor's values: the same view as [Tensor.Bytes], with the
// same lifetime, typed. The dtype has to be T's ([ErrWrongType]) and the bytes
// aligned for T ([ErrUnaligned]); nothing is converted.
func Values[T Value](t *Tensor) ([]T, error) {
	if dtype := DTypeOf[T](); t.DType != dtype {
		return nil, fmt.Errorf("%w: %+q is %s, not %v", ErrWrongType, t.Name, t.DTypeName(), dtype)
	}
	bytes, err := t.Bytes()
	if err != nil {
		return nil, err
	}
	var value T
	size := int(unsafe.Sizeof(value))
	switch {
	case bigEndian && size > 1:
		return nil, &Error{Code: ErrUnsupported, Message: "typed views need a little-endian machine"}
	case len(bytes)%size != 0:
		return nil, invalid("tensor %+q has %d bytes, which are not a whole number of %v", t.Name, len(bytes), t.DType)
	case len(bytes) == 0:
		return []T{}, nil
	case uintptr(unsafe.Pointer(&bytes[0]))%unsafe.Alignof(value) != 0:
		return nil, fmt.Errorf("%w: %+q of %v at offset %d", ErrUnaligned, t.Name, t.DType, t.Offset)
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&bytes[0])), len(bytes)/size), nil
}

// BytesOf returns the bytes of a slice of values, as [Tensor] Data or as a
// destination of [Checkpoint.Load]: the same memory, nothing is copied. On a
// big-endian machine they are not in the format's order.
func BytesOf[T Value](values []T) []byte {
	if len(values) == 0 {
		return []byte{}
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&values[0])), len(values)*int(unsafe.Sizeof(values[0])))
}

// Float32s is [Values] for F32.
func (t *Tensor) Float32s() ([]float32, error) { return Values[float32](t) }

// Float64s is [Values] for F64.
func (t *Tensor) Float64s() ([]float64, error) { return Values[float64](t) }

// Float16s is [Values] for F16.
func (t *Tensor) Float16s() ([]Float16, error) { return Values[Float16](t) }

// BFloat16s is [Values] for BF16.
func (t *Tensor) BFloat16s() ([]BFloat16, error) { return Values[BFloat16](t) }

// Bools is [Values] for BOOL.
func (t *Tensor) Bools() ([]Bool, error) { return Values[Bool](t) }

// Int8s is [Values] for I8.
func (t *Tensor) Int8s() ([]int8, error) { return Values[int8](t) }

// Int16s is [Values] for I16.
func (t *Tensor) Int16s() ([]int16, error) { return Values[int16](t) }

// Int32s is [Values] for I32.
func (t *Tensor) Int32s() ([]int32, error) { return Values[int32](t) }

// Int64s is [Values] for I64.
func (t *Tensor) Int64s() ([]int64, error) { return Values[int64](t) }

// Uint8s is [Values] for U8.
func (t *Tensor) Uint8s() ([]uint8, error) { return Values[uint8](t) }

// Uint16s is [Values] for U16.
func (t *Tensor) Uint16s() ([]uint16, error) { return Values[uint16](t) }

// Uint32s is [Values] for U32.
func (t *Tensor) Uint32s() ([]uint32, error) { return Values[uint32](t) }

// Uint64s is [Values] for U64.
func (t *Tensor) Uint64s() ([]uint64, error) { return Values[uint64](t) }

// Complex64s is [Values] for C64.
func (t *Tensor) Complex64s() ([]complex64, error) { return Values[complex64](t) }

var bigEndian = func() bool {
	number := uint16(1)
	return *(*byte)(unsafe.Pointer(&number)) == 0
}()

// overlap says whether two slices share a byte.
func overlap(a, b []byte) bool {
	if len(a) == 0 || len(b) == 0 {
		return false
	}
	first, second := uintptr(unsafe.Pointer(&a[0])), uintptr(unsafe.Pointer(&b[0]))
	return first < second+uintptr(len(b)) && second < first+uintptr(len(a))
}
