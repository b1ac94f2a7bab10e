// SPDX-License-Identifier: Apache-2.0

package safetensors_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"strings"
	"testing/fstest"
	"time"

	safetensors "github.com/libsafetensors/libsafetensors/bindings/go"
)

// vad is the voice activity model of the examples.
const vad = "../../examples/data/silero_vad_16k.safetensors"

func Example() {
	model, err := safetensors.Open(vad)
	if err != nil {
		log.Fatal(err)
	}
	defer model.Close()
	for _, tensor := range model.Tensors()[:3] {
		fmt.Println(tensor.Name, tensor.DType, tensor.Shape, tensor.Size)
	}
	// Output:
	// stft_conv.weight F32 [258 1 256] 264192
	// conv1.weight F32 [128 129 3] 198144
	// conv1.bias F32 [128] 512
}

func ExampleCheckpoint_Tensor() {
	model, err := safetensors.Open(vad)
	if err != nil {
		log.Fatal(err)
	}
	defer model.Close()
	tensor, err := model.Tensor("final_conv.bias")
	if err != nil {
		log.Fatal(err)
	}
	values, err := tensor.Float32s() // a view: valid until model is closed
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.4f\n", values[0])

	_, err = model.Tensor("conv9.bias")
	fmt.Println(errors.Is(err, safetensors.ErrNotFound), err)
	// Output:
	// -0.5740
	// true safetensors: no tensor is named "conv9.bias"
}

// A file that is not what it should be: which rule, and where.
func ExampleError() {
	broken := filepath.Join(os.TempDir(), "broken.safetensors")
	os.WriteFile(broken, []byte("not a checkpoint"), 0o600)
	defer os.Remove(broken)

	_, err := safetensors.Open(broken)
	var failure *safetensors.Error
	if errors.As(err, &failure) {
		fmt.Println(failure.Code.String())
	}
	_, err = safetensors.Open("/nowhere/model.safetensors")
	fmt.Println(errors.Is(err, fs.ErrNotExist))
	// Output:
	// ErrHeaderTooLarge
	// true
}

