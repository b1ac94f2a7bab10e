// SPDX-License-Identifier: Apache-2.0

package safetensors_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"

	safetensors "github.com/libsafetensors/libsafetensors/bindings/go"
)

var background = context.Background()

// three is tensors of several kinds, and the file that the format makes of them.
func three() (tensors []*safetensors.Tensor, file []byte) {
	floats := []float32{1, -2.5, float32(math.Inf(1)), 0, 1e-9, 7}
	tensors = []*safetensors.Tensor{
		{Name: "b", DType: safetensors.U8, Shape: []int64{3}, Data: []byte{1, 2, 3}},
		{Name: "f", DType: safetensors.F32, Shape: []int64{2, 3}, Data: safetensors.BytesOf(floats)},
		{Name: "s", DType: safetensors.I16, Data: safetensors.BytesOf([]int16{-2})},
		{Name: "z", DType: safetensors.F64, Shape: []int64{0, 5}},
	}
	var data []byte
	for _, value := range floats {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(value))
	}
	data = append(data, 0xFE, 0xFF, 1, 2, 3)
	header := `{"__metadata__":{"a":"","k":"v"},` +
		`"z":{"dtype":"F64","shape":[0,5],"data_offsets":[0,0]},` +
		`"f":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},` +
		`"s":{"dtype":"I16","shape":[],"data_offsets":[24,26]},` +
		`"b":{"dtype":"U8","shape":[3],"data_offsets":[26,29]}}`
	for len(header)%8 != 0 {
		header += " "
	}
	return tensors, fileOf(header, data)
}

var threesMetadata = map[string]string{"k": "v", "a": ""}

func TestSaveWritesTheFormatsBytes(t *testing.T) {
	tensors, want := three()
	options := &safetensors.SaveOptions{Metadata: threesMetadata}
	file, err := safetensors.Serialize(background, tensors, options)
	if err != nil || !bytes.Equal(file, want) {
		t.Errorf("wanted %q, found %q, %v", want, file, err)
	}
	path := filepath.Join(t.TempDir(), "three.safetensors")
	if err := safetensors.Save(background, path, tensors, options); err != nil {
		t.Fatal(err)
	}
	if file, err := os.ReadFile(path); err != nil || !bytes.Equal(file, want) {
		t.Errorf("wanted %q, found %q, %v", want, file, err)
	}
	options.Overwrite = safetensors.OverwriteRefuse
	wants(t, safetensors.Save(background, path, tensors, options), safetensors.ErrIO, fs.ErrExist)

	for _, metadata := range []map[string]string{nil, {}} {
		file, err := safetensors.Serialize(background, nil, &safetensors.SaveOptions{Metadata: metadata})
		if err != nil {
			t.Fatal(err)
		}
		model, err := safetensors.OpenMemory(file, nil)
		if err != nil || (model.Metadata() == nil) != (metadata == nil) || len(model.Tensors()) != 0 {
			t.Errorf("%v became %v, %v", metadata, model.Metadata(), err)
		}
		model.Close()
	}
}

