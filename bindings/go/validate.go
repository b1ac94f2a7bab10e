// SPDX-License-Identifier: Apache-2.0

package safetensors

import (
	"context"
	"strings"

	"github.com/libsafetensors/libsafetensors/bindings/go/internal/cst"
)

// A Problem is one rule that a file breaks.
type Problem struct {
	Code     Status
	Position uint64 // the byte in the file where it shows
	File     string
	Tensor   string // the tensor it is about; "" where it is about none
	Text     string // what is wrong, with the numbers; safe to print
	// Fatal: Open refuses the file for it. FatalTolerant: also where everything
	// is tolerated that OpenOptions can.
	Fatal, FatalTolerant bool
}

// Validate tells report of everything that is wrong with a file, an index and
// its shards, or a folder: of every broken rule, where opening stops at the
// first. It reads headers and no tensors. Options may be nil; Access and Prefetch
// are ignored. report runs on this goroutine, and false ends the call.
//
// The error is what [OpenWith] would say with these options: nil if there is
// nothing that it refuses the file for; [ErrCancelled] where report ended it.
func Validate(path string, options *OpenOptions, report func(Problem) bool) error {
	if err := compatible(); err != nil {
		return err
	}
	if err := withoutNUL(path); err != nil {
		return err
	}
	if options != nil && strings.IndexByte(options.Variant, 0) >= 0 {
		return invalid("a variant with NUL in it: %+q", options.Variant)
	}
	if report == nil {
		return invalid("report is nil")
	}
	failure := bridged(context.Background(), func(b *bridge) *cst.Error {
		return cst.Validate(path, options.c(), func(p cst.Problem) bool {
			problem := Problem{
				Code: Status(p.Code), Position: p.Position, File: p.File, Tensor: p.Tensor, Text: p.Text,
				Fatal: p.Fatal&cst.FatalStrict != 0, FatalTolerant: p.Fatal&cst.FatalTolerant != 0,
			}
			more := false
			err := b.ask(func() error { more = report(problem); return nil })
			return err == nil && more
		})
	})
	return failed(failure, nil)
}
