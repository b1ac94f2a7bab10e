// SPDX-License-Identifier: Apache-2.0

package cst

// #include <stdlib.h>
// #include "glue.h"
import "C"

import (
	"runtime/cgo"
	"unsafe"
)

// A Problem is an st_problem, copied.
type Problem struct {
	Code               int32
	Fatal              uint32
	Position           uint64
	File, Tensor, Text string
}

// The flags of Problem.Fatal.
const (
	FatalStrict   = uint32(C.ST_FATAL_STRICT)
	FatalTolerant = uint32(C.ST_FATAL_TOLERANT)
)

// A Report gets the problems, under the rules of a Reader; false ends the call.
type Report func(Problem) bool

// Validate reports what is wrong with a path, which must not contain NUL.
func Validate(path string, options *OpenOptions, report Report) *Error {
	var e C.st_error
	o := options.c()
	o.variant = C.CString(options.Variant)
	defer C.free(unsafe.Pointer(o.variant))
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	handle := cgo.NewHandle(report)
	defer handle.Delete()
	return check(C.cst_validate(name, &o, C.uintptr_t(handle), &e), &e)
}

//export cstReport
func cstReport(handle C.uintptr_t, problem *C.st_problem) C.int32_t {
	p := Problem{
		Code:     int32(problem.code),
		Fatal:    uint32(problem.fatal),
		Position: uint64(problem.position),
		File:     goText(problem.file, problem.file_len),
		Text:     C.GoString(problem.text),
	}
	if problem.tensor != nil {
		p.Tensor = goText(problem.tensor, problem.tensor_len)
	}
	if value[Report](handle)(p) {
		return 0
	}
	return 1
}
