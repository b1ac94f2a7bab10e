// SPDX-License-Identifier: Apache-2.0

package safetensors

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/libsafetensors/libsafetensors/bindings/go/internal/cst"
)

// A LoadItem is one thing to load: a tensor or part of it, as it is or
// converted, and where to.
type LoadItem struct {
	Tensor *Tensor
	Ranges []Range // as for Tensor.ReadSlice; nil: all of it
	DType  DType   // what to convert to, as Convert does; AsStored: nothing
	// Dst receives the result, little-endian, and may be larger: Go memory, for
	// instance BytesOf of a slice of values, or any other. Nil with a Sink.
	Dst []byte
	// Strides are the bytes from one element in Dst to the next, one for each
	// dimension; nil: dense, in C order.
	Strides []int64
}

// IO says how a load reads files.
type IO int32

const (
	IOAuto   IO = 0 // what is in the page cache from there, the rest past it
	IOCached IO = 1 // through the page cache
	IODirect IO = 2 // past the page cache, where the file system can
)

// LoadOptions says how to load. The zero value is the default in every field.
type LoadOptions struct {
	Threads      int    // most threads at work; 0: the library's choice
	IO           IO     // how files are read
	StagingBytes uint64 // most memory for staging, at least 65536; 0: 16 MiB
	DropCache    bool   // what was read through the page cache is dropped from it
	// Progress hears how many bytes are in their destinations, and how many
	// will be; a finished load has told done == total. It runs on the goroutine
	// that called Load.
	Progress func(done, total uint64)
	// Sink takes the results instead of destinations.
	Sink *Sink
}

// A Sink lets the library fill buffers of the caller's in turn, from which
// results go elsewhere, to a device for instance. Its functions run on the
// goroutine that called Load, one at a time; an error ends the load and can be
// found in its error. [Checkpoint.Stream] is the simple form.
type Sink struct {
	// Buffers has at least 4096 bytes each. With more of them than threads,
	// reading need not wait for the copies.
	Buffers [][]byte
	// Chunk has a piece of a result; with several threads they come in any
	// order. It may start an asynchronous copy out of the buffer, if there is a
	// Wait, and else has to be done with it.
	Chunk func(Chunk) error
	// Wait returns when the copy out of a buffer is over: once for each chunk,
	// before its buffer is filled again or Load returns, also when that fails.
	// nil: Chunk is done with the buffer when it returns.
	Wait func(buffer int) error
}

// A Chunk is a piece of one item's result.
type Chunk struct {
	Buffer int    // which of the buffers Data is in
	Item   int    // which of the items
	Offset uint64 // where in the item's result it begins
	Data   []byte // valid until Chunk returns, or until Wait has for this buffer
}

// A Plan is what a load would do.
type Plan struct {
	Bytes         uint64 // for destinations
	ReadBytes     uint64 // that will be read
	OverReadBytes uint64 // of those, what nobody asked for: small gaps read over
	Requests      uint64 // reads
	StagingBytes  uint64 // memory that staging will take at most
	Threads       int
	Shards        int // files that will be read
}

// Load reads many tensors, or parts of them, into the caller's memory: in file
// order, in large requests, on several threads, converted on the way where an
// item says so. It is the fast way to fill memory of one's own. Options may be
// nil.
//
// Once the context is done no further read begins, the load ends with those
// under way, and the error is an [ErrCancelled] and the context's. Other errors name the item: [ErrInvalidArgument],
// [ErrBufferSize], [ErrUnsupported], [ErrSubByte], [ErrIO], [ErrOutOfMemory],
// [ErrClosed], and what readers and sinks returned. After an error destinations
// hold anything, and nothing writes to them any more.
func (c *Checkpoint) Load(ctx context.Context, items []LoadItem, options *LoadOptions) (err error) {
	if err := begun(ctx); err != nil {
		return err
	}
	given, err := c.items(items)
	if err != nil {
		return err
	}
	if err := c.use(); err != nil {
		return err
	}
	defer c.core.done(&err)
	o, err := options.c()
	if err != nil {
		return err
	}
	var told func(done, total uint64)
	var buffers [][]byte
	var sinkOf func(*bridge, *failures) cst.Sink
	if options != nil {
		told = options.Progress
		if options.Sink != nil {
			buffers = options.Sink.Buffers
			sinkOf = func(b *bridge, kept *failures) cst.Sink { return &sink{*options.Sink, b, kept} }
		}
	}
	return c.core.load(ctx, given, buffers, o, told, sinkOf)
}

