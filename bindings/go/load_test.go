// SPDX-License-Identifier: Apache-2.0

package safetensors_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	safetensors "github.com/libsafetensors/libsafetensors/bindings/go"
)

// into makes items that load every tensor into memory of its own.
func into(model *safetensors.Checkpoint) []safetensors.LoadItem {
	var items []safetensors.LoadItem
	for _, tensor := range model.Tensors() {
		items = append(items, safetensors.LoadItem{Tensor: tensor, Dst: make([]byte, tensor.Size)})
	}
	return items
}

func TestLoad(t *testing.T) {
	const count, each = 20, 300_000
	file, want := numbers(count, each)
	path := writeFile(t, file)
	for _, access := range []safetensors.Access{safetensors.AccessMap, safetensors.AccessRead} {
		for _, options := range []*safetensors.LoadOptions{
			nil, {Threads: 1}, {Threads: 3, IO: safetensors.IODirect}, {IO: safetensors.IOCached, DropCache: true, StagingBytes: 1 << 16},
		} {
			model := mustOpen(t, path, access)
			items := into(model)
			plan, err := model.LoadPlan(items, options)
			if err != nil || plan.Bytes != count*each || plan.ReadBytes < plan.Bytes || plan.Requests == 0 || plan.Shards != 1 ||
				options != nil && options.Threads != 0 && plan.Threads > options.Threads {
				t.Errorf("found the plan %+v, %v", plan, err)
			}
			if err := model.Load(background, items, options); err != nil {
				t.Fatal(err)
			}
			for i, item := range items {
				if !bytes.Equal(item.Dst, want(i)) {
					t.Errorf("t%d holds other bytes", i)
				}
			}
			var done, total uint64
			calls := 0
			told := safetensors.LoadOptions{Progress: func(d, n uint64) {
				if d < done {
					t.Errorf("%d done after %d", d, done)
				}
				done, total = d, n
				calls++
			}}
			if err := model.Load(background, items, &told); err != nil || done != count*each || total != done || calls == 0 {
				t.Errorf("told %d of %d in %d calls, %v", done, total, calls, err)
			}
		}
	}
}

func TestLoadConvertsSlicesAndStrides(t *testing.T) {
	values := []float32{1, 2, 3, 4, 5, 6}
	var data []byte
	for _, value := range values {
		data = binary.LittleEndian.AppendUint16(data, uint16(math.Float32bits(value)>>16))
	}
	model := mustOpen(t, writeFile(t, fileOf(`{"m":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]}}`, data)), safetensors.AccessAuto)
	m := mustTensor(t, model, "m")

	column, transposed := make([]float32, 2), make([]float32, 6)
	err := model.Load(background, []safetensors.LoadItem{
		{Tensor: m, DType: safetensors.F32, Ranges: []safetensors.Range{safetensors.All(), {Start: 1, Stop: 2}},
			Dst: safetensors.BytesOf(column)},
		{Tensor: m, DType: safetensors.F32, Dst: safetensors.BytesOf(transposed), Strides: []int64{4, 8}},
	}, nil)
	if err != nil || !slices.Equal(column, []float32{2, 5}) || !slices.Equal(transposed, []float32{1, 4, 2, 5, 3, 6}) {
		t.Errorf("found %v and %v, %v", column, transposed, err)
	}
	if all, err := m.LoadFloat32s(background); err != nil || !slices.Equal(all, values) {
		t.Errorf("found %v, %v", all, err)
	}
	own := &safetensors.Tensor{DType: safetensors.BF16, Shape: []int64{6}, Data: data}
	if all, err := own.LoadFloat32s(background); err != nil || !slices.Equal(all, values) {
		t.Errorf("found %v, %v", all, err)
	}
}

