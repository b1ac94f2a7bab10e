// SPDX-License-Identifier: Apache-2.0

package cst

// #include <stdlib.h>
// #include "glue.h"
import "C"

import (
	"runtime/cgo"
	"unsafe"
)

// A Checkpoint is an st_checkpoint.
type Checkpoint C.st_checkpoint

// A Record is an st_tensor that a checkpoint owns.
type Record C.st_tensor

// OpenOptions is st_open_options.
type OpenOptions struct {
	Access, Prefetch                                  int32
	Tolerate                                          uint32
	MaxHeaderSize, MaxTensors, MaxRank, MaxNameLength uint64
	Variant                                           string // of a folder; without NUL
	MaxSetBytes                                       uint64
}

// The flags of OpenOptions.Tolerate.
const (
	TolerateTrailingBytes = uint32(C.ST_TOLERATE_TRAILING_BYTES)
	TolerateUnknownDType  = uint32(C.ST_TOLERATE_UNKNOWN_DTYPE)
)

func (o *OpenOptions) c() C.st_open_options {
	return C.st_open_options{
		struct_size:     C.sizeof_st_open_options,
		access:          C.int32_t(o.Access),
		tolerate:        C.uint32_t(o.Tolerate),
		prefetch:        C.int32_t(o.Prefetch),
		max_header_size: C.uint64_t(o.MaxHeaderSize),
		max_tensors:     C.uint64_t(o.MaxTensors),
		max_rank:        C.uint64_t(o.MaxRank),
		max_name_length: C.uint64_t(o.MaxNameLength),
		max_set_bytes:   C.uint64_t(o.MaxSetBytes),
	}
}

// Open opens a path, which must not contain NUL.
func Open(path string, options *OpenOptions) (*Checkpoint, *Error) {
	var e C.st_error
	o := options.c()
	o.variant = C.CString(options.Variant)
	defer C.free(unsafe.Pointer(o.variant))
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	return opened(C.st_open_with(name, &o, &e), &e)
}

// OpenMemory opens bytes that stay where they are until Free.
func OpenMemory(data []byte, options *OpenOptions) (*Checkpoint, *Error) {
	var e C.st_error
	o := options.c()
	return opened(C.st_open_memory(address(data), C.size_t(len(data)), &o, &e), &e)
}

// OpenSource opens one file through callbacks.
func OpenSource(source Source, options *OpenOptions) (*Checkpoint, *Error) {
	var e C.st_error
	o := options.c()
	var io C.st_io
	source.c(&io)
	return opened(C.st_open_io(&io, &o, &e), &e)
}

// OpenResolved opens a file or an index, which must not contain NUL, through callbacks.
func OpenResolved(resolver Resolver, name string, options *OpenOptions) (*Checkpoint, *Error) {
	var e C.st_error
	o := options.c()
	r := C.st_resolver{struct_size: C.sizeof_st_resolver}
	C.cst_resolver_init(&r, C.uintptr_t(cgo.NewHandle(resolver)))
	text := C.CString(name)
	defer C.free(unsafe.Pointer(text))
	return opened(C.st_open_resolved(&r, text, &o, &e), &e)
}

func opened(checkpoint *C.st_checkpoint, e *C.st_error) (*Checkpoint, *Error) {
	if checkpoint == nil {
		return nil, errorOf(e)
	}
	return (*Checkpoint)(checkpoint), nil
}

func (c *Checkpoint) c() *C.st_checkpoint { return (*C.st_checkpoint)(c) }

// Free releases a checkpoint.
func (c *Checkpoint) Free() { C.st_free(c.c()) }

// Records returns all records, in C memory.
func (c *Checkpoint) Records() []Record {
	var count C.size_t
	records := C.cst_tensors(c.c(), &count)
	return unsafe.Slice((*Record)(records), int(count))
}

// A Shard is an st_shard, copied.
type Shard struct {
	Path                       string
	Size, DataOffset, DataSize uint64
	Access                     int32
	Reason                     string
}

