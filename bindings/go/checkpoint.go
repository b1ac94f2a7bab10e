// SPDX-License-Identifier: Apache-2.0

package safetensors

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/libsafetensors/libsafetensors/bindings/go/internal/cst"
)

// A Checkpoint is an opened set of named tensors. Its methods may be called
// from any number of goroutines at once.
type Checkpoint struct {
	closed atomic.Bool
	core   *core
}

// core is what the owners of a checkpoint share.
type core struct {
	// Owners in the upper half, methods under way in the lower. The last of
	// both frees; without owners nothing new begins.
	state atomic.Uint64

	handle    *cst.Checkpoint
	tensors   []Tensor
	byName    func() map[string]*Tensor
	shards    []Shard
	metadata  map[string]string
	callbacks *callbacks // of readers; nil where there are none
	release   func()     // what goes with the handle; may be nil
}

const oneOwner = 1 << 32

// use begins a method: nothing is freed until done. Deferring done also keeps
// everything reachable that the method needs.
func (c *core) use() error {
	if c == nil {
		return ErrClosed
	}
	for {
		state := c.state.Load()
		if state < oneOwner {
			return ErrClosed
		}
		if c.state.CompareAndSwap(state, state+1) {
			return nil
		}
	}
}

// done ends a method. Where it was the last user of a checkpoint that has been
// closed meanwhile, what closing a source said is joined to the method's error:
// Close has returned already.
func (c *core) done(err *error) {
	if c.drop(1) {
		if closing := c.callbacks.closed(); closing != nil {
			*err = errors.Join(*err, closing)
		}
	}
}

// drop gives up owners or methods, and says whether that was the last of both.
func (c *core) drop(what uint64) bool {
	if c.state.Add(-what) != 0 {
		return false
	}
	c.handle.Free()
	if c.release != nil {
		c.release()
	}
	return true
}

// failed is failed, with this checkpoint's callbacks.
func (c *core) failed(failure *cst.Error) error {
	if failure == nil {
		return nil
	}
	return failed(failure, c.callbacks.failures())
}

// Access says where a file's bytes come from.
type Access int32

const (
	// AccessAuto maps on file systems known to be local, and reads elsewhere.
	AccessAuto Access = 0
	// AccessMap maps: nothing is copied. Somebody who cuts the file short while
	// it is open ends the program that touches the lost bytes.
	AccessMap Access = 1
	// AccessRead maps nothing: a failing disk, a network file system or a file
	// cut short is an error and never a signal. [Tensor.Bytes] then reads a tensor
	// once, into memory of the checkpoint's.
	AccessRead Access = 2

	AccessMemory   Access = 3 // in Shard.Access only: memory of the caller's
	AccessCallback Access = 4 // in Shard.Access only: a reader of the caller's
)

// String returns a word for people.
func (a Access) String() string {
	words := []string{"auto", "map", "read", "memory", "callback"}
	if a < 0 || int(a) >= len(words) {
		return fmt.Sprintf("Access(%d)", int32(a))
	}
	return words[a]
}

// Prefetch says what to bring into memory at open.
type Prefetch int32

const (
	PrefetchNone     Prefetch = 0 // nothing
	PrefetchAdvise   Prefetch = 1 // tell the system to read ahead, and don't wait
	PrefetchPopulate Prefetch = 2 // mapped files are in memory when opening returns
)

// OpenOptions says how to open. The zero value is the default in every field.
type OpenOptions struct {
	Access                Access // of no effect on memory and readers
	Prefetch              Prefetch
	TolerateTrailingBytes bool // allow bytes after the last tensor
	TolerateUnknownDType  bool // keep tensors of unknown dtypes, as opaque bytes

	// Variant is that of the files to open in a folder: "fp16" for
	// model.fp16.safetensors; "" for those of none.
	Variant string

	// Limits, for each file by itself but for MaxSetBytes.
	MaxHeaderSize uint64 // largest header or index, in bytes; 0: 100,000,000
	MaxTensors    uint64 // most tensors in a header; 0: as many as fit
	MaxRank       uint64 // most dimensions of a tensor; 0: as many as fit
	MaxNameLength uint64 // longest name of a tensor in bytes; 0: as long as fits
	MaxSetBytes   uint64 // headers and index of all files together; 0: 1,000,000,000
}

