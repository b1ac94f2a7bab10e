// SPDX-License-Identifier: Apache-2.0

package safetensors_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	safetensors "github.com/libsafetensors/libsafetensors/bindings/go"
)

// fileOf spells a file out: a header, and data after it.
func fileOf(header string, data []byte) []byte {
	file := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(file, header...), data...)
}

// numbers makes a file with the tensors t0, t1, … of that many bytes each, and
// returns it and the bytes that a tensor has to have.
func numbers(count, each int) (file []byte, want func(i int) []byte) {
	var header strings.Builder
	data := make([]byte, count*each)
	for i := range data {
		data[i] = byte(i*31 + i>>8 + 7)
	}
	for i := 0; i < count; i++ {
		fmt.Fprintf(&header, `,"t%d":{"dtype":"U8","shape":[%d],"data_offsets":[%d,%d]}`, i, each, i*each, (i+1)*each)
	}
	text := "{}"
	if count > 0 {
		text = "{" + header.String()[1:] + "}"
	}
	return fileOf(text, data), func(i int) []byte { return data[i*each : (i+1)*each] }
}

// collectMeanwhile runs the collector over and over until the test ends.
func collectMeanwhile(t testing.TB) {
	stop, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		for {
			select {
			case <-stop:
				return
			default:
				runtime.GC()
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-over
	})
}

func writeFile(t testing.TB, file []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.safetensors")
	if err := os.WriteFile(path, file, 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

func mustOpen(t testing.TB, path string, access safetensors.Access) *safetensors.Checkpoint {
	t.Helper()
	model, err := safetensors.OpenWith(path, &safetensors.OpenOptions{Access: access})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { model.Close() })
	return model
}

func mustTensor(t testing.TB, model *safetensors.Checkpoint, name string) *safetensors.Tensor {
	t.Helper()
	tensor, err := model.Tensor(name)
	if err != nil {
		t.Fatal(err)
	}
	return tensor
}

// wants fails unless the error is all of these.
func wants(t testing.TB, err error, targets ...error) {
	t.Helper()
	for _, target := range targets {
		if !errors.Is(err, target) {
			t.Errorf("wanted an error that is %q, found %v", target, err)
		}
	}
}

func TestErrorsAreOfTheSystemToo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "missing.safetensors")
	model, err := safetensors.Open(path)
	if model != nil {
		t.Error("a checkpoint beside an error")
	}
	wants(t, err, safetensors.ErrIO, fs.ErrNotExist, syscall.ENOENT)
	var failure *safetensors.Error
	if !errors.As(err, &failure) || failure.Errno != syscall.ENOENT || !strings.Contains(failure.Message, path) {
		t.Errorf("found %#v", failure)
	}
	var status safetensors.Status
	if !errors.As(err, &status) || status != safetensors.ErrIO {
		t.Errorf("found the status %v", status)
	}
	if errors.Is(err, safetensors.ErrShape) || errors.Is(err, fs.ErrPermission) {
		t.Error("it is errors that it is not")
	}
	if got := safetensors.ErrIO.String(); got != "ErrIO" {
		t.Errorf("ErrIO is spelled %q", got)
	}
}

func TestPathsWithNULAreRefused(t *testing.T) {
	path := writeFile(t, fileOf("{}", nil)) + "\x00.txt"
	_, err := safetensors.Open(path)
	wants(t, err, safetensors.ErrInvalidArgument)
	wants(t, safetensors.Save(context.Background(), path, nil, nil), safetensors.ErrInvalidArgument)
	wants(t, safetensors.SetMetadata(path, nil, nil), safetensors.ErrInvalidArgument)
	_, err = safetensors.NewWriter(path, nil, nil)
	wants(t, err, safetensors.ErrInvalidArgument)
	_, err = safetensors.OpenFS(os.DirFS("."), path, nil)
	wants(t, err, safetensors.ErrInvalidArgument)
}

