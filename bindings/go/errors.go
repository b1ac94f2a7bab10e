// SPDX-License-Identifier: Apache-2.0

package safetensors

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

// A Status says which rule was broken. The numbers are those of the C library
// and never change. A Status is an error, for use with [errors.Is].
type Status int32

const (
	ErrInvalidArgument Status = 1  // an argument breaks the rules
	ErrOutOfMemory     Status = 2  // there is no memory; the message says for what
	ErrIO              Status = 3  // a system call failed, or a file ended within a read
	ErrNotFound        Status = 4  // no tensor has this name
	ErrBufferSize      Status = 5  // a destination is too small
	ErrCancelled       Status = 6  // a context was done, or a callback asked to stop
	ErrUnsupported     Status = 7  // not in this version, or not for this combination
	ErrInternal        Status = 8  // a fault of the library itself: please report it
	ErrTruncated       Status = 9  // the file ends before its header's length or its last tensor
	ErrHeaderTooLarge  Status = 10 // header, tensors or names are over the limits
	ErrHeaderLength    Status = 11 // the header is longer than the file
	ErrHeaderStart     Status = 12 // the header does not begin with {
	ErrHeaderUTF8      Status = 13 // the header is not UTF-8
	ErrHeaderJSON      Status = 14 // the header is not JSON of the format's form
	ErrDuplicateKey    Status = 15 // a tensor, metadata key or field appears twice
	ErrMetadata        Status = 16 // the metadata is not a map of strings
	ErrDType           Status = 17 // a dtype is not one of the format's
	ErrShape           Status = 18 // a shape is not a list of sizes, or too large
	ErrOffsets         Status = 19 // data offsets are malformed, or leave a hole or an overlap
	ErrSizeMismatch    Status = 20 // offsets hold more or fewer bytes than dtype and shape need
	ErrDataNotCovered  Status = 21 // bytes belong to no tensor, or a writer's tensors lack some
	ErrSubByte         Status = 22 // elements smaller than a byte do not fill whole bytes
	ErrIndex           Status = 23 // the index is malformed, or a folder has several
	ErrShard           Status = 24 // a shard is missing, or lacks a tensor of the index
	ErrPlan            Status = 25 // a rank plan is wrong or does not fit the checkpoint
	ErrGroup           Status = 26 // a quantised group contradicts itself
	ErrConfig          Status = 27 // a config.json can't be read
)

// Faults that are this package's own to find.
var (
	// ErrClosed is the error of methods called after Close. It is an
	// [fs.ErrClosed] too.
	ErrClosed = fmt.Errorf("safetensors: %w", fs.ErrClosed)
	// ErrWrongType is the error of a typed view of a tensor of another dtype.
	ErrWrongType = errors.New("safetensors: the tensor has another dtype")
	// ErrUnaligned is the error of a typed view of bytes that do not begin where
	// a value of that type may. The format does not promise that they do. A copy
	// helps ([Checkpoint.Load]), or opening with [AccessRead].
	ErrUnaligned = errors.New("safetensors: the bytes are not aligned for the type")
)

// The constants' names, by number.
var statusNames = [...]string{
	ErrInvalidArgument: "ErrInvalidArgument",
	ErrOutOfMemory:     "ErrOutOfMemory",
	ErrIO:              "ErrIO",
	ErrNotFound:        "ErrNotFound",
	ErrBufferSize:      "ErrBufferSize",
	ErrCancelled:       "ErrCancelled",
	ErrUnsupported:     "ErrUnsupported",
	ErrInternal:        "ErrInternal",
	ErrTruncated:       "ErrTruncated",
	ErrHeaderTooLarge:  "ErrHeaderTooLarge",
	ErrHeaderLength:    "ErrHeaderLength",
	ErrHeaderStart:     "ErrHeaderStart",
	ErrHeaderUTF8:      "ErrHeaderUTF8",
	ErrHeaderJSON:      "ErrHeaderJSON",
	ErrDuplicateKey:    "ErrDuplicateKey",
	ErrMetadata:        "ErrMetadata",
	ErrDType:           "ErrDType",
	ErrShape:           "ErrShape",
	ErrOffsets:         "ErrOffsets",
	ErrSizeMismatch:    "ErrSizeMismatch",
	ErrDataNotCovered:  "ErrDataNotCovered",
	ErrSubByte:         "ErrSubByte",
	ErrIndex:           "ErrIndex",
	ErrShard:           "ErrShard",
	ErrPlan:            "ErrPlan",
	ErrGroup:           "ErrGroup",
	ErrConfig:          "ErrConfig",
}

// String returns the constant's name, as "ErrIO"; "Status(99)" for a number that
// this package does not know.
func (s Status) String() string {
	if s > 0 && int(s) < len(statusNames) {
		return statusNames[s]
	}
	return fmt.Sprintf("Status(%d)", int32(s))
}

// Error implements error.
func (s Status) Error() string { return "safetensors: " + s.String() }

// An Error is what the library has to say about a call that failed. Match it
// with [errors.As]; [errors.Is] finds its Status, its Errno and what a callback
// or a context returned.
type Error struct {
	Code    Status
	Errno   syscall.Errno // the system's, or that in a callback's error; 0: none
	Message string        // file, tensor, rule and numbers; safe to print
	causes  []error
}

// Error returns the message.
func (e *Error) Error() string { return "safetensors: " + e.Message }

// Unwrap returns the Status, the Errno if there is one, and what a callback
// or a context returned.
func (e *Error) Unwrap() []error {
	all := make([]error, 0, 2+len(e.causes))
	all = append(all, e.Code)
	if e.Errno != 0 {
		all = append(all, e.Errno)
	}
	return append(all, e.causes...)
}

func invalid(format string, arguments ...any) error {
	return &Error{Code: ErrInvalidArgument, Message: fmt.Sprintf(format, arguments...)}
}