// Several tensors into one block of memory, as F16, with progress and a deadline.
func ExampleCheckpoint_Load() {
	model, err := safetensors.Open(vad)
	if err != nil {
		log.Fatal(err)
	}
	defer model.Close()

	var items []safetensors.LoadItem
	size := uint64(0)
	for _, tensor := range model.Tensors() {
		if strings.HasPrefix(tensor.Name, "lstm_cell.") {
			items = append(items, safetensors.LoadItem{Tensor: tensor, DType: safetensors.F16})
			size += tensor.ElementCount * 2
		}
	}
	arena := make([]safetensors.Float16, size/2)
	rest := safetensors.BytesOf(arena)
	for i := range items {
		bytes := items[i].Tensor.ElementCount * 2
		items[i].Dst, rest = rest[:bytes], rest[bytes:]
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err = model.Load(ctx, items, &safetensors.LoadOptions{Progress: func(done, total uint64) {
		if done == total {
			fmt.Println("loaded", total, "bytes")
		}
	}})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// loaded 264192 bytes
}

// A tensor as F32, whatever it is in the file, in memory that outlives the checkpoint.
func ExampleTensor_LoadFloat32s() {
	model, err := safetensors.Open(vad)
	if err != nil {
		log.Fatal(err)
	}
	tensor, err := model.Tensor("conv4.bias")
	if err != nil {
		log.Fatal(err)
	}
	values, err := tensor.LoadFloat32s(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	model.Close()
	fmt.Println(len(values))
	// Output: 128
}

// Every second row, and of those the first three columns.
func ExampleTensor_ReadSlice() {
	model, err := safetensors.Open(vad)
	if err != nil {
		log.Fatal(err)
	}
	defer model.Close()
	tensor, err := model.Tensor("lstm_cell.weight_ih")
	if err != nil {
		log.Fatal(err)
	}
	ranges := []safetensors.Range{{Stop: safetensors.End, Step: 2}, {Stop: 3}}
	shape, size, err := tensor.SliceShape(ranges...)
	if err != nil {
		log.Fatal(err)
	}
	part := make([]byte, size)
	if err := tensor.ReadSlice(part, ranges...); err != nil {
		log.Fatal(err)
	}
	fmt.Println(tensor.Shape, shape, size)
	// Output: [512 128] [256 3] 3072
}

// A tensor to anything that takes bytes, without holding it in memory.
func ExampleCheckpoint_Stream() {
	model, err := safetensors.Open(vad)
	if err != nil {
		log.Fatal(err)
	}
	defer model.Close()
	tensor, err := model.Tensor("stft_conv.weight")
	if err != nil {
		log.Fatal(err)
	}
	var to io.Writer = io.Discard
	written := 0
	items := []safetensors.LoadItem{{Tensor: tensor, DType: safetensors.BF16}}
	err = model.Stream(context.Background(), items, nil, func(chunk safetensors.Chunk) error {
		n, err := to.Write(chunk.Data)
		written += n
		return err
	})
	fmt.Println(written, err)
	// Output: 132096 <nil>
}

// A checkpoint inside of something else: here a file system in memory.
func ExampleOpenFS() {
	data, err := os.ReadFile(vad)
	if err != nil {
		log.Fatal(err)
	}
	files := fstest.MapFS{"assets/vad.safetensors": {Data: data}}
	model, err := safetensors.OpenFS(files, "assets/vad.safetensors", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer model.Close()
	fmt.Println(len(model.Tensors()), model.Shards()[0].Access)
	// Output: 15 callback
}

func ExampleSave() {
	path := filepath.Join(os.TempDir(), "example.safetensors")
	defer os.Remove(path)
	tensors := []*safetensors.Tensor{
		{Name: "weight", DType: safetensors.F32, Shape: []int64{2, 2}, Data: safetensors.BytesOf([]float32{1, 2, 3, 4})},
		{Name: "steps", DType: safetensors.I64, Data: safetensors.BytesOf([]int64{1000})},
	}
	options := &safetensors.SaveOptions{Metadata: map[string]string{"format": "pt"}}
	if err := safetensors.Save(context.Background(), path, tensors, options); err != nil {
		log.Fatal(err)
	}
	model, err := safetensors.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer model.Close()
	fmt.Println(len(model.Tensors()), model.Metadata())
	// Output: 2 map[format:pt]
}

// Another model's tensors, one of them replaced, without reading the rest into memory.
func ExampleSave_copy() {
	model, err := safetensors.Open(vad)
	if err != nil {
		log.Fatal(err)
	}
	defer model.Close()
	tensors := model.Tensors()
	for i, tensor := range tensors {
		if tensor.Name == "final_conv.bias" {
			replaced := *tensor
			replaced.Data = safetensors.BytesOf([]float32{0.5})
			tensors[i] = &replaced
		}
	}
	path := filepath.Join(os.TempDir(), "example-copy.safetensors")
	defer os.Remove(path)
	err = safetensors.Save(context.Background(), path, tensors, &safetensors.SaveOptions{Metadata: model.Metadata()})
	fmt.Println(err)
	// Output: <nil>
}

// A file whose tensors come from elsewhere, piece by piece.
func ExampleNewWriter() {
	path := filepath.Join(os.TempDir(), "example-writer.safetensors")
	defer os.Remove(path)
	w, err := safetensors.NewWriter(path, []*safetensors.Tensor{
		{Name: "first", DType: safetensors.U8, Shape: []int64{5}},
		{Name: "second", DType: safetensors.U8, Shape: []int64{6}},
	}, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer w.Close() // without Finish, nothing is left
	for i, text := range []string{"hello", "world!"} {
		if _, err := io.Copy(w.Tensor(i), strings.NewReader(text)); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println(w.Finish())
	// Output: <nil>
}

// BF16 to F32 by hand; Load does it on the way.
func ExampleConvert() {
	values := make([]float32, 2)
	bits := []safetensors.BFloat16{0x3F80, 0xC000}
	err := safetensors.Convert(safetensors.BF16, safetensors.BytesOf(bits), safetensors.F32, safetensors.BytesOf(values))
	fmt.Println(values, err)
	// Output: [1 -2] <nil>
}