func TestLoadRefusesBadItems(t *testing.T) {
	file, _ := numbers(2, 100)
	path := writeFile(t, file)
	model, other := mustOpen(t, path, safetensors.AccessAuto), mustOpen(t, path, safetensors.AccessAuto)
	t0 := mustTensor(t, model, "t0")
	shared := make([]byte, 150)
	for _, c := range []struct {
		want  error
		items []safetensors.LoadItem
	}{
		{safetensors.ErrInvalidArgument, []safetensors.LoadItem{{}}},
		{safetensors.ErrInvalidArgument, []safetensors.LoadItem{{Tensor: &safetensors.Tensor{}, Dst: shared}}},
		{safetensors.ErrInvalidArgument, []safetensors.LoadItem{{Tensor: mustTensor(t, other, "t0"), Dst: shared}}},
		{safetensors.ErrBufferSize, []safetensors.LoadItem{{Tensor: t0, Dst: shared[:99]}}},
		{safetensors.ErrInvalidArgument, []safetensors.LoadItem{{Tensor: t0, Dst: shared, Strides: []int64{}}}},
		{safetensors.ErrInvalidArgument, []safetensors.LoadItem{{Tensor: t0, Dst: shared, Ranges: []safetensors.Range{{Start: 101}}}}},
		{safetensors.ErrUnsupported, []safetensors.LoadItem{{Tensor: t0, Dst: shared, DType: safetensors.I64}}},
		{safetensors.ErrInvalidArgument, []safetensors.LoadItem{{Tensor: t0, Dst: shared}, {Tensor: mustTensor(t, model, "t1"), Dst: shared[50:]}}},
	} {
		wants(t, model.Load(background, c.items, nil), c.want)
		_, err := model.LoadPlan(c.items, nil)
		wants(t, err, c.want)
	}
	good := []safetensors.LoadItem{{Tensor: t0, Dst: shared}}
	for _, options := range []*safetensors.LoadOptions{
		{Threads: -1}, {IO: 9}, {Sink: &safetensors.Sink{}}, {StagingBytes: 1},
		{Sink: &safetensors.Sink{Chunk: func(safetensors.Chunk) error { return nil }}},
		{Sink: &safetensors.Sink{Chunk: func(safetensors.Chunk) error { return nil }, Buffers: [][]byte{make([]byte, 100)}}},
	} {
		wants(t, model.Load(background, good, options), safetensors.ErrInvalidArgument)
	}
	wants(t, model.Stream(background, good, nil, nil), safetensors.ErrInvalidArgument)
	if err := model.Load(background, nil, nil); err != nil {
		t.Error(err)
	}
	model.Close()
	wants(t, model.Load(background, good, nil), safetensors.ErrClosed)
	_, err := t0.LoadFloat32s(background)
	wants(t, err, safetensors.ErrClosed)
	wants(t, model.Prefetch(nil), safetensors.ErrClosed)
}

func TestPrefetch(t *testing.T) {
	file, want := numbers(3, 10_000)
	model := mustOpen(t, writeFile(t, file), safetensors.AccessMap)
	for _, tensors := range [][]*safetensors.Tensor{nil, {}, model.Tensors()[1:]} {
		if err := model.Prefetch(tensors); err != nil {
			t.Error(err)
		}
	}
	wants(t, model.Prefetch([]*safetensors.Tensor{nil}), safetensors.ErrInvalidArgument)
	if data, err := mustTensor(t, model, "t2").Bytes(); err != nil || !bytes.Equal(data, want(2)) {
		t.Errorf("other bytes, or %v", err)
	}
}

// many is a file large enough for a load to be in the middle of, through a
// reader that is slow enough.
func many(t *testing.T) (model *safetensors.Checkpoint, want func(i int) []byte) {
	file, want := numbers(32, 1<<20)
	reader := readerFunc(func(p []byte, offset int64) (int, error) {
		time.Sleep(time.Millisecond)
		return bytes.NewReader(file).ReadAt(p, offset)
	})
	model, err := safetensors.OpenReaderAt(reader, int64(len(file)), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { model.Close() })
	return model, want
}

func TestCancellingLoads(t *testing.T) {
	model, want := many(t)
	items := into(model)
	reason := errors.New("enough")

	ctx, cancel := context.WithCancelCause(background)
	calls := 0
	err := model.Load(ctx, items, &safetensors.LoadOptions{Progress: func(done, total uint64) {
		calls++
		cancel(reason)
	}})
	wants(t, err, safetensors.ErrCancelled, context.Canceled, reason)
	if calls != 1 {
		t.Errorf("told %d times after it was cancelled", calls-1)
	}
	wants(t, model.Load(ctx, items, nil), safetensors.ErrCancelled, context.Canceled, reason)

	// From outside, without a progress function.
	late, stop := context.WithTimeout(background, 5*time.Millisecond)
	defer stop()
	err = model.Load(late, items, &safetensors.LoadOptions{Threads: 1})
	wants(t, err, safetensors.ErrCancelled, context.DeadlineExceeded)

	// A load that has come to its end in time has none of it.
	calm, stop := context.WithCancel(background)
	defer stop()
	if err := model.Load(calm, items, nil); err != nil {
		t.Error(err)
	}
	for i, item := range items {
		if !bytes.Equal(item.Dst, want(i)) {
			t.Errorf("t%d holds other bytes", i)
		}
	}
}