func TestCopyingACheckpoint(t *testing.T) {
	tensors, want := three()
	path := writeFile(t, want)
	for _, access := range []safetensors.Access{safetensors.AccessMap, safetensors.AccessRead} {
		model := mustOpen(t, path, access)
		copied, err := safetensors.Serialize(background, model.Tensors(), &safetensors.SaveOptions{Metadata: model.Metadata()})
		if err != nil || !bytes.Equal(copied, want) {
			t.Errorf("wanted %q, found %q, %v", want, copied, err)
		}
		// In place of itself, while it is open; renamed; beside a new one and one of another checkpoint.
		renamed := *mustTensor(t, model, "f")
		renamed.Name = "renamed"
		replaced := *mustTensor(t, model, "b")
		replaced.Data = []byte{9, 8, 7}
		other := mustOpen(t, writeFile(t, want), access)
		foreign := *mustTensor(t, other, "s")
		foreign.Name = "foreign"
		target := filepath.Join(t.TempDir(), "mixed.safetensors")
		mixed := []*safetensors.Tensor{&renamed, &replaced, mustTensor(t, model, "s"), &foreign, mustTensor(t, model, "z")}
		if err := safetensors.Save(background, target, mixed, nil); err != nil {
			t.Fatal(err)
		}
		found := mustOpen(t, target, access)
		for name, want := range map[string][]byte{
			"renamed": tensors[1].Data, "b": {9, 8, 7}, "s": {0xFE, 0xFF}, "foreign": {0xFE, 0xFF}, "z": {},
		} {
			if data, err := mustTensor(t, found, name).Bytes(); err != nil || !bytes.Equal(data, want) {
				t.Errorf("%s holds %v, %v", name, data, err)
			}
		}
		if err := safetensors.Save(background, path, model.Tensors(), &safetensors.SaveOptions{Metadata: threesMetadata}); err != nil {
			t.Error(err)
		}
		if file, err := os.ReadFile(path); err != nil || !bytes.Equal(file, want) {
			t.Errorf("wanted %q, found %q, %v", want, file, err)
		}
	}
}

func TestWhatCantBeReadBackIsRefused(t *testing.T) {
	u8 := func(name string, size int64, data []byte) *safetensors.Tensor {
		return &safetensors.Tensor{Name: name, DType: safetensors.U8, Shape: []int64{size}, Data: data}
	}
	for _, c := range []struct {
		want    error
		tensors []*safetensors.Tensor
	}{
		{safetensors.ErrDuplicateKey, []*safetensors.Tensor{u8("a", 1, []byte{1}), u8("a", 1, []byte{1})}},
		{safetensors.ErrSizeMismatch, []*safetensors.Tensor{u8("a", 2, []byte{1})}},
		{safetensors.ErrSizeMismatch, []*safetensors.Tensor{u8("a", 2, []byte{1, 2, 3})}},
		{safetensors.ErrInvalidArgument, []*safetensors.Tensor{u8("a", 2, []byte{})}},
		{safetensors.ErrInvalidArgument, []*safetensors.Tensor{u8("a", 2, nil)}},
		{safetensors.ErrInvalidArgument, []*safetensors.Tensor{u8("__metadata__", 1, []byte{1})}},
		{safetensors.ErrInvalidArgument, []*safetensors.Tensor{u8("\xff", 1, []byte{1})}},
		{safetensors.ErrInvalidArgument, []*safetensors.Tensor{nil}},
		{safetensors.ErrInvalidArgument, []*safetensors.Tensor{{Name: "a", DType: 99, Shape: []int64{1}, Data: []byte{1}}}},
		{safetensors.ErrShape, []*safetensors.Tensor{u8("a", -1, []byte{1})}},
		{safetensors.ErrShape, []*safetensors.Tensor{{DType: safetensors.U8, Shape: []int64{math.MaxInt64, 4}, Data: []byte{1}}}},
		{safetensors.ErrSubByte, []*safetensors.Tensor{{Name: "a", DType: safetensors.F4, Shape: []int64{1}, Data: []byte{1}}}},
	} {
		_, err := safetensors.Serialize(background, c.tensors, nil)
		wants(t, err, c.want)
		path := filepath.Join(t.TempDir(), "x.safetensors")
		wants(t, safetensors.Save(background, path, c.tensors, nil), c.want)
		if left := entries(t, filepath.Dir(path)); left != 0 {
			t.Errorf("%v: %d files left", c.want, left)
		}
	}
	tensors, _ := three()
	_, err := safetensors.Serialize(background, tensors, &safetensors.SaveOptions{Alignment: 3})
	wants(t, err, safetensors.ErrInvalidArgument)
}