// load makes the call: straight, or over a bridge where there is something to
// be called back. Without buffers results go where the items say.
func (c *core) load(ctx context.Context, items []cst.LoadItem, buffers [][]byte, o *cst.LoadOptions,
	told func(done, total uint64), sinkOf func(*bridge, *failures) cst.Sink) error {
	kept := c.callbacks.failures()
	if kept == nil {
		kept = &failures{} // the sink's alone
	}
	memory := func() func() []extent {
		if buffers == nil {
			for i := range items {
				buffers = append(buffers, items[i].Dst)
			}
		}
		return memoryOf(buffers...)
	}
	defer c.reads(ctx, func() map[int]extent { return extents(items) }, memory)()
	if ctx.Done() != nil {
		o.Cancel = new(int32)
		defer context.AfterFunc(ctx, func() { atomic.StoreInt32(o.Cancel, 1) })()
	}
	if told == nil && sinkOf == nil {
		return ended(ctx, c.handle.Load(items, o), kept)
	}
	failure := bridged(ctx, func(b *bridge) *cst.Error {
		o.Progress = b.progress(told)
		if sinkOf != nil {
			o.Sink = sinkOf(b, kept)
		}
		return c.handle.Load(items, o)
	})
	return ended(ctx, failure, kept)
}

// Stream loads into two buffers of its own, and hands each piece to chunk, on
// this goroutine, while the next is being read: for what goes elsewhere than to
// memory. Pieces come in order, of each item and in all of the file. Items need
// no Dst; of the options, which may be nil, Threads and Sink are ignored.
// An error of chunk ends the stream and can be found in the error of Stream.
func (c *Checkpoint) Stream(ctx context.Context, items []LoadItem, options *LoadOptions, chunk func(Chunk) error) (err error) {
	if err := begun(ctx); err != nil {
		return err
	}
	if chunk == nil {
		return invalid("chunk is nil")
	}
	given, err := c.items(items)
	if err != nil {
		return err
	}
	if err := c.use(); err != nil {
		return err
	}
	defer c.core.done(&err)
	var own LoadOptions
	if options != nil {
		own = *options
	}
	own.Threads, own.Sink = 1, nil
	o, err := own.c()
	if err != nil {
		return err
	}
	buffers := streamBuffers(items)
	return c.core.load(ctx, given, buffers, o, own.Progress, func(b *bridge, kept *failures) cst.Sink {
		return &stream{sink: sink{Sink{Buffers: buffers, Chunk: chunk}, b, kept}, answers: make([]<-chan error, len(buffers))}
	})
}

// streamBuffers are two buffers, no larger than the largest result can be.
func streamBuffers(items []LoadItem) [][]byte {
	largest := uint64(4096)
	for _, item := range items {
		largest = max(largest, item.Tensor.Size, 4*item.Tensor.ElementCount)
	}
	size := min(largest, 2<<20)
	return [][]byte{make([]byte, size), make([]byte, size)}
}

// LoadPlan says what Load would do, without doing it; where no item has a Dst,
// what Stream would do.
func (c *Checkpoint) LoadPlan(items []LoadItem, options *LoadOptions) (p *Plan, err error) {
	given, err := c.items(items)
	if err != nil {
		return nil, err
	}
	if err := c.use(); err != nil {
		return nil, err
	}
	defer c.core.done(&err)
	o, err := options.c()
	if err != nil {
		return nil, err
	}
	hasDst := func(item LoadItem) bool { return item.Dst != nil }
	if options != nil && options.Sink != nil {
		o.Sink = &sink{sink: *options.Sink}
	} else if !slices.ContainsFunc(items, hasDst) {
		o.Threads = 1
		o.Sink = &sink{sink: Sink{Buffers: streamBuffers(items)}}
	}
	plan, failure := c.core.handle.LoadPlan(given, o)
	if failure != nil {
		return nil, c.core.failed(failure)
	}
	return &Plan{
		Bytes: plan.Bytes, ReadBytes: plan.ReadBytes, OverReadBytes: plan.OverReadBytes, Requests: plan.Requests,
		StagingBytes: plan.StagingBytes, Threads: int(plan.Threads), Shards: int(plan.Shards),
	}, nil
}

// Prefetch has the system read tensors ahead, and does not wait; nil is all of
// them.
func (c *Checkpoint) Prefetch(tensors []*Tensor) (err error) {
	if tensors != nil && len(tensors) == 0 {
		return nil
	}
	records := make([]*cst.Record, len(tensors))
	for i, t := range tensors {
		if err := c.owns(t); err != nil {
			return err
		}
		records[i] = t.record
	}
	if err := c.use(); err != nil {
		return err
	}
	defer c.core.done(&err)
	return c.core.failed(c.core.handle.Prefetch(records))
}

