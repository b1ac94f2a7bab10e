// SPDX-License-Identifier: Apache-2.0

package safetensors

import (
	"context"
	"sync/atomic"

	"github.com/libsafetensors/libsafetensors/bindings/go/internal/cst"
)

// The library asks a reader for bytes without saying which call needs them, and
// joins what is close together. Where they are says it, nearly always: each
// call under way has the part of each file that it can ask for.

// A reading is a call that may read through sources, until it returns.
type reading struct {
	ctx   context.Context
	parts map[int]extent // by shard
	core  *core          // whose shards they are; nil: it can ask for anything
}

// An extent is a part of a file.
type extent struct{ begin, end uint64 }

func (t *Tensor) extent() map[int]extent {
	return map[int]extent{int(t.record.Shard()): {t.record.Offset(), t.record.Offset() + t.record.Size()}}
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
func (c *core) reads(ctx context.Context, parts func() map[int]extent) (returned func()) {
	if c.callbacks == nil {
		return func() {}
	}
	return c.callbacks.note(&reading{ctx, parts(), c})
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

// contextOf is the context of the call that needs these bytes; of several that
// could, one that is done when all of theirs are.
func (c *callbacks) contextOf(name string, offset, size uint64) (ctx context.Context, release func()) {
	var all []context.Context
	c.mutex.Lock()
	for r := range c.reading {
		if r.needs(name, offset, offset+size) {
			all = append(all, r.ctx)
		}
	}
	c.mutex.Unlock()
	switch len(all) {
	case 0:
		return context.Background(), func() {}
	case 1:
		return all[0], func() {}
	}
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(all[0]))
	var left atomic.Int64
	left.Store(int64(len(all)))
	stops := make([]func() bool, len(all))
	for i, one := range all {
		stops[i] = context.AfterFunc(one, func() {
			if left.Add(-1) == 0 {
				cancel(context.Cause(one))
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
