// SPDX-License-Identifier: Apache-2.0

package cst

// #include <stdlib.h>
// #include "glue.h"
import "C"

import (
	"runtime"
	"unsafe"
)

// An arena is one block of zeroed C memory, for arrays of structs with
// pointers to each other: Go memory may hold none of the kind for C to follow.
// Sizes are added up first (room and its like), then taken in any order.
type arena struct {
	base       unsafe.Pointer
	used, size uintptr
}

// Everything is taken in multiples of this.
const arenaUnit = 8

func newArena(size uintptr) (*arena, *Error) {
	base := C.calloc(1, C.size_t(size+arenaUnit))
	if base == nil {
		return nil, &Error{Code: OutOfMemory, Message: "no memory for what is passed to the library"}
	}
	return &arena{base: base, size: size}, nil
}

func (a *arena) free() { C.free(a.base) }

// room is what an array of count Ts takes.
func room[T any](count int) uintptr {
	var t T
	return (uintptr(count)*unsafe.Sizeof(t) + arenaUnit - 1) &^ (arenaUnit - 1)
}

// textRoom is what a text and its NUL take.
func textRoom(text string) uintptr { return room[byte](len(text) + 1) }

// take returns zeroed room for count Ts; nil for none.
func take[T any](a *arena, count int) []T {
	size := room[T](count)
	if size > a.size-a.used {
		panic("safetensors: an arena was measured wrong")
	}
	if count == 0 {
		return nil
	}
	at := unsafe.Add(a.base, a.used)
	a.used += size
	return unsafe.Slice((*T)(at), count)
}

// text copies a text, and puts a NUL after it.
func (a *arena) text(text string) *C.char {
	to := take[byte](a, len(text)+1)
	copy(to, text)
	return (*C.char)(unsafe.Pointer(&to[0]))
}

// pinned is where a slice's bytes are, and stay until the pinner is done: only
// then may C memory hold that.
func pinned(pinner *runtime.Pinner, bytes []byte) unsafe.Pointer {
	at := address(bytes)
	pinner.Pin(at)
	return at
}