func TestNamesMayHoldAnything(t *testing.T) {
	names := []string{"", "a\x00b", "a\x00", "a", "ü/…", strings.Repeat("long", 5000)}
	var tensors []*safetensors.Tensor
	for i, name := range names {
		tensors = append(tensors, &safetensors.Tensor{Name: name, DType: safetensors.U8, Shape: []int64{1}, Data: []byte{byte(i)}})
	}
	file, err := safetensors.Serialize(context.Background(), tensors, nil)
	if err != nil {
		t.Fatal(err)
	}
	model, err := safetensors.OpenMemory(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer model.Close()
	for i, name := range names {
		if data, err := mustTensor(t, model, name).Bytes(); err != nil || data[0] != byte(i) {
			t.Errorf("%.10q has %v, %v", name, data, err)
		}
	}
	_, err = model.Tensor("b\x1b[31m")
	wants(t, err, safetensors.ErrNotFound)
	if strings.Contains(err.Error(), "\x1b") {
		t.Error("a message that is not safe to print")
	}
}

func TestEverythingAfterCloseIsAnError(t *testing.T) {
	file, _ := numbers(3, 8)
	for _, access := range []safetensors.Access{safetensors.AccessMap, safetensors.AccessRead} {
		model := mustOpen(t, writeFile(t, file), access)
		tensor := mustTensor(t, model, "t1")
		for i := 0; i < 3; i++ {
			if err := model.Close(); err != nil {
				t.Fatal(err)
			}
		}
		runtime.GC()
		_, err := model.Tensor("t1")
		wants(t, err, safetensors.ErrClosed, fs.ErrClosed)
		_, err = tensor.Bytes()
		wants(t, err, safetensors.ErrClosed)
		_, err = tensor.Uint8s()
		wants(t, err, safetensors.ErrClosed)
		wants(t, tensor.ReadInto(make([]byte, 8)), safetensors.ErrClosed)
		wants(t, tensor.ReadSlice(make([]byte, 8), safetensors.All()), safetensors.ErrClosed)
		_, _, err = tensor.SliceShape()
		wants(t, err, safetensors.ErrClosed)
		_, err = model.Retain()
		wants(t, err, safetensors.ErrClosed)
		wants(t, safetensors.Save(context.Background(), filepath.Join(t.TempDir(), "x.safetensors"), model.Tensors(), nil),
			safetensors.ErrClosed)
		if len(model.Tensors()) != 3 || tensor.Name != "t1" || tensor.Shape[0] != 8 || len(model.Shards()) != 1 {
			t.Error("what was told is gone")
		}
	}
}

func TestZeroValuesAreErrors(t *testing.T) {
	var model safetensors.Checkpoint
	_, err := model.Tensor("a")
	wants(t, err, safetensors.ErrClosed)
	if model.Tensors() != nil || model.Metadata() != nil || model.Shards() != nil || model.Close() != nil {
		t.Error("a zero Checkpoint holds something")
	}
	var tensor safetensors.Tensor
	_, err = tensor.Bytes()
	wants(t, err, safetensors.ErrInvalidArgument)
	wants(t, tensor.ReadInto(nil), safetensors.ErrInvalidArgument)
	_, err = safetensors.OpenReaderAt(nil, 1, nil)
	wants(t, err, safetensors.ErrInvalidArgument)
	_, err = safetensors.OpenMemory(nil, nil)
	wants(t, err, safetensors.ErrTruncated)
	_, err = safetensors.OpenResolved(nil, "a", nil)
	wants(t, err, safetensors.ErrInvalidArgument)
}

func TestRetainedOwnersKeepTheBytes(t *testing.T) {
	file, want := numbers(2, 5000)
	model := mustOpen(t, writeFile(t, file), safetensors.AccessMap)
	second, err := model.Retain()
	if err != nil {
		t.Fatal(err)
	}
	data, err := mustTensor(t, model, "t1").Bytes()
	if err != nil {
		t.Fatal(err)
	}
	model.Close()
	_, err = model.Tensor("t1")
	wants(t, err, safetensors.ErrClosed)
	if !bytes.Equal(data, want(1)) {
		t.Error("other bytes after the first owner's Close")
	}
	tensor := mustTensor(t, second, "t1")
	second.Close()
	_, err = tensor.Bytes()
	wants(t, err, safetensors.ErrClosed)
}

func TestTensorsAreTheSameAndTheSliceIsTheCallers(t *testing.T) {
	file, _ := numbers(4, 1)
	model := mustOpen(t, writeFile(t, file), safetensors.AccessAuto)
	all := model.Tensors()
	slices.Reverse(all)
	if again := model.Tensors(); again[0] != all[3] || again[0].Name != "t0" {
		t.Error("the caller's sorting shows")
	}
	shards := model.Shards()
	if len(shards) != 1 || shards[0].Access != safetensors.AccessMap && shards[0].Access != safetensors.AccessRead ||
		shards[0].Reason == "" || shards[0].Size != uint64(len(file)) || shards[0].DataSize != 4 {
		t.Errorf("found %+v", shards)
	}
}

func TestReadingAndSlicing(t *testing.T) {
	data := make([]byte, 6*4)
	for i := range data {
		data[i] = byte(i)
	}
	file := fileOf(`{"m":{"dtype":"U16","shape":[3,4],"data_offsets":[0,24]}}`, data)
	model := mustOpen(t, writeFile(t, file), safetensors.AccessAuto)
	m := mustTensor(t, model, "m")

	ranges := []safetensors.Range{{Start: -2, Stop: safetensors.End}, {Start: 1, Stop: 4, Step: 2}}
	shape, size, err := m.SliceShape(ranges...)
	if err != nil || !slices.Equal(shape, []int64{2, 2}) || size != 8 {
		t.Fatalf("found %v, %d, %v", shape, size, err)
	}
	part := make([]byte, size)
	if err := m.ReadSlice(part, ranges...); err != nil || !bytes.Equal(part, []byte{10, 11, 14, 15, 18, 19, 22, 23}) {
		t.Errorf("found %v, %v", part, err)
	}
	whole := make([]byte, 30)
	if err := m.ReadSlice(whole); err != nil || !bytes.Equal(whole[:24], data) {
		t.Errorf("found %v, %v", whole, err)
	}
	if err := m.ReadInto(whole); err != nil || !bytes.Equal(whole[:24], data) {
		t.Errorf("found %v, %v", whole, err)
	}
	if err := m.ReadSlice(nil, safetensors.Range{Start: 1, Stop: 1}); err != nil {
		t.Errorf("an empty slice: %v", err)
	}
	wants(t, m.ReadInto(whole[:23]), safetensors.ErrBufferSize)
	wants(t, m.ReadSlice(part[:7], ranges...), safetensors.ErrBufferSize)
	wants(t, m.ReadSlice(part, safetensors.Range{Start: 4, Stop: 5}), safetensors.ErrInvalidArgument)
	wants(t, m.ReadSlice(part, safetensors.Range{Stop: 1, Step: -1}), safetensors.ErrInvalidArgument)
	wants(t, m.ReadSlice(part, safetensors.All(), safetensors.All(), safetensors.All()), safetensors.ErrInvalidArgument)
	_, _, err = m.SliceShape(safetensors.Range{Start: 2, Stop: 1})
	wants(t, err, safetensors.ErrInvalidArgument)
}

func TestTypedViewsAreChecked(t *testing.T) {
	data := binary.LittleEndian.AppendUint32(nil, 0x3FC00000) // 1.5
	data = binary.LittleEndian.AppendUint32(data, 0xC0000000) // -2
	// A byte before the header's end shifts the data off its alignment.
	for _, pad := range []string{"", " "} {
		header := `{"f":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"e":{"dtype":"F32","shape":[0],"data_offsets":[8,8]}}`
		for len(header)%4 != 0 {
			header += " "
		}
		path := writeFile(t, fileOf(header+pad, data))
		for _, access := range []safetensors.Access{safetensors.AccessMap, safetensors.AccessRead} {
			model := mustOpen(t, path, access)
			f := mustTensor(t, model, "f")
			values, err := f.Float32s()
			if pad != "" && access == safetensors.AccessMap {
				wants(t, err, safetensors.ErrUnaligned)
			} else if err != nil || !slices.Equal(values, []float32{1.5, -2}) {
				t.Errorf("found %v, %v", values, err)
			}
			_, err = f.Uint32s()
			wants(t, err, safetensors.ErrWrongType)
			_, err = f.Float64s()
			wants(t, err, safetensors.ErrWrongType)
			if empty, err := mustTensor(t, model, "e").Float32s(); err != nil || empty == nil || len(empty) != 0 {
				t.Errorf("the empty tensor: %v, %v", empty, err)
			}
		}
	}
}

func TestEveryDTypeHasItsView(t *testing.T) {
	one := []byte{1, 0, 0, 0, 0, 0, 0, 0}
	check := func(dtype safetensors.DType, view func(*safetensors.Tensor) (int, error)) {
		t.Helper()
		tensor := &safetensors.Tensor{DType: dtype, Shape: []int64{1}, Data: one[:dtype.Bits()/8]}
		if n, err := view(tensor); n != 1 || err != nil {
			t.Errorf("%v: %d values, %v", dtype, n, err)
		}
		tensor.DType = safetensors.BOOL
		_, err := view(tensor)
		wants(t, err, safetensors.ErrWrongType)
	}
	check(safetensors.F64, length((*safetensors.Tensor).Float64s))
	check(safetensors.F32, length((*safetensors.Tensor).Float32s))
	check(safetensors.F16, length((*safetensors.Tensor).Float16s))
	check(safetensors.BF16, length((*safetensors.Tensor).BFloat16s))
	check(safetensors.I8, length((*safetensors.Tensor).Int8s))
	check(safetensors.I16, length((*safetensors.Tensor).Int16s))
	check(safetensors.I32, length((*safetensors.Tensor).Int32s))
	check(safetensors.I64, length((*safetensors.Tensor).Int64s))
	check(safetensors.U8, length((*safetensors.Tensor).Uint8s))
	check(safetensors.U16, length((*safetensors.Tensor).Uint16s))
	check(safetensors.U32, length((*safetensors.Tensor).Uint32s))
	check(safetensors.U64, length((*safetensors.Tensor).Uint64s))
	check(safetensors.C64, func(t *safetensors.Tensor) (int, error) {
		t.Data = one
		values, err := t.Complex64s()
		return len(values), err
	})
}

func length[T any](view func(*safetensors.Tensor) ([]T, error)) func(*safetensors.Tensor) (int, error) {
	return func(t *safetensors.Tensor) (int, error) {
		values, err := view(t)
		return len(values), err
	}
}

func TestOpenMemoryTakesTheCallersBytes(t *testing.T) {
	file, want := numbers(2, 100)
	model, err := safetensors.OpenMemory(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer model.Close()
	data, err := mustTensor(t, model, "t1").Bytes()
	if err != nil || !bytes.Equal(data, want(1)) || &data[99] != &file[len(file)-1] {
		t.Errorf("not the bytes given, or %v", err)
	}
	if shards := model.Shards(); shards[0].Access != safetensors.AccessMemory || shards[0].Path != "" {
		t.Errorf("found %+v", shards)
	}
}

func TestAFileCutShortIsAnError(t *testing.T) {
	file, _ := numbers(2, 100_000)
	path := writeFile(t, file)
	model := mustOpen(t, path, safetensors.AccessRead)
	if err := os.Truncate(path, int64(len(file)-50_000)); err != nil {
		t.Fatal(err)
	}
	tensor := mustTensor(t, model, "t1")
	_, err := tensor.Bytes()
	wants(t, err, safetensors.ErrIO)
	wants(t, tensor.ReadInto(make([]byte, 100_000)), safetensors.ErrIO)
}

func TestForgottenCheckpointsStay(t *testing.T) {
	file, want := numbers(1, 1<<20)
	path := writeFile(t, file)
	mapped, err := safetensors.OpenWith(path, &safetensors.OpenOptions{Access: safetensors.AccessMap})
	if err != nil {
		t.Fatal(err)
	}
	inMemory, err := safetensors.OpenMemory(slices.Clone(file), nil)
	if err != nil {
		t.Fatal(err)
	}
	var views [][]byte
	for _, model := range []*safetensors.Checkpoint{mapped, inMemory} {
		data, err := mustTensor(t, model, "t0").Bytes()
		if err != nil {
			t.Fatal(err)
		}
		views = append(views, data)
	}
	mapped, inMemory = nil, nil
	for i := 0; i < 5; i++ {
		runtime.GC()
	}
	for _, view := range views {
		if !bytes.Equal(view, want(0)) {
			t.Error("the collector has taken a view's bytes")
		}
	}
}

// Everything at once, with the collector at work and owners coming and going:
// what is read is right, or the checkpoint is closed.
func TestCloseAndUseRace(t *testing.T) {
	const count, each, workers = 16, 3000, 8
	file, want := numbers(count, each)
	path := writeFile(t, file)
	collectMeanwhile(t)
	rounds := 60
	if testing.Short() {
		rounds = 10
	}
	for round := 0; round < rounds; round++ {
		model, err := safetensors.OpenWith(path, &safetensors.OpenOptions{Access: safetensors.Access(1 + round%2)})
		if err != nil {
			t.Fatal(err)
		}
		var group sync.WaitGroup
		for worker := 0; worker < workers; worker++ {
			group.Add(1)
			go func() {
				defer group.Done()
				for i := 0; ; i++ {
					number := (i*5 + worker) % count
					if err := useOnce(model, number, want(number)); errors.Is(err, safetensors.ErrClosed) {
						return
					} else if err != nil {
						t.Error(err)
						return
					}
				}
			}()
		}
		for i := 0; i < 3; i++ {
			owner, err := model.Retain()
			if err != nil {
				t.Fatal(err)
			}
			go owner.Close()
		}
		for i := 0; i < 2; i++ {
			group.Add(1)
			go func() {
				defer group.Done()
				for j := 0; j < round*20; j++ {
					runtime.Gosched()
				}
				model.Close()
			}()
		}
		group.Wait()
	}
}

// useOnce does what a user does, with an owner of its own while it looks at a view.
func useOnce(model *safetensors.Checkpoint, number int, want []byte) error {
	own, err := model.Retain()
	if err != nil {
		return err
	}
	defer own.Close()
	tensor, err := own.Tensor(fmt.Sprintf("t%d", number))
	if err != nil {
		return err
	}
	data, err := tensor.Bytes()
	if err != nil {
		return err
	}
	read := make([]byte, len(want))
	if err := tensor.ReadInto(read); err != nil {
		return err
	}
	if !bytes.Equal(data, want) || !bytes.Equal(read, want) {
		return fmt.Errorf("other bytes in t%d", number)
	}
	_, err = model.Tensor(tensor.Name)
	return err
}

func TestManyOpensLeakNothing(t *testing.T) {
	file, want := numbers(4, 1000)
	path := writeFile(t, file)
	broken := writeFile(t, file[:len(file)-1])
	opens := 10_000
	if testing.Short() {
		opens = 1000
	}
	once := func(i int) {
		var model *safetensors.Checkpoint
		var err error
		switch i % 4 {
		case 0:
			model, err = safetensors.OpenWith(path, &safetensors.OpenOptions{Access: safetensors.AccessMap})
		case 1:
			model, err = safetensors.OpenWith(path, &safetensors.OpenOptions{Access: safetensors.AccessRead})
		case 2:
			model, err = safetensors.OpenMemory(file, nil)
		case 3:
			model, err = safetensors.OpenFS(os.DirFS(filepath.Dir(path)), filepath.Base(path), nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		if data, err := mustTensor(t, model, "t2").Bytes(); err != nil || !bytes.Equal(data, want(2)) {
			t.Fatalf("other bytes, or %v", err)
		}
		if err := model.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := safetensors.Open(broken); err == nil {
			t.Fatal("a file cut short was opened")
		}
	}
	for i := 0; i < opens/10; i++ {
		once(i)
	}
	runtime.GC()
	memory, files, maps := resident(t), entries(t, "/proc/self/fd"), mappings(t)
	for i := 0; i < opens; i++ {
		once(i)
	}
	runtime.GC()
	if grown := entries(t, "/proc/self/fd") - files; grown > 5 {
		t.Errorf("%d more open files", grown)
	}
	if grown := mappings(t) - maps; grown > 100 {
		t.Errorf("%d more mappings", grown)
	}
	// A leak of one record an open alone would be 1 MB.
	if grown := resident(t) - memory; grown > 8<<20 && !raceEnabled {
		t.Errorf("%d bytes more of memory", grown)
	}
}

func resident(t *testing.T) int {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skip("no /proc")
	}
	var size, pages int
	fmt.Sscan(string(text), &size, &pages)
	return pages * os.Getpagesize()
}

func entries(t *testing.T, path string) int {
	found, err := os.ReadDir(path)
	if err != nil {
		t.Skip("no /proc")
	}
	return len(found)
}

func mappings(t *testing.T) int {
	text, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Skip("no /proc")
	}
	return bytes.Count(text, []byte("\n"))
}
