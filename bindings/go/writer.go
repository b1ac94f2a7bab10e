// SPDX-License-Identifier: Apache-2.0

package safetensors

import (
	"io"
	"sync"

	"github.com/libsafetensors/libsafetensors/bindings/go/internal/cst"
)

// A Writer is a file being written in pieces, in any order. Its methods may be
// called from any number of goroutines at once, each for other bytes.
type Writer struct {
	mutex  sync.RWMutex // held for reading where bytes are written
	handle *cst.Writer  // nil: closed
}

// NewWriter begins a file whose tensors' bytes come later: of the tensors only
// Name, DType and Shape are looked at. The room that it takes is set aside now
// where the file system can: a full disk is an error here. Options may be nil.
//
//	w, err := safetensors.NewWriter(path, tensors, nil)
//	if err != nil {
//		return err
//	}
//	defer w.Close()
//	… w.Write, io.Copy(w.Tensor(i), …) …
//	return w.Finish()
//
// Errors are those of [Save].
func NewWriter(path string, tensors []*Tensor, options *SaveOptions) (*Writer, error) {
	if err := compatible(); err != nil {
		return nil, err
	}
	if err := withoutNUL(path); err != nil {
		return nil, err
	}
	var none sources
	given, err := none.given(tensors, false)
	if err != nil {
		return nil, err
	}
	handle, failure := cst.OpenWriter(path, given, options.c())
	if failure != nil {
		return nil, failed(failure, nil)
	}
	return &Writer{handle: handle}, nil
}

// Write writes bytes of one tensor: tensor is its number in the slice given to
// NewWriter, offset the first byte from the tensor's start.
//
// Errors: [ErrInvalidArgument] for a tensor that is not there, bytes past its
// end and bytes that are written already; [ErrIO], after which the same bytes
// may be written again; [ErrClosed].
func (w *Writer) Write(tensor int, offset uint64, data []byte) error {
	w.mutex.RLock()
	defer w.mutex.RUnlock()
	if w.handle == nil {
		return ErrClosed
	}
	if tensor < 0 {
		return invalid("there is no tensor %d", tensor)
	}
	return failed(w.handle.Write(tensor, offset, data), nil)
}

// Tensor returns a writer of one tensor's bytes, from its first one on.
func (w *Writer) Tensor(tensor int) *TensorWriter { return &TensorWriter{writer: w, tensor: tensor} }

// Finish brings the file to the disk and gives it its name. While bytes of a
// tensor are missing that is an [ErrDataNotCovered], and they may still be
// written. After an [ErrIO] the writer can only be closed.
func (w *Writer) Finish() error {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if w.handle == nil {
		return ErrClosed
	}
	return failed(w.handle.Finish(), nil)
}

// Close waits for writes under way and releases the writer. Where it has not
// been finished, nothing is left behind, and an older file at the path is as it
// was. A second Close does nothing. The error is nil.
func (w *Writer) Close() error {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if w.handle != nil {
		w.handle.Free()
		w.handle = nil
	}
	return nil
}

// A TensorWriter writes one tensor's bytes in turn: an [io.Writer] for
// [io.Copy], and an [io.WriterAt].
type TensorWriter struct {
	writer *Writer
	tensor int
	offset uint64
}

var (
	_ io.Writer   = (*TensorWriter)(nil)
	_ io.WriterAt = (*TensorWriter)(nil)
)

// Write writes after what the last Write wrote.
func (t *TensorWriter) Write(data []byte) (int, error) {
	if err := t.writer.Write(t.tensor, t.offset, data); err != nil {
		return 0, err
	}
	t.offset += uint64(len(data))
	return len(data), nil
}

// WriteAt writes at an offset from the tensor's start.
func (t *TensorWriter) WriteAt(data []byte, offset int64) (int, error) {
	if offset < 0 {
		return 0, invalid("the offset %d is negative", offset)
	}
	if err := t.writer.Write(t.tensor, uint64(offset), data); err != nil {
		return 0, err
	}
	return len(data), nil
}