func (o *OpenOptions) c() *cst.OpenOptions {
	if o == nil {
		return &cst.OpenOptions{}
	}
	c := &cst.OpenOptions{
		Access:        int32(o.Access),
		Prefetch:      int32(o.Prefetch),
		MaxHeaderSize: o.MaxHeaderSize,
		MaxTensors:    o.MaxTensors,
		MaxRank:       o.MaxRank,
		MaxNameLength: o.MaxNameLength,
		Variant:       o.Variant,
		MaxSetBytes:   o.MaxSetBytes,
	}
	if o.TolerateTrailingBytes {
		c.Tolerate |= cst.TolerateTrailingBytes
	}
	if o.TolerateUnknownDType {
		c.Tolerate |= cst.TolerateUnknownDType
	}
	return c
}

// Open opens a checkpoint with all defaults; see [OpenWith].
func Open(path string) (*Checkpoint, error) { return OpenWith(path, nil) }

// OpenWith opens a .safetensors file, a .safetensors.index.json with its shards
// beside it, or a folder: in it model.safetensors.index.json, else its only
// *.safetensors.index.json, else its only *.safetensors, else model.safetensors,
// else its only series of shards. Options may be nil.
//
// Close the checkpoint when nothing uses it any longer. Errors: [ErrIO] with
// the errno (so [fs.ErrNotExist] where there is no such file), the status of
// each rule of the format from [ErrTruncated] on, [ErrInvalidArgument],
// [ErrUnsupported], [ErrOutOfMemory].
func OpenWith(path string, options *OpenOptions) (*Checkpoint, error) {
	if err := compatible(); err != nil {
		return nil, err
	}
	if err := withoutNUL(path); err != nil {
		return nil, err
	}
	if options != nil && strings.IndexByte(options.Variant, 0) >= 0 {
		return nil, invalid("a variant with NUL in it: %+q", options.Variant)
	}
	handle, failure := cst.Open(path, options.c())
	return opened(handle, failure, nil, nil)
}

// OpenMemory opens one file's bytes that are in memory already. They are not
// copied: data is pinned until Close, and must not be changed before.
func OpenMemory(data []byte, options *OpenOptions) (*Checkpoint, error) {
	if err := compatible(); err != nil {
		return nil, err
	}
	// The pin is kept reachable until Close: where a checkpoint is forgotten,
	// that leaks memory, and a forgotten pin would end the program.
	release := pin(data)
	handle, failure := cst.OpenMemory(data, options.c())
	if failure != nil {
		release()
		release = nil
	}
	return opened(handle, failure, nil, release)
}

// opened fetches all that there is to know about a new handle: one crossing
// for all tensors.
func opened(handle *cst.Checkpoint, failure *cst.Error, callbacks *callbacks, release func()) (*Checkpoint, error) {
	if failure != nil {
		return nil, failed(failure, callbacks.failures())
	}
	c := &core{handle: handle, callbacks: callbacks, release: release}
	c.state.Store(oneOwner)
	c.metadata = handle.Metadata()
	for _, shard := range handle.Shards() {
		c.shards = append(c.shards, Shard{
			Path: shard.Path, Size: shard.Size, DataOffset: shard.DataOffset, DataSize: shard.DataSize,
			Access: Access(shard.Access), Reason: shard.Reason,
		})
	}
	c.fill(handle.Records())
	c.byName = sync.OnceValue(c.index)
	return &Checkpoint{core: c}, nil
}

// fill copies the records: names into one string, shapes into one slice.
func (c *core) fill(records []cst.Record) {
	size, dimensions := 0, 0
	for i := range records {
		size += len(records[i].Name())
		dimensions += len(records[i].Shape())
	}
	var text strings.Builder
	text.Grow(size)
	shapes := make([]int64, 0, dimensions)
	c.tensors = make([]Tensor, len(records))
	for i := range records {
		record := &records[i]
		name, shape := text.Len(), len(shapes)
		text.Write(record.Name())
		shapes = append(shapes, record.Shape()...)
		c.tensors[i] = Tensor{
			Name:         text.String()[name:],
			DType:        DType(record.DType()),
			Shape:        shapes[shape:len(shapes):len(shapes)],
			ElementCount: record.ElementCount(),
			Size:         record.Size(),
			Shard:        int(record.Shard()),
			Offset:       record.Offset(),
			core:         c,
			record:       record,
		}
		if c.tensors[i].DType > U64 { // unknown, or a newer library's
			c.tensors[i].spelling = record.DTypeName()
		}
	}
}