func TestCallbacksOfLoadsMayPanicAndEnd(t *testing.T) {
	model, _ := many(t)
	items := into(model)
	options := map[string]func(stop func()) *safetensors.LoadOptions{
		"progress": func(stop func()) *safetensors.LoadOptions {
			return &safetensors.LoadOptions{Progress: func(done, total uint64) { stop() }}
		},
		"chunk": func(stop func()) *safetensors.LoadOptions {
			return &safetensors.LoadOptions{Sink: &safetensors.Sink{
				Buffers: buffers(3, 1<<16),
				Chunk:   func(safetensors.Chunk) error { stop(); return nil },
			}}
		},
		"wait": func(stop func()) *safetensors.LoadOptions {
			return &safetensors.LoadOptions{Sink: &safetensors.Sink{
				Buffers: buffers(3, 1<<16),
				Chunk:   func(safetensors.Chunk) error { return nil },
				Wait:    func(int) error { stop(); return nil },
			}}
		},
	}
	for name, make := range options {
		if value := panicOf(func() { model.Load(background, items, make(func() { panic(name) })) }); value != name {
			t.Errorf("%s: panicked with %v", name, value)
		}
		ended := false
		done := func() chan bool {
			done := newSignal()
			go func() {
				defer close(done)
				defer func() { ended = true }()
				model.Load(background, items, make(runtime.Goexit))
				t.Errorf("%s: Goexit came back", name)
			}()
			return done
		}()
		<-done
		if !ended {
			t.Errorf("%s: the goroutine has not ended", name)
		}
	}
	if value := panicOf(func() {
		model.Stream(background, items, nil, func(safetensors.Chunk) error { panic("stream") })
	}); value != "stream" {
		t.Errorf("panicked with %v", value)
	}
	if err := model.Load(background, items, nil); err != nil {
		t.Error(err)
	}
}

func newSignal() chan bool { return make(chan bool) }

func buffers(count, size int) [][]byte {
	var all [][]byte
	for i := 0; i < count; i++ {
		all = append(all, make([]byte, size))
	}
	return all
}

func TestSinks(t *testing.T) {
	const count, each = 10, 200_000
	file, want := numbers(count, each)
	model := mustOpen(t, writeFile(t, file), safetensors.AccessAuto)
	var items []safetensors.LoadItem
	for _, tensor := range model.Tensors() {
		items = append(items, safetensors.LoadItem{Tensor: tensor})
	}
	for _, waits := range []bool{false, true} {
		found := make([][]byte, count)
		for i := range found {
			found[i] = make([]byte, each)
		}
		flying := map[int]safetensors.Chunk{}
		sink := &safetensors.Sink{Buffers: buffers(3, 10_000)}
		sink.Chunk = func(chunk safetensors.Chunk) error {
			if &chunk.Data[0] != &sink.Buffers[chunk.Buffer][0] {
				t.Error("Data is not in its buffer")
			}
			if waits {
				if _, ok := flying[chunk.Buffer]; ok {
					t.Error("a buffer filled again before it was waited for")
				}
				flying[chunk.Buffer] = chunk
			} else {
				copy(found[chunk.Item][chunk.Offset:], chunk.Data)
			}
			return nil
		}
		if waits {
			sink.Wait = func(buffer int) error {
				chunk := flying[buffer]
				copy(found[chunk.Item][chunk.Offset:], chunk.Data)
				delete(flying, buffer)
				return nil
			}
		}
		if err := model.Load(background, items, &safetensors.LoadOptions{Sink: sink}); err != nil || len(flying) != 0 {
			t.Errorf("%d buffers not waited for, %v", len(flying), err)
		}
		for i := range found {
			if !bytes.Equal(found[i], want(i)) {
				t.Errorf("t%d holds other bytes", i)
			}
		}
	}
	own := errors.New("the device is gone")
	for _, sink := range []*safetensors.Sink{
		{Buffers: buffers(2, 4096), Chunk: func(safetensors.Chunk) error { return own }},
		{Buffers: buffers(2, 4096), Chunk: func(safetensors.Chunk) error { return nil }, Wait: func(int) error { return own }},
	} {
		wants(t, model.Load(background, items, &safetensors.LoadOptions{Sink: sink}), safetensors.ErrCancelled, own)
	}
}

