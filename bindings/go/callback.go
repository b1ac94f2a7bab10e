// SPDX-License-Identifier: Apache-2.0

package safetensors

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/libsafetensors/libsafetensors/bindings/go/internal/cst"
)

// Code of the caller's never runs above C frames: a panic or a Goexit (that is
// what testing.T.Fatal does) would unwind them, with locks held and threads
// still writing. What reads runs on a goroutine of its own (aside); for what
// has to run on the caller's goroutine, C is called from another (bridged).

// A panicked is the panic of a callback, on its way to the caller.
type panicked struct{ value any }

func (p *panicked) Error() string { return fmt.Sprintf("a callback panicked: %v", p.value) }

var errGoexit = errors.New("a callback ended its goroutine")

// aside runs a callback on a goroutine of its own.
func aside(callback func() error) error {
	result := make(chan error, 1)
	go func() {
		err := errGoexit
		returned := false
		defer func() {
			if !returned {
				if value := recover(); value != nil {
					err = &panicked{value}
				}
			}
			result <- err
		}()
		err = callback()
		returned = true
	}()
	return <-result
}

// failures keeps what callbacks returned, while the library carries it back as
// a status, a text and a number in the place of an errno.
type failures struct {
	mutex sync.Mutex
	last  int32
	kept  [64]struct {
		number int32
		err    error
	}
}

// note keeps an error and makes one for the library of it, with this status
// where the error has none of its own.
func (f *failures) note(err error, code Status) *cst.Error {
	var status Status
	switch {
	case errors.As(err, &status) && status > 0:
		code = status
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		code = ErrCancelled
	}
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if f.last == math.MinInt32 {
		f.last = 0
	}
	f.last--
	place := &f.kept[int(-int64(f.last))%len(f.kept)]
	place.number, place.err = f.last, err
	return &cst.Error{Code: int32(code), Errno: f.last, Message: err.Error()}
}

func (f *failures) find(number int32) error {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if place := f.kept[int(-int64(number))%len(f.kept)]; place.number == number {
		return place.err
	}
	return nil
}

// failed makes the caller's error of the library's, nil of nil; callbacks may
// be nil. Where a callback panicked, the panic goes on here.
func failed(failure *cst.Error, callbacks *failures, causes ...error) error {
	if failure == nil {
		return nil
	}
	err := &Error{Code: Status(failure.Code), Message: failure.Message, causes: causes}
	switch {
	case failure.Errno >= 0:
		err.Errno = syscall.Errno(failure.Errno)
	case callbacks != nil:
		cause := callbacks.find(failure.Errno)
		if p, ok := cause.(*panicked); ok {
			panic(p.value)
		}
		if cause != nil {
			err.causes = append(err.causes, cause)
			errors.As(cause, &err.Errno)
		}
	}
	return err
}

// A bridge takes callbacks from C over to the goroutine that waits for it.
type bridge struct {
	cancelled atomic.Bool
	questions chan question
}

type question struct {
	callback func() error
	answer   chan error
}

var errAbandoned = errors.New("the call was given up")

// post has the caller's goroutine run a callback, and returns where it will say
// what the callback returned.
func (b *bridge) post(callback func() error) <-chan error {
	answer := make(chan error, 1)
	b.questions <- question{callback, answer}
	return answer
}

// ask is post, and waits for the answer.
func (b *bridge) ask(callback func() error) error { return <-b.post(callback) }

// bridged makes a call into C from another goroutine, and answers its questions
// on this one. The call comes back in any case: if a callback panics or ends
// the goroutine, that goes on once it has.
func bridged(ctx context.Context, call func(*bridge) *cst.Error) *cst.Error {
	b := &bridge{questions: make(chan question, 2)} // as many as a stream has buffers
	finished := make(chan *cst.Error, 1)
	go func() { finished <- call(b) }()

	var pending chan error
	returned := false
	defer func() {
		if returned {
			return
		}
		b.cancelled.Store(true)
		pending <- errAbandoned
		for {
			select {
			case q := <-b.questions:
				q.answer <- errAbandoned
			case <-finished:
				return
			}
		}
	}()
	done := ctx.Done()
	for {
		select {
		case q := <-b.questions:
			pending = q.answer
			pending <- q.callback()
		case <-done:
			b.cancelled.Store(true)
			done = nil
		case failure := <-finished:
			returned = true
			return failure
		}
	}
}

// progress is what C is to call: the caller's function, if there is one, and
// false once the context is done.
func (b *bridge) progress(told func(done, total uint64)) cst.Progress {
	return func(done, total uint64) bool {
		if told != nil && !b.cancelled.Load() {
			err := b.ask(func() error { told(done, total); return nil })
			return err == nil && !b.cancelled.Load()
		}
		return !b.cancelled.Load()
	}
}

// ended is what a call that the context may have ended came to.
func ended(ctx context.Context, failure *cst.Error, callbacks *failures) error {
	if failure != nil && Status(failure.Code) == ErrCancelled && ctx.Err() != nil {
		return failed(failure, callbacks, ctx.Err(), context.Cause(ctx))
	}
	return failed(failure, callbacks)
}

// begun is an error where a context is done before there is anything to cancel.
func begun(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return &Error{Code: ErrCancelled, Message: "cancelled before it began", causes: []error{ctx.Err(), context.Cause(ctx)}}
}
