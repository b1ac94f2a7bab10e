// SPDX-License-Identifier: Apache-2.0

package cst

// #include <stdlib.h>
// #include "glue.h"
import "C"

import (
	"runtime"
	"runtime/cgo"
	"unsafe"
)

// A NewTensor is a tensor to be written.
type NewTensor struct {
	Name   string
	DType  int32
	Shape  []int64
	Data   []byte  // its bytes, where there are some
	Record *Record // else: whose bytes it has; nil: none
}

// SaveOptions is st_save_options, with the metadata.
type SaveOptions struct {
	Metadata               map[string]string // nil: none
	Order, Sync, Overwrite int32
	Alignment              uint32
	MaxShardSize           uint64
	HeaderReserve          uint64
	Progress               Progress    // nil: none
	Source                 *Checkpoint // nil: none
}

// given is what the functions that write take, in C memory but for the
// tensors' bytes, which are pinned.
type given struct {
	arena         *arena
	pinner        runtime.Pinner
	progress      cgo.Handle
	path          *C.char
	tensors       []C.st_tensor
	metadata      *C.st_metadata
	metadataCount C.size_t
	options       *C.st_save_options
}

// newGiven copies all that; path is "" for none.
func newGiven(path string, tensors []NewTensor, options *SaveOptions) (*given, *Error) {
	// One entry more than there are: metadata without entries is not NULL.
	size := textRoom(path) + room[C.st_tensor](len(tensors)) + room[C.st_save_options](1) +
		room[C.st_metadata](len(options.Metadata)+1)
	for i := range tensors {
		size += textRoom(tensors[i].Name) + room[int64](len(tensors[i].Shape))
	}
	for key, value := range options.Metadata {
		size += textRoom(key) + textRoom(value)
	}
	a, failure := newArena(size)
	if failure != nil {
		return nil, failure
	}
	g := &given{arena: a, path: a.text(path), tensors: take[C.st_tensor](a, len(tensors))}
	for i := range tensors {
		g.tensor(&g.tensors[i], &tensors[i])
	}
	g.metadata, g.metadataCount = a.metadata(options.Metadata)
	g.options = &take[C.st_save_options](a, 1)[0]
	*g.options = C.st_save_options{
		struct_size:    C.sizeof_st_save_options,
		order:          C.int32_t(options.Order),
		alignment:      C.uint32_t(options.Alignment),
		max_shard_size: C.uint64_t(options.MaxShardSize),
		sync:           C.int32_t(options.Sync),
		overwrite:      C.int32_t(options.Overwrite),
		header_reserve: C.uint64_t(options.HeaderReserve),
		source:         options.Source.c(),
	}
	if options.Progress != nil {
		g.progress = cgo.NewHandle(options.Progress)
		C.cst_save_progress(g.options, C.uintptr_t(g.progress))
	}
	return g, nil
}

func (g *given) tensor(to *C.st_tensor, from *NewTensor) {
	to.name = g.arena.text(from.Name)
	to.name_len = C.size_t(len(from.Name))
	to.dtype = C.int32_t(from.DType)
	to.rank = C.size_t(len(from.Shape))
	if shape := take[int64](g.arena, len(from.Shape)); shape != nil {
		copy(shape, from.Shape)
		to.shape = (*C.int64_t)(&shape[0])
	}
	switch {
	case len(from.Data) > 0:
		to.data = pinned(&g.pinner, from.Data)
		to.size = C.uint64_t(len(from.Data))
	case from.Data == nil && from.Record != nil:
		to.shard = from.Record.shard
		to.offset = from.Record.offset
		to.size = from.Record.size
		if from.Record.size > 0 {
			to.data = from.Record.data
		}
	}
}

// metadata copies entries one after the other; nil stays nil.
func (a *arena) metadata(metadata map[string]string) (*C.st_metadata, C.size_t) {
	if metadata == nil {
		return nil, 0
	}
	entries := take[C.st_metadata](a, len(metadata)+1)
	count := 0
	for key, value := range metadata {
		entries[count] = C.st_metadata{
			key: a.text(key), key_len: C.size_t(len(key)),
			value: a.text(value), value_len: C.size_t(len(value)),
		}
		count++
	}
	return &entries[0], C.size_t(count)
}

func (g *given) count() C.size_t { return C.size_t(len(g.tensors)) }

func (g *given) first() *C.st_tensor { return unsafe.SliceData(g.tensors) }

func (g *given) free() {
	if g.progress != 0 {
		g.progress.Delete()
	}
	g.pinner.Unpin()
	g.arena.free()
}

// Save writes a file, or several.
func Save(path string, tensors []NewTensor, options *SaveOptions) *Error {
	g, failure := newGiven(path, tensors, options)
	if failure != nil {
		return failure
	}
	defer g.free()
	var e C.st_error
	return check(C.st_save(g.path, g.first(), g.count(), g.metadata, g.metadataCount, g.options, &e), &e)
}

// Serialize returns the bytes that Save would write.
func Serialize(tensors []NewTensor, options *SaveOptions) ([]byte, *Error) {
	g, failure := newGiven("", tensors, options)
	if failure != nil {
		return nil, failure
	}
	defer g.free()
	var e C.st_error
	var out C.st_buffer
	if failure := check(C.st_serialize(g.first(), g.count(), g.metadata, g.metadataCount, g.options, &out, &e), &e); failure != nil {
		return nil, failure
	}
	defer C.st_buffer_free(&out)
	return append([]byte(nil), unsafe.Slice((*byte)(out.data), int(out.size))...), nil
}

// SetMetadata replaces a file's metadata; nil removes it.
func SetMetadata(path string, metadata map[string]string, inPlace bool, sync int32) *Error {
	size := textRoom(path) + room[C.st_metadata](len(metadata)+1)
	for key, value := range metadata {
		size += textRoom(key) + textRoom(value)
	}
	a, failure := newArena(size)
	if failure != nil {
		return failure
	}
	defer a.free()
	options := C.st_metadata_options{struct_size: C.sizeof_st_metadata_options, sync: C.int32_t(sync)}
	if inPlace {
		options.in_place = 1
	}
	entries, count := a.metadata(metadata)
	var e C.st_error
	return check(C.st_set_metadata(a.text(path), entries, count, &options, &e), &e)
}

// A Writer is an st_writer.
type Writer C.st_writer

// OpenWriter begins a file.
func OpenWriter(path string, tensors []NewTensor, options *SaveOptions) (*Writer, *Error) {
	g, failure := newGiven(path, tensors, options)
	if failure != nil {
		return nil, failure
	}
	defer g.free()
	var e C.st_error
	writer := C.st_writer_open(g.path, g.first(), g.count(), g.metadata, g.metadataCount, g.options, &e)
	if writer == nil {
		return nil, errorOf(&e)
	}
	return (*Writer)(writer), nil
}

func (w *Writer) c() *C.st_writer { return (*C.st_writer)(w) }

// Write writes bytes of one tensor.
func (w *Writer) Write(tensor int, offset uint64, data []byte) *Error {
	var e C.st_error
	status := C.st_writer_write(w.c(), C.size_t(tensor), C.uint64_t(offset),
		unsafe.Pointer(unsafe.SliceData(data)), C.size_t(len(data)), &e)
	return check(status, &e)
}

// Finish gives the files their names.
func (w *Writer) Finish() *Error {
	var e C.st_error
	return check(C.st_writer_finish(w.c(), &e), &e)
}

// Free releases the writer.
func (w *Writer) Free() { C.st_writer_free(w.c()) }
