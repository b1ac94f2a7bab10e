// SPDX-License-Identifier: Apache-2.0

package safetensors_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	safetensors "github.com/libsafetensors/libsafetensors/bindings/go"
	"github.com/libsafetensors/libsafetensors/bindings/go/internal/cst"
)

// file is a checkpoint of these tensors, in memory.
func file(t testing.TB, tensors ...*safetensors.Tensor) []byte {
	t.Helper()
	data, err := safetensors.Serialize(context.Background(), tensors, nil)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func u8(name string, size int) *safetensors.Tensor {
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i % 251)
	}
	return &safetensors.Tensor{Name: name, DType: safetensors.U8, Shape: []int64{int64(size)}, Data: data}
}

func TestLookup(t *testing.T) {
	model, err := safetensors.OpenMemory(file(t, u8("a", 10), u8("b", 20)), nil)
	if err != nil {
		t.Fatal(err)
	}
	found, ok := model.Lookup("b")
	wanted, _ := model.Tensor("b")
	if !ok || found != wanted {
		t.Errorf("Lookup(b) is %v, %v", found, ok)
	}
	if missing, ok := model.Lookup("c"); ok || missing != nil {
		t.Errorf("Lookup(c) is %v, %v", missing, ok)
	}
	if n := testing.AllocsPerRun(100, func() { model.Lookup("b"); model.Lookup("c") }); n != 0 {
		t.Errorf("a hit and a miss allocate %v times", n)
	}
	model.Close()
	if _, ok := model.Lookup("b"); ok {
		t.Error("found after Close")
	}
}

// Every status prints as its Go name, which is C's in another spelling.
func TestStatusNames(t *testing.T) {
	for status := safetensors.ErrInvalidArgument; status <= safetensors.ErrConfig; status++ {
		c := strings.ReplaceAll(strings.TrimPrefix(cst.StatusName(int32(status)), "ST_ERROR_"), "_", "")
		if name := status.String(); !strings.EqualFold("Err"+c, name) || status.Error() != "safetensors: "+name {
			t.Errorf("%d is %q, in C %s", int32(status), name, c)
		}
	}
	if name := safetensors.Status(1000).String(); name != "Status(1000)" {
		t.Error(name)
	}
}

// The library's conversion is the oracle, for every bit pattern there is.
func TestHalvesAsFloat32(t *testing.T) {
	halves := make([]safetensors.Float16, 1<<16)
	brains := make([]safetensors.BFloat16, 1<<16)
	for i := range halves {
		halves[i], brains[i] = safetensors.Float16(i), safetensors.BFloat16(i)
	}
	wanted := make([]float32, 1<<16)
	check := func(dtype safetensors.DType, bits []byte, value func(int) float32) {
		if err := safetensors.Convert(dtype, bits, safetensors.F32, safetensors.BytesOf(wanted)); err != nil {
			t.Fatal(err)
		}
		for i, want := range wanted {
			got := value(i)
			if math.Float32bits(got) != math.Float32bits(want) && !(math.IsNaN(float64(got)) && math.IsNaN(float64(want))) {
				t.Fatalf("%v %#04x is %v, wanted %v", dtype, i, got, want)
			}
		}
	}
	check(safetensors.F16, safetensors.BytesOf(halves), func(i int) float32 { return halves[i].Float32() })
	check(safetensors.BF16, safetensors.BytesOf(brains), func(i int) float32 { return brains[i].Float32() })
}