// Shards returns copies of the shards.
func (c *Checkpoint) Shards() []Shard {
	var count C.size_t
	found := unsafe.Slice(C.st_shards(c.c(), &count), int(count))
	shards := make([]Shard, len(found))
	for i := range found {
		shard := &found[i]
		shards[i] = Shard{
			Path:       goText(shard.path, shard.path_len),
			Size:       uint64(shard.size),
			DataOffset: uint64(shard.data_offset),
			DataSize:   uint64(shard.data_size),
			Access:     int32(shard.access),
			Reason:     C.GoString(shard.reason),
		}
	}
	return shards
}

// Metadata returns copies of the entries; nil where there is no metadata.
func (c *Checkpoint) Metadata() map[string]string {
	var count C.size_t
	var present C.int
	first := C.cst_metadata(c.c(), &count, &present)
	if present == 0 {
		return nil
	}
	entries := unsafe.Slice(first, int(count))
	metadata := make(map[string]string, len(entries))
	for i := range entries {
		entry := &entries[i]
		metadata[goText(entry.key, entry.key_len)] = goText(entry.value, entry.value_len)
	}
	return metadata
}

// Get makes sure that a tensor's bytes are in memory and returns where they are;
// nil where there are none.
func (c *Checkpoint) Get(r *Record) (unsafe.Pointer, *Error) {
	if r.size == 0 {
		return nil, nil
	}
	if r.data != nil {
		return r.data, nil
	}
	var e C.st_error
	got := C.st_get_tensor_n(c.c(), r.name, r.name_len, &e)
	if got == nil {
		return nil, errorOf(&e)
	}
	return got.data, nil
}

// Read copies a tensor's bytes.
func (c *Checkpoint) Read(r *Record, dst []byte) *Error {
	var e C.st_error
	return check(C.st_read_tensor(c.c(), r.c(), address(dst), C.size_t(len(dst)), &e), &e)
}

// ReadSlice copies what the ranges pick.
func (c *Checkpoint) ReadSlice(r *Record, ranges []Range, dst []byte) *Error {
	var e C.st_error
	status := C.st_read_slice(c.c(), r.c(), cRanges(ranges), C.size_t(len(ranges)),
		address(dst), C.size_t(len(dst)), &e)
	return check(status, &e)
}

// SliceShape says what ReadSlice would give.
func SliceShape(r *Record, ranges []Range) (shape []int64, size uint64, failure *Error) {
	var e C.st_error
	shape = make([]int64, int(r.rank))
	status := C.st_slice_shape(r.c(), cRanges(ranges), C.size_t(len(ranges)),
		(*C.int64_t)(unsafe.SliceData(shape)), (*C.uint64_t)(&size), &e)
	return shape, size, check(status, &e)
}

// A Range is an st_range: same fields, same layout.
type Range struct{ Start, Stop, Step int64 }

func cRanges(ranges []Range) *C.st_range {
	return (*C.st_range)(unsafe.Pointer(unsafe.SliceData(ranges)))
}

// address is where a slice's bytes are. The library wants a pointer also where
// there are none; that of an empty slice may be nil.
func address(bytes []byte) unsafe.Pointer {
	if len(bytes) == 0 {
		return unsafe.Pointer(&nowhere)
	}
	return unsafe.Pointer(&bytes[0])
}

var nowhere byte

func (r *Record) c() *C.st_tensor { return (*C.st_tensor)(r) }

// Name returns a view of the name, in C memory.
func (r *Record) Name() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(r.name)), int(r.name_len))
}

// Shape returns a view of the shape, in C memory.
func (r *Record) Shape() []int64 {
	if r.rank == 0 {
		return nil
	}
	return unsafe.Slice((*int64)(r.shape), int(r.rank))
}

// DTypeName returns a copy of the dtype as the file spells it.
func (r *Record) DTypeName() string { return C.GoString(r.dtype_name) }

// The rest of the fields, as numbers.

func (r *Record) DType() int32         { return int32(r.dtype) }
func (r *Record) Shard() uint32        { return uint32(r.shard) }
func (r *Record) ElementCount() uint64 { return uint64(r.element_count) }
func (r *Record) Offset() uint64       { return uint64(r.offset) }
func (r *Record) Size() uint64         { return uint64(r.size) }

func goText(text *C.char, length C.size_t) string {
	return string(unsafe.Slice((*byte)(unsafe.Pointer(text)), int(length)))
}