// LoadFloat32s returns the tensor's values as F32, converted where they are
// something else, in memory of their own.
func (t *Tensor) LoadFloat32s(ctx context.Context) (values []float32, err error) {
	if t.Data != nil {
		values = make([]float32, uint64(len(t.Data))*8/uint64(max(t.DType.Bits(), 1)))
		return values, Convert(t.DType, t.Data, F32, BytesOf(values))
	}
	if t.DType == UnknownDType {
		return nil, &Error{Code: ErrUnsupported, Message: fmt.Sprintf("%+q has the dtype %q", t.Name, t.DTypeName())}
	}
	if err := t.use(); err != nil {
		return nil, err
	}
	defer t.core.done(&err)
	values = make([]float32, t.ElementCount)
	item := LoadItem{Tensor: t, DType: F32, Dst: BytesOf(values)}
	if err := (&Checkpoint{core: t.core}).Load(ctx, []LoadItem{item}, nil); err != nil {
		return nil, err
	}
	return values, nil
}

// owns is an error for a tensor that is not of this checkpoint.
func (c *Checkpoint) owns(t *Tensor) error {
	switch {
	case c == nil || c.core == nil:
		return ErrClosed
	case t == nil:
		return invalid("a tensor is nil")
	case t.core != c.core:
		return invalid("tensor %+q is of another checkpoint, or of none", t.Name)
	}
	return nil
}

func (c *Checkpoint) items(items []LoadItem) ([]cst.LoadItem, error) {
	given := make([]cst.LoadItem, len(items))
	for i := range items {
		item := &items[i]
		if err := c.owns(item.Tensor); err != nil {
			return nil, err
		}
		if item.Strides != nil && len(item.Strides) != len(item.Tensor.Shape) {
			return nil, invalid("items[%d] has %d strides, but %+q has %d dimensions",
				i, len(item.Strides), item.Tensor.Name, len(item.Tensor.Shape))
		}
		given[i] = cst.LoadItem{
			Record: item.Tensor.record, Ranges: cRanges(item.Ranges), DType: int32(item.DType),
			Dst: item.Dst, Strides: item.Strides,
		}
	}
	return given, nil
}

func (o *LoadOptions) c() (*cst.LoadOptions, error) {
	if o == nil {
		return &cst.LoadOptions{}, nil
	}
	if o.Threads < 0 {
		return nil, invalid("LoadOptions.Threads is %d", o.Threads)
	}
	if o.Sink != nil && o.Sink.Chunk == nil {
		return nil, invalid("Sink.Chunk is nil")
	}
	return &cst.LoadOptions{
		Threads:      uint32(min(o.Threads, 1<<20)),
		IO:           int32(o.IO),
		StagingBytes: o.StagingBytes,
		DropCache:    o.DropCache,
	}, nil
}

// sink is a Sink as the library sees it.
type sink struct {
	sink   Sink
	bridge *bridge
	kept   *failures
}

func (s *sink) Buffers() [][]byte { return s.sink.Buffers }

func (s *sink) Waits() bool { return s.sink.Wait != nil }

func (s *sink) Chunk(buffer, item int, offset uint64, size int) *cst.Error {
	if s.bridge.cancelled.Load() {
		return &cst.Error{Code: cst.Cancelled, Message: "cancelled"}
	}
	return s.failed(<-s.post(buffer, item, offset, size))
}

// Wait is called after a cancellation too: a copy may be under way.
func (s *sink) Wait(buffer int) *cst.Error {
	return s.failed(s.bridge.ask(func() error { return s.sink.Wait(buffer) }))
}

func (s *sink) post(buffer, item int, offset uint64, size int) <-chan error {
	chunk := Chunk{Buffer: buffer, Item: item, Offset: offset, Data: s.sink.Buffers[buffer][:size:size]}
	return s.bridge.post(func() error { return s.sink.Chunk(chunk) })
}

func (s *sink) failed(err error) *cst.Error {
	if err == nil {
		return nil
	}
	return s.kept.note(err, ErrCancelled)
}

// stream is a sink that lets the library read on while a chunk is used, and has
// it wait for that before it fills the buffer again.
type stream struct {
	sink
	answers []<-chan error // for each buffer
}

func (s *stream) Waits() bool { return true }

func (s *stream) Chunk(buffer, item int, offset uint64, size int) *cst.Error {
	if s.bridge.cancelled.Load() {
		return &cst.Error{Code: cst.Cancelled, Message: "cancelled"}
	}
	s.answers[buffer] = s.post(buffer, item, offset, size)
	return nil
}

func (s *stream) Wait(buffer int) *cst.Error { return s.failed(<-s.answers[buffer]) }