// index is made at the first lookup. The library has one too, but a Go map
// answers in less than the call there and back takes.
func (c *core) index() map[string]*Tensor {
	index := make(map[string]*Tensor, len(c.tensors))
	for i := range c.tensors {
		index[c.tensors[i].Name] = &c.tensors[i]
	}
	return index
}

// Close gives up the caller's ownership. With the last owner the mapping and
// everything lent goes: slices from [Tensor.Bytes] and its like must no longer
// be used. Methods under way in other goroutines finish first, and the last of
// them frees; Close itself does not wait. A second Close does nothing.
//
// The error is what closing a [Source] returned. Where a method was the last to
// use the checkpoint, it is joined to that method's error instead.
func (c *Checkpoint) Close() error {
	if c == nil || c.core == nil || c.closed.Swap(true) {
		return nil
	}
	c.core.drop(oneOwner)
	return c.core.callbacks.closed()
}

// Retain returns one more owner of the same checkpoint, to be closed on its
// own: tensors and slices of both stay valid until both are closed.
func (c *Checkpoint) Retain() (retained *Checkpoint, err error) {
	if err := c.use(); err != nil {
		return nil, err
	}
	defer c.core.done(&err)
	c.core.state.Add(oneOwner)
	return &Checkpoint{core: c.core}, nil
}

func (c *Checkpoint) use() error {
	if c == nil || c.closed.Load() {
		return ErrClosed
	}
	return c.core.use()
}

// Tensors returns all tensors, by shard and offset. They are the same each
// time, and valid after Close too, but for what reads their bytes; the slice is
// the caller's.
func (c *Checkpoint) Tensors() []*Tensor {
	if c == nil || c.core == nil {
		return nil
	}
	all := make([]*Tensor, len(c.core.tensors))
	for i := range all {
		all[i] = &c.core.tensors[i]
	}
	return all
}

// Tensor returns the tensor of this name, one of those of Tensors; the error is
// an [ErrNotFound] where there is none, which [Checkpoint.Lookup] does not make. It
// makes no call to C.
func (c *Checkpoint) Tensor(name string) (*Tensor, error) {
	if c == nil || c.core == nil || c.closed.Load() {
		return nil, ErrClosed
	}
	tensor, ok := c.core.byName()[name]
	if !ok {
		return nil, &Error{Code: ErrNotFound, Message: fmt.Sprintf("no tensor is named %+q", name)}
	}
	return tensor, nil
}

// Lookup returns the tensor of this name, one of those of Tensors, and whether
// there is one. It allocates nothing; after Close there is none.
func (c *Checkpoint) Lookup(name string) (*Tensor, bool) {
	if c == nil || c.core == nil || c.closed.Load() {
		return nil, false
	}
	tensor, ok := c.core.byName()[name]
	return tensor, ok
}

// Metadata returns the checkpoint's metadata, in a map of the caller's: nil
// where there is none, not nil where it is there and empty. Of several files:
// the index's entries (a value that is not a string as its JSON text), then the
// shards'; the first of equal keys stays.
func (c *Checkpoint) Metadata() map[string]string {
	if c == nil || c.core == nil {
		return nil
	}
	return maps.Clone(c.core.metadata)
}

// A Shard is one file of a checkpoint.
type Shard struct {
	Path       string // or the name in a file system of the caller's; "" for memory and a lone reader
	Size       uint64 // bytes in the file
	DataOffset uint64 // where the data section begins
	DataSize   uint64 // bytes that the tensors take
	Access     Access // what was chosen
	Reason     string // why; text for people
}

// Shards returns the files, by name; [Tensor.Shard] is an index into them. The
// slice is the caller's.
func (c *Checkpoint) Shards() []Shard {
	if c == nil || c.core == nil {
		return nil
	}
	return slices.Clone(c.core.shards)
}

// withoutNUL refuses what would be cut on its way to C.
func withoutNUL(path string) error {
	if strings.IndexByte(path, 0) >= 0 {
		return invalid("a path with NUL in it: %+q", path)
	}
	return nil
}