func TestShards(t *testing.T) {
	var tensors []*safetensors.Tensor
	for i := 0; i < 5; i++ {
		data := bytes.Repeat([]byte{byte(i)}, 100)
		tensors = append(tensors, &safetensors.Tensor{Name: fmt.Sprint(i), DType: safetensors.U8, Shape: []int64{100}, Data: data})
	}
	folder := t.TempDir()
	options := &safetensors.SaveOptions{MaxShardSize: 250, Alignment: 4096, Metadata: map[string]string{"format": "pt"}}
	if err := safetensors.Save(background, folder+"/model.safetensors", tensors, options); err != nil {
		t.Fatal(err)
	}
	model := mustOpen(t, folder, safetensors.AccessAuto)
	shards := model.Shards()
	if len(shards) != 3 || filepath.Base(shards[2].Path) != "model-00003-of-00003.safetensors" || shards[1].DataOffset%4096 != 0 {
		t.Errorf("found %+v", shards)
	}
	for i, tensor := range model.Tensors() {
		data, err := tensor.Bytes()
		if err != nil || !bytes.Equal(data, tensors[i].Data) || tensor.Shard != i/2 {
			t.Errorf("%s in %d holds %v, %v", tensor.Name, tensor.Shard, data, err)
		}
	}
	_, err := safetensors.Serialize(background, tensors, options)
	wants(t, err, safetensors.ErrUnsupported)
}

func TestSavingIsToldAndCancelled(t *testing.T) {
	const size = 24 << 20
	tensors := []*safetensors.Tensor{{Name: "t", DType: safetensors.U8, Shape: []int64{size}, Data: make([]byte, size)}}
	folder := t.TempDir()
	path := filepath.Join(folder, "x.safetensors")
	var last, calls uint64
	told := func(done, total uint64) {
		if total != size || done < last {
			t.Errorf("%d of %d after %d", done, total, last)
		}
		last = done
		calls++
	}
	options := &safetensors.SaveOptions{Sync: safetensors.SyncNone, Progress: told}
	if err := safetensors.Save(background, path, tensors, options); err != nil || last != size || calls < 2 {
		t.Errorf("told %d times, at last %d: %v", calls, last, err)
	}
	before, _ := os.ReadFile(path)

	reason := errors.New("the user went home")
	ctx, cancel := context.WithCancelCause(background)
	options.Progress = func(done, total uint64) { cancel(reason) }
	wants(t, safetensors.Save(ctx, path, tensors, options), safetensors.ErrCancelled, context.Canceled, reason)
	options.Progress = nil
	wants(t, safetensors.Save(ctx, path, tensors, options), safetensors.ErrCancelled, context.Canceled, reason)
	_, err := safetensors.Serialize(ctx, tensors, options)
	wants(t, err, safetensors.ErrCancelled, context.Canceled)

	options.Progress = func(done, total uint64) { panic("told") }
	if value := panicOf(func() { safetensors.Save(background, path, tensors, options) }); value != "told" {
		t.Errorf("panicked with %v", value)
	}
	ended := make(chan bool)
	go func() {
		defer close(ended)
		options.Progress = func(done, total uint64) { runtime.Goexit() }
		safetensors.Save(background, path, tensors, options)
		t.Error("Goexit came back")
	}()
	<-ended
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) || entries(t, folder) != 1 {
		t.Error("a save that ended early has left something")
	}
}