func TestStreamIsInOrder(t *testing.T) {
	random := rand.New(rand.NewSource(7))
	const rows, columns = 900, 1100
	data := make([]byte, rows*columns*4)
	for i := 0; i < rows*columns; i++ {
		binary.LittleEndian.PutUint32(data[4*i:], math.Float32bits(float32(random.Intn(256))))
	}
	path := writeFile(t, fileOf(fmt.Sprintf(`{"m":{"dtype":"F32","shape":[%d,%d],"data_offsets":[0,%d]}}`, rows, columns, len(data)), data))
	for _, access := range []safetensors.Access{safetensors.AccessMap, safetensors.AccessRead} {
		model := mustOpen(t, path, access)
		m := mustTensor(t, model, "m")
		for _, ranges := range [][]safetensors.Range{
			nil, {{Start: 5, Stop: -5, Step: 3}}, {safetensors.All(), {Start: 100, Stop: 900, Step: 7}}, {{Stop: 0}},
		} {
			for _, dtype := range []safetensors.DType{safetensors.AsStored, safetensors.BF16} {
				items := []safetensors.LoadItem{{Tensor: m, Ranges: ranges, DType: dtype}}
				_, size, err := m.SliceShape(ranges...)
				if err != nil {
					t.Fatal(err)
				}
				want := make([]byte, size)
				if err := m.ReadSlice(want, ranges...); err != nil {
					t.Fatal(err)
				}
				if dtype == safetensors.BF16 {
					half := make([]byte, size/2)
					safetensors.Convert(safetensors.F32, want, safetensors.BF16, half)
					want = half
				}
				var found bytes.Buffer
				err = model.Stream(background, items, nil, func(chunk safetensors.Chunk) error {
					if chunk.Offset != uint64(found.Len()) {
						return fmt.Errorf("a piece at %d after %d", chunk.Offset, found.Len())
					}
					found.Write(chunk.Data)
					return nil
				})
				if err != nil || !bytes.Equal(found.Bytes(), want) {
					t.Errorf("%v of %v: %d of %d bytes, %v", dtype, ranges, found.Len(), len(want), err)
				}
				if plan, err := model.LoadPlan(items, nil); err != nil || plan.Bytes != uint64(len(want)) {
					t.Errorf("%v of %v: %+v, %v", dtype, ranges, plan, err)
				}
			}
		}
	}
}

func TestStreamEndsEarly(t *testing.T) {
	model, _ := many(t)
	items := into(model)
	calls := 0
	err := model.Stream(background, items, nil, func(safetensors.Chunk) error { calls++; return io.ErrClosedPipe })
	wants(t, err, safetensors.ErrCancelled, io.ErrClosedPipe)
	if calls > 2 {
		t.Errorf("%d pieces after the first error", calls-1)
	}
	ctx, cancel := context.WithCancel(background)
	err = model.Stream(ctx, items, nil, func(safetensors.Chunk) error { cancel(); return nil })
	wants(t, err, safetensors.ErrCancelled, context.Canceled)
}

func TestReadersErrorsEndLoads(t *testing.T) {
	own := errors.New("404")
	tensor := openFaulty(t, func([]byte) (int, error) { return 0, own })
	_, err := tensor.LoadFloat32s(background)
	wants(t, err, safetensors.ErrIO, own)
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	_, err = tensor.LoadFloat32s(ctx)
	wants(t, err, safetensors.ErrIO, own)
	tensor = openFaulty(t, func([]byte) (int, error) { panic("load") })
	if value := panicOf(func() { tensor.LoadFloat32s(background) }); value != "load" {
		t.Errorf("panicked with %v", value)
	}
}

// Loads under way while the checkpoint is closed and the collector works: they
// finish, or never begin.
func TestLoadAndCloseRace(t *testing.T) {
	const count, each = 8, 100_000
	file, want := numbers(count, each)
	path := filepath.Join(t.TempDir(), "model.safetensors")
	if err := os.WriteFile(path, file, 0o666); err != nil {
		t.Fatal(err)
	}
	collectMeanwhile(t)
	rounds := 40
	if testing.Short() {
		rounds = 8
	}
	for round := 0; round < rounds; round++ {
		model, err := safetensors.OpenWith(path, &safetensors.OpenOptions{Access: safetensors.Access(1 + round%2)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(background)
		var group sync.WaitGroup
		for worker := 0; worker < 4; worker++ {
			group.Add(1)
			go func() {
				defer group.Done()
				for i := 0; ; i++ {
					items := into(model)
					err := model.Load(ctx, items, &safetensors.LoadOptions{Threads: 1 + worker%3})
					if errors.Is(err, safetensors.ErrClosed) || errors.Is(err, context.Canceled) {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
					if number := i % count; !bytes.Equal(items[number].Dst, want(number)) {
						t.Error("other bytes")
					}
				}
			}()
		}
		for i := 0; i < round*50; i++ {
			runtime.Gosched()
		}
		if round%3 == 0 {
			cancel()
		}
		model.Close()
		group.Wait()
		cancel()
	}
}
