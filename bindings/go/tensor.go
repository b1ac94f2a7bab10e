// SPDX-License-Identifier: Apache-2.0

package safetensors

import (
	"context"
	"fmt"
	"math"
	"unsafe"

	"github.com/libsafetensors/libsafetensors/bindings/go/internal/cst"
)

// A Tensor is a name, a dtype, a shape, and bytes: those of a checkpoint, or
// those in Data. What [Checkpoint.Tensors] returns is not to be changed; a copy
// may be, to be saved under another name for instance.
//
// A program makes its own for [Save] and [NewWriter] from Name, DType, Shape and
// Data; the other fields come from the library, and are ignored.
type Tensor struct {
	Name  string
	DType DType
	Shape []int64 // elements, outermost dimension first; empty: a scalar, one element
	Size  uint64  // bytes
	Data  []byte  // in C order, little-endian; nil in tensors of a checkpoint

	ElementCount uint64 // product of the shape
	Shard        int    // which file: an index into Checkpoint.Shards
	Offset       uint64 // where its bytes begin, from the start of that file

	core     *core
	record   *cst.Record
	spelling string // of a dtype that this package has no number for
}

// use begins a method that needs the checkpoint.
func (t *Tensor) use() error {
	if t.core == nil {
		return invalid("tensor %+q is of no checkpoint", t.Name)
	}
	return t.core.use()
}

// DTypeName returns the dtype as the file spells it, which says more than DType
// for an UnknownDType, and for one of a newer library.
func (t *Tensor) DTypeName() string {
	if t.DType > U64 && t.core != nil {
		return t.spelling
	}
	return t.DType.String()
}

// Bytes returns the tensor's bytes, little-endian: a view, nothing is copied,
// to be read only, and valid until the checkpoint is closed. In a mapped file
// they lie where the file has them; where nothing is mapped, the first call for
// a tensor reads it into memory of the checkpoint, aligned to 64 bytes.
//
// Errors: [ErrClosed], [ErrIO], [ErrOutOfMemory], and what a reader returned.
func (t *Tensor) Bytes() ([]byte, error) { return t.BytesContext(context.Background()) }

// BytesContext is Bytes, for where the bytes have to be read through a [Source]:
// once the context is done, no further read begins, and the error is an
// [ErrCancelled] and the context's.
func (t *Tensor) BytesContext(ctx context.Context) (bytes []byte, err error) {
	if t.Data != nil {
		return t.Data, nil
	}
	if err := begun(ctx); err != nil {
		return nil, err
	}
	if err := t.use(); err != nil {
		return nil, err
	}
	defer t.core.done(&err)
	defer t.reads(ctx, nil)()
	size := t.record.Size()
	if size > math.MaxInt {
		return nil, &Error{Code: ErrUnsupported, Message: fmt.Sprintf("tensor %+q is too large for a slice", t.Name)}
	}
	at, failure := t.core.handle.Get(t.record)
	if failure != nil {
		return nil, ended(ctx, failure, t.core.callbacks.failures())
	}
	if size == 0 {
		return []byte{}, nil
	}
	return unsafe.Slice((*byte)(at), int(size)), nil
}

// ReadInto copies the tensor's bytes into dst, which may be larger. It reads the
// file and never goes through a mapping: a file cut short is an error.
//
// Errors: [ErrClosed], [ErrIO], [ErrBufferSize], and what a reader returned;
// dst holds anything after an error.
func (t *Tensor) ReadInto(dst []byte) (err error) {
	if err := t.use(); err != nil {
		return err
	}
	defer t.core.done(&err)
	defer t.reads(context.Background(), dst)()
	return t.core.failed(t.core.handle.Read(t.record, dst))
}

// ReadIntoContext is ReadInto as a load of this one tensor, on several threads:
// once the context is done, no further read begins, and the error is an
// [ErrCancelled] and the context's.
func (t *Tensor) ReadIntoContext(ctx context.Context, dst []byte) error {
	return t.ReadSliceContext(ctx, dst)
}

// A Range says what a slice takes of one dimension: the elements Start, Start +
// Step, and so on, before Stop. Negative bounds count from the end, and Stop
// may be [End]; a Step of 0 means 1. Nothing is clamped: bounds outside the
// dimension are an error.
type Range struct{ Start, Stop, Step int64 }

// End as a Range's Stop is the dimension's end.
const End = math.MaxInt64

// All is the Range of a whole dimension.
func All() Range { return Range{Stop: End, Step: 1} }

func cRanges(ranges []Range) []cst.Range {
	c := make([]cst.Range, len(ranges))
	for i, r := range ranges {
		if r.Step == 0 {
			r.Step = 1
		}
		c[i] = cst.Range(r)
	}
	return c
}

// ReadSlice copies part of the tensor into dst: what the ranges pick, from the
// outermost dimension on, dense and in C order. Dimensions without a range are
// taken whole. Only what is needed is read, in few requests.
//
// Errors as ReadInto, and [ErrInvalidArgument] for ranges, [ErrSubByte] where a
// piece does not begin and end on a byte, [ErrUnsupported] for UnknownDType.
func (t *Tensor) ReadSlice(dst []byte, ranges ...Range) (err error) {
	if err := t.use(); err != nil {
		return err
	}
	defer t.core.done(&err)
	defer t.reads(context.Background(), dst)()
	return t.core.failed(t.core.handle.ReadSlice(t.record, cRanges(ranges), dst))
}

// ReadSliceContext is ReadSlice as ReadIntoContext is ReadInto.
func (t *Tensor) ReadSliceContext(ctx context.Context, dst []byte, ranges ...Range) (err error) {
	if err := begun(ctx); err != nil {
		return err
	}
	if err := t.use(); err != nil {
		return err
	}
	defer t.core.done(&err)
	item := LoadItem{Tensor: t, Ranges: ranges, Dst: dst}
	return (&Checkpoint{core: t.core}).Load(ctx, []LoadItem{item}, nil)
}

// SliceShape returns the shape of what ReadSlice gives for these ranges, and
// its size in bytes.
func (t *Tensor) SliceShape(ranges ...Range) (shape []int64, size uint64, err error) {
	if err := t.use(); err != nil {
		return nil, 0, err
	}
	defer t.core.done(&err)
	shape, size, failure := cst.SliceShape(t.record, cRanges(ranges))
	if failure != nil {
		return nil, 0, t.core.failed(failure)
	}
	return shape, size, nil
}
