// SPDX-License-Identifier: Apache-2.0

package safetensors

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/libsafetensors/libsafetensors/bindings/go/internal/cst"
)

// The library asks a reader for bytes without saying which call needs them, and
// joins what is close together. Where they are says it, nearly always: each
// call under way has the part of each file that it can ask for. Where several
// could ask for the same bytes, where they go to says it, if that is memory of
// one of the calls and not the library's own.

// A reading is a call that may read through sources, until it returns.
type reading struct {
	ctx    context.Context
	parts  map[int]extent  // by shard
	core   *core           // whose shards they are; nil: it can ask for anything
	memory func() []extent // where results go, in order; nil: the library's
}

// An extent is a part of a file, or of memory.
type extent struct{ begin, end uint64 }

// memoryOf is where results go, in order and apart; found when it is first asked for.
func memoryOf(places ...[]byte) func() []extent {
	return sync.OnceValue(func() []extent {
		var memory []extent
		for _, one := range places {
			if len(one) != 0 {
				begin := address(one)
				memory = append(memory, extent{begin, begin + uint64(len(one))})
			}
		}
		slices.SortFunc(memory, func(a, b extent) int { return cmp.Compare(a.begin, b.begin) })
		apart := memory[:0]
		for _, one := range memory {
			if last := len(apart) - 1; last >= 0 && one.begin <= apart[last].end {
				apart[last].end = max(apart[last].end, one.end)
			} else {
				apart = append(apart, one)
			}
		}
		return apart
	})
}

func address(memory []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(memory)))) }

func (t *Tensor) extent() map[int]extent {
	return map[int]extent{int(t.record.Shard()): {t.record.Offset(), t.record.Offset() + t.record.Size()}}
}

// reads notes the reading of this tensor, until the result is called.
func (t *Tensor) reads(ctx context.Context, dst []byte) (returned func()) {
	return t.core.reads(ctx, t.extent, func() func() []extent { return memoryOf(dst) })
}

// extents is from the first byte of any item to the last, for each shard: what
// is between may be read over.
func extents(items []cst.LoadItem) map[int]extent {
	parts := map[int]extent{}
	for i := range items {
		record := items[i].Record
		begin, end := record.Offset(), record.Offset()+record.Size()
		if part, ok := parts[int(record.Shard())]; ok {
			begin, end = min(begin, part.begin), max(end, part.end)
		}
		parts[int(record.Shard())] = extent{begin, end}
	}
	return parts
}

// reads notes a call that may read, until the result is called.
func (c *core) reads(ctx context.Context, parts func() map[int]extent, memory func() func() []extent) (returned func()) {
	if c.callbacks == nil {
		return func() {}
	}
	return c.callbacks.note(&reading{ctx, parts(), c, memory()})
}

// anywhere notes a call that can ask for anything: an opening, or a save.
func (c *callbacks) anywhere(ctx context.Context) (returned func()) {
	return c.note(&reading{ctx: ctx})
}

func (c *callbacks) note(r *reading) (returned func()) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.reading == nil {
		c.reading = map[*reading]struct{}{}
	}
	c.reading[r] = struct{}{}
	return func() {
		c.mutex.Lock()
		defer c.mutex.Unlock()
		delete(c.reading, r)
	}
}

// needs says whether the call could ask for these bytes of the file.
func (r *reading) needs(name string, begin, end uint64) bool {
	if r.core == nil {
		return true
	}
	for shard, part := range r.parts {
		if r.core.shards[shard].Path == name && begin < part.end && part.begin < end {
			return true
		}
	}
	return false
}

// receives says whether this is memory of the call's.
func (r *reading) receives(at uint64) bool {
	if r.memory == nil {
		return false
	}
	memory := r.memory()
	after, found := slices.BinarySearchFunc(memory, at, func(one extent, at uint64) int { return cmp.Compare(one.begin, at) })
	return found || after > 0 && at < memory[after-1].end
}

// contextOf is the context of the call that needs these bytes, to be read to dst;
// of several that could, one that is done when all of theirs are.
func (c *callbacks) contextOf(name string, offset uint64, dst []byte) (ctx context.Context, release func()) {
	var could []*reading
	c.mutex.Lock()
	for r := range c.reading {
		if r.needs(name, offset, offset+uint64(len(dst))) {
			could = append(could, r)
		}
	}
	c.mutex.Unlock()
	if len(could) > 1 {
		receives := func(r *reading) bool { return r.receives(address(dst)) }
		if slices.ContainsFunc(could, receives) {
			could = slices.DeleteFunc(could, func(r *reading) bool { return !receives(r) })
		}
	}
	switch len(could) {
	case 0:
		return context.Background(), func() {}
	case 1:
		return could[0].ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(could[0].ctx))
	var left atomic.Int64
	left.Store(int64(len(could)))
	stops := make([]func() bool, len(could))
	for i, one := range could {
		stops[i] = context.AfterFunc(one.ctx, func() {
			if left.Add(-1) == 0 {
				cancel(context.Cause(one.ctx))
			}
		})
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		cancel(nil)
	}
}
