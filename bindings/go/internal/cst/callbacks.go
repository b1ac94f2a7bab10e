// SPDX-License-Identifier: Apache-2.0

package cst

// #include "glue.h"
import "C"

import (
	"runtime/cgo"
	"unsafe"
)

// A Reader is what is behind an st_io. Its methods are called from any thread
// and must neither panic nor end the goroutine: there is C above them.
type Reader interface {
	// ReadAt reads up to len(dst) bytes, at least one.
	ReadAt(dst []byte, offset uint64) (int, *Error)
	// Release is called once, when the library is done with it.
	Release()
}

// A Source is an st_io.
type Source struct {
	Reader                     Reader
	Size                       uint64
	PreferredRead, MaxParallel uint
}

func (s *Source) c(io *C.st_io) {
	*io = C.st_io{
		struct_size:    C.sizeof_st_io,
		size:           C.uint64_t(s.Size),
		preferred_read: C.size_t(s.PreferredRead),
		max_parallel:   C.size_t(s.MaxParallel),
	}
	C.cst_io_init(io, C.uintptr_t(cgo.NewHandle(s.Reader)))
}

// A Resolver is an st_resolver; the same rules as for a Reader.
type Resolver interface {
	Open(name string) (Source, *Error)
	Release()
}

// A Progress is told how far a call has come, under the same rules; false ends
// the call.
type Progress func(done, total uint64) bool

func value[T any](handle C.uintptr_t) T { return cgo.Handle(handle).Value().(T) }

//export cstReadAt
func cstReadAt(handle C.uintptr_t, offset C.uint64_t, dst unsafe.Pointer, size C.size_t, done *C.size_t, e *C.st_error) C.st_status {
	n, failure := value[Reader](handle).ReadAt(unsafe.Slice((*byte)(dst), int(size)), uint64(offset))
	if failure != nil {
		return failure.set(e)
	}
	*done = C.size_t(n)
	return C.ST_OK
}

//export cstRelease
func cstRelease(handle C.uintptr_t) {
	value[interface{ Release() }](handle).Release()
	cgo.Handle(handle).Delete()
}

//export cstOpen
func cstOpen(handle C.uintptr_t, name *C.char, out *C.st_io, e *C.st_error) C.st_status {
	source, failure := value[Resolver](handle).Open(C.GoString(name))
	if failure != nil {
		return failure.set(e)
	}
	source.c(out)
	return C.ST_OK
}

//export cstProgress
func cstProgress(handle C.uintptr_t, done, total C.uint64_t) C.int32_t {
	if value[Progress](handle)(uint64(done), uint64(total)) {
		return 0
	}
	return 1
}

//export cstChunk
func cstChunk(handle C.uintptr_t, buffer, item C.size_t, offset C.uint64_t, size C.size_t, e *C.st_error) C.st_status {
	if failure := value[Sink](handle).Chunk(int(buffer), int(item), uint64(offset), int(size)); failure != nil {
		return failure.set(e)
	}
	return C.ST_OK
}

//export cstWait
func cstWait(handle C.uintptr_t, buffer C.size_t, e *C.st_error) C.st_status {
	if failure := value[Sink](handle).Wait(int(buffer)); failure != nil {
		return failure.set(e)
	}
	return C.ST_OK
}