func TestBools(t *testing.T) {
	given := &safetensors.Tensor{Name: "b", DType: safetensors.BOOL, Shape: []int64{3}, Data: []byte{0, 1, 2}}
	model, err := safetensors.OpenMemory(file(t, given, u8("u", 3)), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer model.Close()
	tensor, _ := model.Lookup("b")
	values, err := tensor.Bools()
	if err != nil || len(values) != 3 || values[0].Bool() || !values[1].Bool() || !values[2].Bool() {
		t.Error(values, err)
	}
	other, _ := model.Lookup("u")
	if _, err := other.Bools(); !errors.Is(err, safetensors.ErrWrongType) {
		t.Error(err)
	}
}

// What a source's Close returns or panics with comes out of Close, or of the
// method that was the last to use the checkpoint.
func TestTheErrorOfClosingIsNeverLost(t *testing.T) {
	data := file(t, u8("a", 100_000))
	mine := errors.New("mine")
	for _, panics := range []bool{false, true} {
		reading, goOn := make(chan struct{}), make(chan struct{})
		var slow atomic.Bool
		source := safetensors.Source{
			Size: int64(len(data)),
			ReaderAt: readerFunc(func(p []byte, off int64) (int, error) {
				if slow.Swap(false) {
					close(reading)
					<-goOn
				}
				return copy(p, data[off:]), nil
			}),
			Closer: closerFunc(func() error {
				if panics {
					panic(mine)
				}
				return mine
			}),
		}
		model, err := safetensors.OpenSource(source, nil)
		if err != nil {
			t.Fatal(err)
		}
		slow.Store(true)
		result := make(chan any, 1)
		go func() {
			defer func() {
				if value := recover(); value != nil {
					result <- value
				}
			}()
			tensor, _ := model.Lookup("a")
			result <- tensor.ReadInto(make([]byte, 100_000))
		}()
		<-reading
		if err := model.Close(); err != nil {
			t.Error("Close is not the last user, and said", err)
		}
		close(goOn)
		got, _ := (<-result).(error)
		if !errors.Is(got, mine) {
			t.Errorf("panics %v: the last method came to %v", panics, got)
		}
	}
}

type closerFunc func() error

func (f closerFunc) Close() error { return f() }

// A contextReader's reads wait for their context where they are told to.
type contextReader struct {
	data    []byte
	waits   atomic.Bool
	waiting chan struct{}
	gate    chan struct{} // opened, the reads that wait go on
	reads   atomic.Int64
}

func (r *contextReader) ReadAt([]byte, int64) (int, error) { return 0, errors.New("not by ReadAt") }

func (r *contextReader) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	r.reads.Add(1)
	if r.waits.Load() {
		r.waiting <- struct{}{}
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-r.gate:
		}
	}
	return copy(p, r.data[off:]), nil
}

func newContextReader(data []byte) *contextReader {
	return &contextReader{data: data, waiting: make(chan struct{}, 100), gate: make(chan struct{})}
}

func (r *contextReader) source() safetensors.Source {
	return safetensors.Source{ReaderAt: r, Size: int64(len(r.data))}
}

// A read under way ends with the context of the call that it is for.
func TestContextsReachReads(t *testing.T) {
	const size = 200_000
	data := file(t, u8("a", size), u8("b", size))
	why := errors.New("why")
	cases := map[string]func(context.Context, *safetensors.Checkpoint, *contextReader) error{
		"Load": func(ctx context.Context, model *safetensors.Checkpoint, _ *contextReader) error {
			tensor, _ := model.Lookup("a")
			return model.Load(ctx, []safetensors.LoadItem{{Tensor: tensor, Dst: make([]byte, size)}}, nil)
		},
		"ReadIntoContext": func(ctx context.Context, model *safetensors.Checkpoint, _ *contextReader) error {
			tensor, _ := model.Lookup("a")
			return tensor.ReadIntoContext(ctx, make([]byte, size))
		},
		"ReadSliceContext": func(ctx context.Context, model *safetensors.Checkpoint, _ *contextReader) error {
			tensor, _ := model.Lookup("b")
			return tensor.ReadSliceContext(ctx, make([]byte, 10), safetensors.Range{Start: 5, Stop: 15})
		},
		"BytesContext": func(ctx context.Context, model *safetensors.Checkpoint, _ *contextReader) error {
			tensor, _ := model.Lookup("b")
			_, err := tensor.BytesContext(ctx)
			return err
		},
		"OpenSourceContext": func(ctx context.Context, _ *safetensors.Checkpoint, r *contextReader) error {
			_, err := safetensors.OpenSourceContext(ctx, r.source(), nil)
			return err
		},
		"OpenResolvedContext": func(ctx context.Context, _ *safetensors.Checkpoint, r *contextReader) error {
			open := func(string) (safetensors.Source, error) { return r.source(), nil }
			_, err := safetensors.OpenResolvedContext(ctx, open, "x.safetensors", nil)
			return err
		},
	}
	for name, call := range cases {
		reader := newContextReader(data)
		model, err := safetensors.OpenSource(reader.source(), nil)
		if err != nil {
			t.Fatal(err)
		}
		reader.waits.Store(true)
		ctx, cancel := context.WithCancelCause(context.Background())
		go func() {
			<-reader.waiting
			cancel(why)
		}()
		err = call(ctx, model, reader)
		if !errors.Is(err, safetensors.ErrCancelled) || !errors.Is(err, context.Canceled) || !errors.Is(err, why) {
			t.Errorf("%s: %v", name, err)
		}
		// And nothing begins with one that is done.
		reads := reader.reads.Load()
		if err := call(ctx, model, reader); !errors.Is(err, safetensors.ErrCancelled) || reader.reads.Load() != reads {
			t.Errorf("%s, done before: %v, %d reads", name, err, reader.reads.Load()-reads)
		}
		model.Close()
	}
}

