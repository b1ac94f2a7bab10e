// SPDX-License-Identifier: Apache-2.0

package cst

// #include "glue.h"
import "C"

import (
	"runtime"
	"runtime/cgo"
	"unsafe"
)

// A LoadItem is an st_load_item.
type LoadItem struct {
	Record  *Record
	Ranges  []Range
	DType   int32
	Dst     []byte
	Strides []int64
}

// A Sink is an st_sink; the rules of a Reader hold for its methods.
type Sink interface {
	// Buffers are the staging buffers.
	Buffers() [][]byte
	// Waits says whether Wait is to be called.
	Waits() bool
	// Chunk has size bytes of the result of an item, from its byte offset on.
	Chunk(buffer, item int, offset uint64, size int) *Error
	// Wait returns when a buffer may be filled again.
	Wait(buffer int) *Error
}

// LoadOptions is st_load_options.
type LoadOptions struct {
	Threads      uint32
	IO           int32
	StagingBytes uint64
	DropCache    bool
	Cancel       *int32   // ends the load once it is not 0; nil: nothing does
	Progress     Progress // nil: none
	Sink         Sink     // nil: plain destinations
}

// A Plan is an st_plan.
type Plan struct {
	Bytes, ReadBytes, OverReadBytes, Requests, StagingBytes uint64
	Threads, Shards                                         uint32
}

// loading is a load's arguments in C memory, but for destinations and buffers,
// which are pinned.
type loading struct {
	arena   *arena
	pinner  runtime.Pinner
	handles []cgo.Handle
	items   []C.st_load_item
	options *C.st_load_options
}

func newLoading(items []LoadItem, options *LoadOptions) (*loading, *Error) {
	var buffers [][]byte
	if options.Sink != nil {
		buffers = options.Sink.Buffers()
	}
	size := room[C.st_load_item](len(items)) + room[C.st_load_options](1) +
		room[C.st_sink](1) + room[C.st_buffer](len(buffers))
	for i := range items {
		size += room[C.st_range](len(items[i].Ranges)) + room[int64](len(items[i].Strides))
	}
	a, failure := newArena(size)
	if failure != nil {
		return nil, failure
	}
	l := &loading{arena: a, items: take[C.st_load_item](a, len(items))}
	for i := range items {
		l.item(&l.items[i], &items[i])
	}
	l.options = &take[C.st_load_options](a, 1)[0]
	*l.options = C.st_load_options{
		struct_size:   C.sizeof_st_load_options,
		threads:       C.uint32_t(options.Threads),
		io:            C.int32_t(options.IO),
		staging_bytes: C.uint64_t(options.StagingBytes),
	}
	if options.Cancel != nil {
		l.pinner.Pin(options.Cancel)
		l.options.cancel = (*C.int32_t)(options.Cancel)
	}
	if options.DropCache {
		l.options.drop_cache = 1
	}
	if options.Progress != nil {
		C.cst_load_progress(l.options, l.handle(options.Progress))
	}
	if options.Sink != nil {
		l.options.sink = l.sink(options.Sink, buffers)
	}
	return l, nil
}

func (l *loading) item(to *C.st_load_item, from *LoadItem) {
	to.tensor = from.Record.c()
	to.dtype = C.int32_t(from.DType)
	if ranges := take[Range](l.arena, len(from.Ranges)); ranges != nil {
		copy(ranges, from.Ranges)
		to.ranges = cRanges(ranges)
		to.range_count = C.size_t(len(ranges))
	}
	if strides := take[int64](l.arena, len(from.Strides)); strides != nil {
		copy(strides, from.Strides)
		to.dst_strides = (*C.int64_t)(&strides[0])
	}
	if len(from.Dst) > 0 {
		to.dst = pinned(&l.pinner, from.Dst)
		to.dst_size = C.size_t(len(from.Dst))
	}
}

func (l *loading) sink(from Sink, buffers [][]byte) *C.st_sink {
	sink := &take[C.st_sink](l.arena, 1)[0]
	*sink = C.st_sink{struct_size: C.sizeof_st_sink, buffer_count: C.size_t(len(buffers))}
	to := take[C.st_buffer](l.arena, len(buffers))
	for i, buffer := range buffers {
		to[i] = C.st_buffer{data: pinned(&l.pinner, buffer), size: C.size_t(len(buffer))}
	}
	sink.buffers = unsafe.SliceData(to)
	wait := C.int(0)
	if from.Waits() {
		wait = 1
	}
	C.cst_sink_init(sink, l.handle(from), wait)
	return sink
}

func (l *loading) handle(value any) C.uintptr_t {
	handle := cgo.NewHandle(value)
	l.handles = append(l.handles, handle)
	return C.uintptr_t(handle)
}

func (l *loading) free() {
	for _, handle := range l.handles {
		handle.Delete()
	}
	l.pinner.Unpin()
	l.arena.free()
}

// Load fills the items' destinations, or the sink.
func (c *Checkpoint) Load(items []LoadItem, options *LoadOptions) *Error {
	l, failure := newLoading(items, options)
	if failure != nil {
		return failure
	}
	defer l.free()
	var e C.st_error
	return check(C.st_load(c.c(), unsafe.SliceData(l.items), C.size_t(len(l.items)), l.options, &e), &e)
}

// LoadPlan says what Load would do.
func (c *Checkpoint) LoadPlan(items []LoadItem, options *LoadOptions) (*Plan, *Error) {
	l, failure := newLoading(items, options)
	if failure != nil {
		return nil, failure
	}
	defer l.free()
	var e C.st_error
	var plan C.st_plan
	status := C.st_load_plan(c.c(), unsafe.SliceData(l.items), C.size_t(len(l.items)), l.options, &plan, &e)
	if failure := check(status, &e); failure != nil {
		return nil, failure
	}
	return &Plan{
		Bytes:         uint64(plan.bytes),
		ReadBytes:     uint64(plan.read_bytes),
		OverReadBytes: uint64(plan.over_read_bytes),
		Requests:      uint64(plan.requests),
		StagingBytes:  uint64(plan.staging_bytes),
		Threads:       uint32(plan.threads),
		Shards:        uint32(plan.shards),
	}, nil
}

// Prefetch has the system read ahead; no records at all are all of them.
func (c *Checkpoint) Prefetch(records []*Record) *Error {
	a, failure := newArena(room[*C.st_tensor](len(records)))
	if failure != nil {
		return failure
	}
	defer a.free()
	pointers := take[*C.st_tensor](a, len(records))
	for i, record := range records {
		pointers[i] = record.c()
	}
	var e C.st_error
	return check(C.st_prefetch(c.c(), unsafe.SliceData(pointers), C.size_t(len(pointers)), &e), &e)
}
