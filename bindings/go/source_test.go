// SPDX-License-Identifier: Apache-2.0

package safetensors_test

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/fstest"

	safetensors "github.com/libsafetensors/libsafetensors/bindings/go"
)

// model is a sharded checkpoint of two files, by name.
func model() map[string][]byte {
	return map[string][]byte{
		"m/model.safetensors.index.json": []byte(`{"metadata":{"total_size":6},"weight_map":{"a":"a.safetensors","b":"b.safetensors"}}`),
		"m/a.safetensors":                fileOf(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`, []byte("aa")),
		"m/b.safetensors":                fileOf(`{"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}`, []byte("bbbb")),
	}
}

func checkModel(t *testing.T, m *safetensors.Checkpoint, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a": "aa", "b": "bbbb"} {
		if data, err := mustTensor(t, m, name).Bytes(); string(data) != want || err != nil {
			t.Errorf("%s holds %q, %v", name, data, err)
		}
	}
	if shards := m.Shards(); len(shards) != 2 || shards[1].Path != "m/b.safetensors" || shards[1].Access != safetensors.AccessCallback {
		t.Errorf("found %+v", shards)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

func TestOpenFS(t *testing.T) {
	files := fstest.MapFS{}
	var archive bytes.Buffer
	zipped := zip.NewWriter(&archive)
	for name, data := range model() {
		files[name] = &fstest.MapFile{Data: data}
		w, _ := zipped.Create(name)
		w.Write(data)
	}
	zipped.Close()
	packed, err := zip.NewReader(bytes.NewReader(archive.Bytes()), int64(archive.Len()))
	if err != nil {
		t.Fatal(err)
	}
	for _, fsys := range []fs.FS{files, packed, seekOnly{files}} {
		m, err := safetensors.OpenFS(fsys, "m/model.safetensors.index.json", nil)
		checkModel(t, m, err)
	}
	m, err := safetensors.OpenFS(files, "m", nil)
	checkModel(t, m, err)
	_, err = safetensors.OpenFS(files, "nothing.safetensors", nil)
	wants(t, err, safetensors.ErrIO, fs.ErrNotExist)
	delete(files, "m/b.safetensors")
	_, err = safetensors.OpenFS(files, "m/model.safetensors.index.json", nil)
	wants(t, err, safetensors.ErrShard, fs.ErrNotExist)
}

// seekOnly hides ReadAt.
type seekOnly struct{ fs.FS }

func (s seekOnly) Open(name string) (fs.File, error) {
	file, err := s.FS.Open(name)
	if err != nil {
		return nil, err
	}
	return struct {
		fs.File
		io.Seeker
	}{file, file.(io.Seeker)}, nil
}

// closer counts.
type closer struct {
	times *atomic.Int32
	err   error
}

func (c closer) Close() error { c.times.Add(1); return c.err }

func TestSourcesAreClosedOnce(t *testing.T) {
	files := model()
	var opened, closed atomic.Int32
	full := errors.New("the connection is in use")
	open := func(name string) (safetensors.Source, error) {
		data, ok := files[name]
		if !ok {
			return safetensors.Source{}, &fs.PathError{Op: "get", Path: name, Err: fs.ErrNotExist}
		}
		opened.Add(1)
		return safetensors.Source{ReaderAt: bytes.NewReader(data), Size: int64(len(data)), Closer: closer{&closed, full}}, nil
	}
	m, err := safetensors.OpenResolved(open, "m/model.safetensors.index.json", nil)
	if err != nil {
		t.Fatal(err)
	}
	wants(t, m.Close(), full)
	if err := m.Close(); err != nil || opened.Load() != 3 || closed.Load() != 3 {
		t.Errorf("%d opened, %d closed, then %v", opened.Load(), closed.Load(), err)
	}

	files["m/b.safetensors"] = files["m/b.safetensors"][:20]
	opened.Store(0)
	closed.Store(0)
	_, err = safetensors.OpenResolved(open, "m/model.safetensors.index.json", nil)
	wants(t, err, safetensors.ErrHeaderLength)
	if opened.Load() == 0 || opened.Load() != closed.Load() {
		t.Errorf("%d opened, %d closed", opened.Load(), closed.Load())
	}
	closed.Store(0)
	for _, source := range []safetensors.Source{
		{Closer: closer{&closed, nil}},
		{ReaderAt: bytes.NewReader(nil), Size: -1, Closer: closer{&closed, nil}},
	} {
		_, err := safetensors.OpenSource(source, nil)
		wants(t, err, safetensors.ErrInvalidArgument)
	}
	if closed.Load() != 2 {
		t.Errorf("%d of 2 refused sources closed", closed.Load())
	}
}

// faulty reads well up to a point, then does something else.
type faulty struct {
	data   []byte
	after  int64
	manner func(p []byte) (int, error)
}

func (f *faulty) ReadAt(p []byte, offset int64) (int, error) {
	if offset >= f.after {
		return f.manner(p)
	}
	return copy(p, f.data[offset:f.after]), io.EOF
}

func openFaulty(t *testing.T, manner func(p []byte) (int, error)) *safetensors.Tensor {
	t.Helper()
	file, _ := numbers(2, 200_000)
	m, err := safetensors.OpenReaderAt(&faulty{file, 100_000, manner}, int64(len(file)), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return mustTensor(t, m, "t1")
}

func TestAReadersErrorsComeOut(t *testing.T) {
	own := errors.New("503 Service Unavailable")
	tensor := openFaulty(t, func([]byte) (int, error) { return 0, fmt.Errorf("get: %w", own) })
	_, err := tensor.Bytes()
	wants(t, err, safetensors.ErrIO, own)
	if !bytes.Contains([]byte(err.Error()), []byte("503")) || !bytes.Contains([]byte(err.Error()), []byte("t1")) {
		t.Errorf("found %v", err)
	}
	wants(t, tensor.ReadInto(make([]byte, tensor.Size)), safetensors.ErrIO, own)

	tensor = openFaulty(t, func([]byte) (int, error) { return 0, &fs.PathError{Op: "read", Path: "x", Err: syscall.EIO} })
	_, err = tensor.Bytes()
	wants(t, err, safetensors.ErrIO, syscall.EIO)
	var failure *safetensors.Error
	if !errors.As(err, &failure) || failure.Errno != syscall.EIO {
		t.Errorf("found %#v", err)
	}

	tensor = openFaulty(t, func([]byte) (int, error) { return 0, safetensors.ErrUnsupported })
	_, err = tensor.Bytes()
	wants(t, err, safetensors.ErrUnsupported)

	tensor = openFaulty(t, func([]byte) (int, error) { return 0, context.DeadlineExceeded })
	_, err = tensor.Bytes()
	wants(t, err, safetensors.ErrCancelled, context.DeadlineExceeded)

	tensor = openFaulty(t, func([]byte) (int, error) { return 0, io.EOF })
	_, err = tensor.Bytes()
	wants(t, err, safetensors.ErrIO, io.ErrUnexpectedEOF)

	for _, n := range []int{-1, 1 << 40} {
		tensor = openFaulty(t, func([]byte) (int, error) { return n, nil })
		_, err = tensor.Bytes()
		wants(t, err, safetensors.ErrIO)
	}
	tensor = openFaulty(t, func([]byte) (int, error) { return 0, nil })
	_, err = tensor.Bytes()
	wants(t, err, safetensors.ErrIO)
}

func TestErrorsOfManyGoroutinesAreTheirOwn(t *testing.T) {
	file, _ := numbers(40, 100)
	header := int64(len(file) - 40*100)
	read := func(p []byte, offset int64) (int, error) {
		if offset < header {
			return copy(p, file[offset:header]), io.EOF
		}
		return 0, numbered((offset - header) / 100)
	}
	m, err := safetensors.OpenSource(safetensors.Source{
		ReaderAt: readerFunc(read), Size: int64(len(file)), PreferredRead: int(header),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var group sync.WaitGroup
	for i := range m.Tensors() {
		group.Add(1)
		go func() {
			defer group.Done()
			_, err := mustTensor(t, m, fmt.Sprintf("t%d", i)).Bytes()
			wants(t, err, numbered(i))
		}()
	}
	group.Wait()
}

type numbered int

func (n numbered) Error() string { return fmt.Sprint("number ", int(n)) }

type readerFunc func(p []byte, offset int64) (int, error)

func (f readerFunc) ReadAt(p []byte, offset int64) (int, error) { return f(p, offset) }

// panicOf returns what a function panicked with.
func panicOf(f func()) (value any) {
	defer func() { value = recover() }()
	f()
	return nil
}

func TestPanicsOfCallbacksGoOnInTheCaller(t *testing.T) {
	tensor := openFaulty(t, func([]byte) (int, error) { panic("read") })
	for i := 0; i < 3; i++ {
		if value := panicOf(func() { tensor.Bytes() }); value != "read" {
			t.Errorf("panicked with %v", value)
		}
		if value := panicOf(func() { tensor.ReadInto(make([]byte, tensor.Size)) }); value != "read" {
			t.Errorf("panicked with %v", value)
		}
	}
	resolve := func(string) (safetensors.Source, error) { panic("resolve") }
	if value := panicOf(func() { safetensors.OpenResolved(resolve, "a.safetensors", nil) }); value != "resolve" {
		t.Errorf("panicked with %v", value)
	}
	file, _ := numbers(1, 1)
	m, err := safetensors.OpenSource(safetensors.Source{
		ReaderAt: bytes.NewReader(file), Size: int64(len(file)), Closer: closing(func() { panic("close") }),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if value := panicOf(func() { m.Close() }); value != "close" {
		t.Errorf("panicked with %v", value)
	}
}

type closing func()

func (c closing) Close() error { c(); return nil }

func TestACallbackMayEndItsGoroutine(t *testing.T) {
	tensor := openFaulty(t, func([]byte) (int, error) { runtime.Goexit(); return 0, nil })
	for i := 0; i < 3; i++ {
		_, err := tensor.Bytes()
		wants(t, err, safetensors.ErrIO)
	}
}

func TestAReaderMayUseTheCheckpoint(t *testing.T) {
	file, want := numbers(2, 1000)
	header := int64(len(file) - 2000)
	var m *safetensors.Checkpoint
	m, err := safetensors.OpenReaderAt(readerFunc(func(p []byte, offset int64) (int, error) {
		if offset >= header {
			if _, err := m.Tensor("t0"); err != nil {
				return 0, err
			}
			m.Close() // the call under way finishes all the same
		}
		return bytes.NewReader(file).ReadAt(p, offset)
	}), int64(len(file)), nil)
	if err != nil {
		t.Fatal(err)
	}
	read := make([]byte, 1000)
	if err := mustTensor(t, m, "t0").ReadInto(read); err != nil && !errors.Is(err, safetensors.ErrClosed) {
		t.Error(err)
	} else if err == nil && !bytes.Equal(read, want(0)) {
		t.Error("other bytes")
	}
}

func TestSourcesHints(t *testing.T) {
	file, _ := numbers(1, 300_000)
	var largest, now, most atomic.Int64
	m, err := safetensors.OpenSource(safetensors.Source{
		ReaderAt: readerFunc(func(p []byte, offset int64) (int, error) {
			largest.Store(max(largest.Load(), int64(len(p))))
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			return bytes.NewReader(file).ReadAt(p, offset)
		}),
		Size: int64(len(file)), PreferredRead: 10_000, MaxParallel: 1,
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var group sync.WaitGroup
	for i := 0; i < 4; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			if err := mustTensor(t, m, "t0").ReadInto(make([]byte, 300_000)); err != nil {
				t.Error(err)
			}
		}()
	}
	group.Wait()
	if largest.Load() > 10_000 || most.Load() > 1 {
		t.Errorf("reads of %d bytes, %d at once", largest.Load(), most.Load())
	}
}