// A call that is cancelled ends its own reads and no others, also where all are for
// the same bytes: where they go to tells them apart.
func TestContextsOfSeveralCalls(t *testing.T) {
	const size = 100_000
	data := file(t, u8("a", size), u8("b", size))
	reader := newContextReader(data)
	model, err := safetensors.OpenSource(reader.source(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer model.Close()
	reader.waits.Store(true)
	b, _ := model.Lookup("b")
	cancels := map[string]context.CancelFunc{}
	ended := make(chan string, 6)
	begin := func(name string, call func(ctx context.Context) error) {
		ctx, cancel := context.WithCancel(context.Background())
		cancels[name] = cancel
		go func() {
			if err := call(ctx); !errors.Is(err, ctx.Err()) {
				t.Errorf("%s: %v", name, err)
			}
			ended <- name
		}()
		<-reader.waiting
	}
	end := func(name string) {
		t.Helper()
		cancels[name]()
		if found := <-ended; found != name {
			t.Errorf("%s ended with %s", found, name)
		}
	}
	begin("a", func(ctx context.Context) error {
		tensor, _ := model.Lookup("a")
		return tensor.ReadIntoContext(ctx, make([]byte, size))
	})
	into := make([]byte, size)
	begin("without a context", func(context.Context) error { return b.ReadInto(into) })
	begin("b", func(ctx context.Context) error { return b.ReadIntoContext(ctx, make([]byte, size)) })
	begin("b again", func(ctx context.Context) error { return b.ReadIntoContext(ctx, make([]byte, size)) })
	begin("a part", func(ctx context.Context) error {
		return b.ReadSliceContext(ctx, make([]byte, size/2), safetensors.Range{Start: size / 4, Stop: size * 3 / 4})
	})
	begin("to a sink", func(ctx context.Context) error {
		chunk := func(safetensors.Chunk) error { return nil }
		return model.Stream(ctx, []safetensors.LoadItem{{Tensor: b}}, nil, chunk)
	})
	for _, name := range []string{"b again", "a", "a part", "b", "to a sink"} {
		end(name)
	}
	close(reader.gate)
	if name := <-ended; name != "without a context" || !bytes.Equal(into, data[len(data)-size:]) {
		t.Errorf("%s ended last, or not with the tensor's bytes", name)
	}
}

// A reader without contexts is asked for nothing more once the context is done.
func TestNoReadBeginsOnceTheContextIsDone(t *testing.T) {
	const size = 1 << 20
	data := file(t, u8("a", size))
	var after, reads atomic.Int64
	ctx, cancel := context.WithCancel(context.Background())
	var slow atomic.Bool
	reader := readerFunc(func(p []byte, off int64) (int, error) {
		if slow.Load() {
			if ctx.Err() != nil {
				after.Add(1)
			}
			if reads.Add(1) == 3 {
				cancel()
			}
		}
		return copy(p[:min(len(p), 4096)], data[off:]), nil
	})
	model, err := safetensors.OpenSource(safetensors.Source{ReaderAt: reader, Size: int64(len(data)), MaxParallel: 1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer model.Close()
	slow.Store(true)
	tensor, _ := model.Lookup("a")
	if _, err := tensor.BytesContext(ctx); !errors.Is(err, context.Canceled) || after.Load() != 0 {
		t.Errorf("%v, and %d reads after that", err, after.Load())
	}
}

// The same of a load, whose threads no callback could stop meanwhile.
func TestALoadEndsWithTheReadsUnderWay(t *testing.T) {
	const size = 4 << 20
	data := file(t, u8("a", size))
	var open, over atomic.Bool
	var late atomic.Int64
	reading, gate := make(chan struct{}, 100), make(chan struct{})
	reader := readerFunc(func(p []byte, off int64) (int, error) {
		if open.Load() {
			if over.Load() {
				late.Add(1)
			}
			reading <- struct{}{}
			<-gate
		}
		return copy(p, data[off:]), nil
	})
	source := safetensors.Source{ReaderAt: reader, Size: int64(len(data)), PreferredRead: 64 << 10}
	model, err := safetensors.OpenSource(source, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer model.Close()
	tensor, _ := model.Lookup("a")
	items := []safetensors.LoadItem{{Tensor: tensor, Dst: make([]byte, size)}}
	for name, options := range map[string]*safetensors.LoadOptions{
		"plain": nil, "with progress": {Progress: func(uint64, uint64) {}},
	} {
		gate = make(chan struct{})
		over.Store(false)
		open.Store(true)
		ctx, cancel := context.WithCancel(context.Background())
		go func() {
			<-reading
			cancel()
			time.Sleep(300 * time.Millisecond) // until it is known, on a busy machine
			over.Store(true)
			close(gate)
		}()
		err := model.Load(ctx, items, options)
		if !errors.Is(err, safetensors.ErrCancelled) || !errors.Is(err, context.Canceled) || late.Load() != 0 {
			t.Errorf("%s: %v, and %d reads begun after that", name, err, late.Load())
		}
		open.Store(false)
		for len(reading) > 0 {
			<-reading
		}
	}
}

func TestOpenFSFolder(t *testing.T) {
	one, two := file(t, u8("a", 3)), file(t, u8("b", 4))
	index := []byte(`{"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}`)
	f := func(data []byte) *fstest.MapFile { return &fstest.MapFile{Data: data} }
	cases := []struct {
		name  string
		files fstest.MapFS
		names string
		err   error
	}{
		{"one file", fstest.MapFS{"weights.safetensors": f(one), "._x.safetensors": f(nil), "config.json": f(nil)}, "a", nil},
		{"an index", fstest.MapFS{"model.safetensors.index.json": f(index), "model-00001-of-00002.safetensors": f(one),
			"model-00002-of-00002.safetensors": f(two), "other.safetensors": f(nil)}, "a b", nil},
		{"a series", fstest.MapFS{"model-00001-of-00002.safetensors": f(one), "model-00002-of-00002.safetensors": f(two)}, "a b", nil},
		{"the model's", fstest.MapFS{"model.safetensors": f(two), "other.safetensors": f(one)}, "b", nil},
		{"half a series", fstest.MapFS{"model-00002-of-00002.safetensors": f(two)}, "", safetensors.ErrShard},
		{"the same twice", fstest.MapFS{"m-1-of-2.safetensors": f(one), "m-2-of-2.safetensors": f(one)}, "", safetensors.ErrDuplicateKey},
		{"two models", fstest.MapFS{"x.safetensors": f(one), "y.safetensors": f(two)}, "", safetensors.ErrIndex},
		{"two indexes", fstest.MapFS{"x.safetensors.index.json": f(index), "y.safetensors.index.json": f(index)}, "", safetensors.ErrIndex},
		{"nothing", fstest.MapFS{"readme.md": f(nil)}, "", fs.ErrNotExist},
	}
	for _, c := range cases {
		inner := fstest.MapFS{}
		for name, file := range c.files {
			inner["in/here/"+name] = file
		}
		for folder, files := range map[string]fs.FS{".": c.files, "in/here": inner} {
			model, err := safetensors.OpenFS(files, folder, nil)
			if !errors.Is(err, c.err) {
				t.Errorf("%s: %v", c.name, err)
			}
			var names []string
			for _, tensor := range model.Tensors() {
				names = append(names, tensor.Name)
				if copied := make([]byte, tensor.Size); tensor.ReadInto(copied) != nil || copied[2] != 2 {
					t.Errorf("%s: %s holds %v", c.name, tensor.Name, copied)
				}
			}
			if got := strings.Join(names, " "); got != c.names {
				t.Errorf("%s in %s: %q", c.name, folder, got)
			}
			model.Close()
		}
	}
}

// As package documentation says: Go code that touches what a mapping has lost
// panics where it asked for that.
func TestACutMappingPanicsWhereThatIsAskedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cut.safetensors")
	if err := os.WriteFile(path, file(t, u8("a", 1<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	model, err := safetensors.OpenWith(path, &safetensors.OpenOptions{Access: safetensors.AccessMap})
	if err != nil {
		t.Fatal(err)
	}
	defer model.Close()
	tensor, _ := model.Lookup("a")
	view, err := tensor.Bytes()
	if err != nil || view[300_000] != byte(300_000%251) {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 4096); err != nil {
		t.Fatal(err)
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	fault := func() (value any) {
		defer func() { value = recover() }()
		return view[300_000]
	}()
	if _, ok := fault.(interface{ Addr() uintptr }); !ok {
		t.Errorf("reading a lost page came to %v", fault)
	}
	if err := tensor.ReadInto(make([]byte, 1<<20)); !errors.Is(err, safetensors.ErrIO) {
		t.Error(err)
	}
}

// Numbers of a newer library stay what they are.
func TestNumbersOfTheHeader(t *testing.T) {
	for _, header := range []string{"tests/contract/abi/0.1/safetensors.h", "include/safetensors.h"} {
		text, err := os.ReadFile(filepath.Join("../..", header))
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range regexp.MustCompile(`(?m)^#define ST_ERROR_(\w+) (\d+)$`).FindAllSubmatch(text, -1) {
			number, _ := strconv.Atoi(string(match[2]))
			name := "Err" + strings.ReplaceAll(string(match[1]), "_", "")
			got := safetensors.Status(number).String()
			if number <= int(safetensors.ErrConfig) && !strings.EqualFold(got, name) {
				t.Errorf("%s: %d is %s, and here %s", header, number, match[1], got)
			}
		}
	}
	if got := safetensors.Access(77).String(); got != "Access(77)" {
		t.Error(got)
	}
}

// What did not open keeps no memory where it is.
func TestMemoryThatDidNotOpenIsLetGo(t *testing.T) {
	gone := make(chan struct{})
	func() {
		data := new([1 << 16]byte)
		runtime.SetFinalizer(data, func(*[1 << 16]byte) { close(gone) })
		if _, err := safetensors.OpenMemory(data[:], nil); !errors.Is(err, safetensors.ErrHeaderStart) {
			t.Error(err)
		}
	}()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		runtime.GC()
		select {
		case <-gone:
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Error("it is still pinned")
}

// A save that is over uses its sources no longer: closing them frees them, here and now.
func TestSavesLetGoOfTheirSources(t *testing.T) {
	data := file(t, u8("a", 1000), u8("b", 1000))
	calls := map[string]func(context.Context, []*safetensors.Tensor) error{
		"Save": func(ctx context.Context, tensors []*safetensors.Tensor) error {
			return safetensors.Save(ctx, filepath.Join(t.TempDir(), "m.safetensors"), tensors, nil)
		},
		"Serialize": func(ctx context.Context, tensors []*safetensors.Tensor) error {
			_, err := safetensors.Serialize(ctx, tensors, nil)
			return err
		},
		"NewWriter": func(_ context.Context, tensors []*safetensors.Tensor) error {
			writer, err := safetensors.NewWriter(filepath.Join(t.TempDir(), "m.safetensors"), tensors, nil)
			if err == nil {
				err = writer.Close()
			}
			return err
		},
		"Save, which fails": func(ctx context.Context, tensors []*safetensors.Tensor) error {
			if err := safetensors.Save(ctx, filepath.Join(t.TempDir(), "no", "m.safetensors"), tensors, nil); !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("it did not fail so: %w", err)
			}
			return nil
		},
	}
	for name, call := range calls {
		closed := 0
		model, err := safetensors.OpenSource(safetensors.Source{
			ReaderAt: bytes.NewReader(data), Size: int64(len(data)), Closer: closerFunc(func() error { closed++; return nil }),
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := call(context.Background(), model.Tensors()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := model.Close(); err != nil || closed != 1 {
			t.Errorf("%s: closed %d times, %v", name, closed, err)
		}
	}
}
