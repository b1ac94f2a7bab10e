// SPDX-License-Identifier: Apache-2.0

// Package cst is the C library as Go sees it: all of the module's cgo is here,
// and nothing but cgo. What calls mean to a Go program is decided above.
//
// Handles and records are pointers into C memory. Whoever calls sees to it
// that they are alive: nothing here counts, locks or recovers.
//
// Where the library has an array of nothing, its pointer is neither NULL nor an
// address, and a Go stack that holds one ends the program. So a count is looked
// at before the pointer beside it is.
package cst

// #include "glue.h"
import "C"

import (
	"strings"
	"unsafe"
)

// Statuses that callers here have to make or to tell apart.
const (
	InvalidArgument = int32(C.ST_ERROR_INVALID_ARGUMENT)
	OutOfMemory     = int32(C.ST_ERROR_OUT_OF_MEMORY)
	IO              = int32(C.ST_ERROR_IO)
	NotFound        = int32(C.ST_ERROR_NOT_FOUND)
	BufferSize      = int32(C.ST_ERROR_BUFFER_SIZE)
	Cancelled       = int32(C.ST_ERROR_CANCELLED)
	Unsupported     = int32(C.ST_ERROR_UNSUPPORTED)
	Internal        = int32(C.ST_ERROR_INTERNAL)
)

// HeaderVersion is the version of the header that this was compiled against,
// as one number, and HeaderABI its binary interface.
const (
	HeaderVersion = uint32(C.SAFETENSORS_VERSION)
	HeaderABI     = uint32(C.SAFETENSORS_ABI_VERSION)
)

// An Error is what the library wrote into an st_error.
type Error struct {
	Code    int32
	Errno   int32
	Message string
}

// errorOf copies what a failed call has written.
func errorOf(e *C.st_error) *Error {
	return &Error{Code: int32(e.code), Errno: int32(e.os_errno), Message: C.GoString(&e.message[0])}
}

// set writes an error for the library to pass on.
func (e *Error) set(to *C.st_error) C.st_status {
	to.code = C.st_status(e.Code)
	to.os_errno = C.int32_t(e.Errno)
	message := unsafe.Slice((*byte)(unsafe.Pointer(&to.message[0])), len(to.message))
	end := copy(message[:len(message)-1], strings.ReplaceAll(e.Message, "\x00", "?"))
	message[end] = 0
	return to.code
}

// check is nil where a call returned ST_OK.
func check(status C.st_status, e *C.st_error) *Error {
	if status == C.ST_OK {
		return nil
	}
	return errorOf(e)
}

// Version returns the version of the library that is running.
func Version() string { return C.GoString(C.st_version()) }

// ABIVersion returns the number of its binary interface.
func ABIVersion() uint32 { return uint32(C.st_abi_version()) }

// StatusName returns a status's spelling in C.
func StatusName(status int32) string { return C.GoString(C.st_status_name(C.st_status(status))) }

// DTypeName returns a dtype's spelling in files.
func DTypeName(dtype int32) string { return C.GoString(C.st_dtype_name(C.st_dtype(dtype))) }

// DTypeBits returns the bits of one element.
func DTypeBits(dtype int32) uint32 { return uint32(C.st_dtype_bits(C.st_dtype(dtype))) }

// Convert converts elements; src and dst have to be large enough.
func Convert(from int32, src []byte, to int32, dst []byte, count uint64) *Error {
	var e C.st_error
	status := C.st_convert(C.st_dtype(from), unsafe.Pointer(unsafe.SliceData(src)),
		C.st_dtype(to), unsafe.Pointer(unsafe.SliceData(dst)), C.size_t(count), &e)
	return check(status, &e)
}