func TestWriter(t *testing.T) {
	tensors, want := three()
	folder := t.TempDir()
	path := filepath.Join(folder, "written.safetensors")
	w, err := safetensors.NewWriter(path, tensors, &safetensors.SaveOptions{Metadata: threesMetadata})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(w.Tensor(1), bytes.NewReader(tensors[1].Data)); n != 24 || err != nil {
		t.Errorf("copied %d, %v", n, err)
	}
	if err := w.Write(0, 1, tensors[0].Data[1:]); err != nil {
		t.Error(err)
	}
	wants(t, w.Write(0, 1, []byte{5}), safetensors.ErrInvalidArgument)
	wants(t, w.Write(0, 3, []byte{5}), safetensors.ErrInvalidArgument)
	wants(t, w.Write(4, 0, []byte{5}), safetensors.ErrInvalidArgument)
	wants(t, w.Write(-1, 0, []byte{5}), safetensors.ErrInvalidArgument)
	wants(t, w.Finish(), safetensors.ErrDataNotCovered)
	if _, err := w.Tensor(0).WriteAt(tensors[0].Data[:1], 0); err != nil {
		t.Error(err)
	}
	if _, err := w.Tensor(2).Write(tensors[2].Data); err != nil {
		t.Error(err)
	}
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	wants(t, w.Finish(), safetensors.ErrInvalidArgument)
	for i := 0; i < 2; i++ {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
	wants(t, w.Finish(), safetensors.ErrClosed)
	wants(t, w.Write(0, 0, nil), safetensors.ErrClosed)
	if file, err := os.ReadFile(path); err != nil || !bytes.Equal(file, want) {
		t.Errorf("wanted %q, found %q, %v", want, file, err)
	}

	w, err = safetensors.NewWriter(path, tensors, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(1, 0, tensors[1].Data)
	w.Close()
	if file, err := os.ReadFile(path); err != nil || !bytes.Equal(file, want) || entries(t, folder) != 1 {
		t.Errorf("a writer that was not finished has left something, or %v", err)
	}
}

func TestWritersGoroutinesAndClose(t *testing.T) {
	const count, size, piece = 8, 1 << 18, 1 << 12
	var tensors []*safetensors.Tensor
	for i := 0; i < count; i++ {
		tensors = append(tensors, &safetensors.Tensor{Name: fmt.Sprint(i), DType: safetensors.U8, Shape: []int64{size}})
	}
	path := filepath.Join(t.TempDir(), "parallel.safetensors")
	for _, closeEarly := range []bool{false, true} {
		w, err := safetensors.NewWriter(path, tensors, &safetensors.SaveOptions{Sync: safetensors.SyncNone})
		if err != nil {
			t.Fatal(err)
		}
		var group sync.WaitGroup
		for i := range tensors {
			group.Add(1)
			go func() {
				defer group.Done()
				to := w.Tensor(i)
				for j := 0; j < size/piece; j++ {
					if closeEarly && i == 3 && j == 20 {
						w.Close()
					}
					if _, err := to.Write(bytes.Repeat([]byte{byte(i), byte(j)}, piece/2)); err != nil {
						if !closeEarly || !errors.Is(err, safetensors.ErrClosed) {
							t.Error(err)
						}
						return
					}
				}
			}()
		}
		group.Wait()
		if err := w.Finish(); (err == nil) == closeEarly {
			t.Errorf("finished with %v", err)
		}
		w.Close()
	}
	model := mustOpen(t, path, safetensors.AccessAuto)
	for i := range tensors {
		data, err := mustTensor(t, model, fmt.Sprint(i)).Bytes()
		if err != nil {
			t.Fatal(err)
		}
		for at := range data {
			if want := [2]byte{byte(i), byte(at / piece)}[at%2]; data[at] != want {
				t.Fatalf("tensor %d has %d at %d, not %d", i, data[at], at, want)
			}
		}
	}
}

func TestSetMetadata(t *testing.T) {
	tensors, _ := three()
	path := filepath.Join(t.TempDir(), "edited.safetensors")
	if err := safetensors.Save(background, path, tensors, &safetensors.SaveOptions{HeaderReserve: 200}); err != nil {
		t.Fatal(err)
	}
	inPlace := &safetensors.MetadataOptions{InPlace: true}
	for _, metadata := range []map[string]string{{"k": "v", "empty": ""}, {}, nil} {
		if err := safetensors.SetMetadata(path, metadata, inPlace); err != nil {
			t.Fatal(err)
		}
		model := mustOpen(t, path, safetensors.AccessAuto)
		if found := model.Metadata(); !maps.Equal(found, metadata) || (found == nil) != (metadata == nil) {
			t.Errorf("wanted %v, found %v", metadata, found)
		}
		if data, err := mustTensor(t, model, "b").Bytes(); err != nil || !slices.Equal(data, []byte{1, 2, 3}) {
			t.Errorf("b holds %v, %v", data, err)
		}
		model.Close()
	}
	wants(t, safetensors.SetMetadata(filepath.Join(t.TempDir(), "no"), nil, nil), fs.ErrNotExist)
}

func TestTensorsMayChangeHandsWhileTheyAreSaved(t *testing.T) {
	// The collector moves and frees what is not pinned; the file shows it.
	collectMeanwhile(t)
	for round := 0; round < 20; round++ {
		var tensors []*safetensors.Tensor
		for i := 0; i < 200; i++ {
			data := bytes.Repeat([]byte{byte(i)}, 1+i*7)
			tensors = append(tensors, &safetensors.Tensor{
				Name: fmt.Sprintf("%03d", i), DType: safetensors.U8, Shape: []int64{int64(len(data))}, Data: data,
			})
		}
		file, err := safetensors.Serialize(background, tensors, nil)
		if err != nil {
			t.Fatal(err)
		}
		model, err := safetensors.OpenMemory(file, nil)
		if err != nil {
			t.Fatal(err)
		}
		file = nil
		for i, tensor := range model.Tensors() {
			data, err := tensor.Bytes()
			if err != nil || len(data) != 1+i*7 || bytes.Count(data, []byte{byte(i)}) != len(data) {
				t.Fatalf("%s holds %v, %v", tensor.Name, data, err)
			}
		}
		model.Close()
	}
}

func TestConvert(t *testing.T) {
	from := safetensors.BytesOf([]float32{1, -2, 3.140625})
	to := make([]byte, 6)
	if err := safetensors.Convert(safetensors.F32, from, safetensors.BF16, to); err != nil {
		t.Fatal(err)
	}
	if want := safetensors.BytesOf([]safetensors.BFloat16{0x3F80, 0xC000, 0x4049}); !bytes.Equal(to, want) {
		t.Errorf("wanted %x, found %x", want, to)
	}
	back := make([]byte, 12)
	if err := safetensors.Convert(safetensors.BF16, to, safetensors.F32, back); err != nil || !bytes.Equal(back, from) {
		t.Errorf("wanted %x, found %x, %v", from, back, err)
	}
	wants(t, safetensors.Convert(safetensors.F32, from, safetensors.BF16, to[:5]), safetensors.ErrBufferSize)
	wants(t, safetensors.Convert(safetensors.F32, from[:5], safetensors.BF16, to), safetensors.ErrInvalidArgument)
	wants(t, safetensors.Convert(safetensors.F32, from, safetensors.I32, back), safetensors.ErrUnsupported)
	wants(t, safetensors.Convert(safetensors.F32, from, safetensors.BF16, from[2:]), safetensors.ErrInvalidArgument)
	wants(t, safetensors.Convert(0, from, safetensors.BF16, to), safetensors.ErrInvalidArgument)
	if err := safetensors.Convert(safetensors.F32, nil, safetensors.BF16, nil); err != nil {
		t.Error(err)
	}
}

func TestDTypes(t *testing.T) {
	for _, dtype := range safetensors.DTypes() {
		parsed, err := safetensors.ParseDType(dtype.String())
		if err != nil || parsed != dtype || dtype.Bits() == 0 {
			t.Errorf("%d is %v of %d bits, %v", dtype, parsed, dtype.Bits(), err)
		}
	}
	for dtype, want := range map[safetensors.DType]string{
		safetensors.F8_E4M3FNUZ: "F8_E4M3FNUZ", safetensors.BF16: "BF16", safetensors.U64: "U64",
		safetensors.UnknownDType: "UNKNOWN", safetensors.AsStored: "?",
	} {
		if dtype.String() != want {
			t.Errorf("%d is spelled %v, not %s", dtype, dtype, want)
		}
	}
	_, err := safetensors.ParseDType("f32")
	wants(t, err, safetensors.ErrDType)
}
