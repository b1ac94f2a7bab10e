// SPDX-License-Identifier: Apache-2.0

// The cost of the Go package over the C functions that it calls, in one process
// and in turns.
//
//	bindings/go/bench [FOLDER]
//
// FOLDER receives a file of 1 GiB for the time of the run.
package main

import (
	"context"
	"fmt"
	"log"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	safetensors "github.com/libsafetensors/libsafetensors/bindings/go"
)

func main() {
	log.SetFlags(0)
	folder := "."
	if len(os.Args) > 1 {
		folder = os.Args[1]
	}
	folder, err := os.MkdirTemp(folder, "bench-go-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(folder)

	for _, count := range []int{300, 100_000} {
		many := filepath.Join(folder, "many.safetensors")
		write(many, count, 16, 8)
		openAndList(many, count)
		lookup(many, count)
	}
	large := filepath.Join(folder, "large.safetensors")
	write(large, 64, 4096, 2048)
	load(large)
}

// write makes a checkpoint of BF16 tensors.
func write(path string, count int, shape ...int64) {
	tensors := make([]*safetensors.Tensor, count)
	size := int64(2)
	for _, n := range shape {
		size *= n
	}
	data := make([]byte, size)
	for i := range tensors {
		name := fmt.Sprintf("model.layers.%d.mlp.experts.%d.down_proj.weight", i/128, i%128)
		tensors[i] = &safetensors.Tensor{Name: name, DType: safetensors.BF16, Shape: shape, Data: data}
	}
	options := &safetensors.SaveOptions{Sync: safetensors.SyncNone}
	if err := safetensors.Save(context.Background(), path, tensors, options); err != nil {
		log.Fatal(err)
	}
}

// medians runs both in turn, each once untimed before each timed run.
func medians(rounds int, contenders ...func()) []time.Duration {
	times := make([][]time.Duration, len(contenders))
	for round := 0; round < rounds; round++ {
		for i, contender := range contenders {
			contender()
			began := time.Now()
			contender()
			times[i] = append(times[i], time.Since(began))
		}
	}
	middle := make([]time.Duration, len(contenders))
	for i := range times {
		slices.Sort(times[i])
		middle[i] = times[i][rounds/2]
	}
	return middle
}

func mustOpen(path string) *safetensors.Checkpoint {
	model, err := safetensors.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	return model
}

var sink uint64

func openAndList(path string, count int) {
	times := medians(31,
		func() { sink += cOpenAndList(path) },
		func() {
			model := mustOpen(path)
			for _, tensor := range model.Tensors() {
				sink += tensor.Size + uint64(len(tensor.Name)) + uint64(tensor.Shape[0])
			}
			model.Close()
		})
	fmt.Printf("open and list %6d tensors:    C %v, Go %v (names and shapes become Go memory)\n",
		count, times[0].Round(time.Microsecond), times[1].Round(time.Microsecond))
}

// lookup looks up each name once after opening, which makes Go's map, and again
// later. Each name is a string of its own.
func lookup(path string, count int) {
	model := mustOpen(path)
	defer model.Close()
	c := cOpen(path)
	defer c.close()
	var names []string
	for _, tensor := range model.Tensors() {
		names = append(names, strings.Clone(tensor.Name))
	}
	rand.New(rand.NewSource(1)).Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	cNames := newCNames(names)
	defer cNames.free()
	find := func(model *safetensors.Checkpoint) {
		for _, name := range names {
			tensor, ok := model.Lookup(name)
			if !ok {
				log.Fatal(name)
			}
			sink += tensor.Size
		}
	}
	times := medians(31,
		func() { sink += c.findAll(cNames) },
		func() { find(model) },
		func() {
			for range names {
				sink += cross(1)
			}
		})
	once := make([]time.Duration, 31)
	first := make([]time.Duration, 31)
	for i := range once {
		fresh := mustOpen(path)
		began := time.Now()
		fresh.Lookup(names[0])
		first[i] = time.Since(began)
		find(fresh)
		once[i] = time.Since(began)
		fresh.Close()
	}
	slices.Sort(once)
	slices.Sort(first)
	each := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / float64(len(names)) }
	fmt.Printf("one lookup among %6d:         C %.0f ns, Go %.0f ns; each name once after opening %.0f ns, the first %v (a call to C and back: %.0f ns)\n",
		count, each(times[0]), each(times[1]), each(once[15]), first[15].Round(time.Microsecond), each(times[2]))
}

func load(path string) {
	model := mustOpen(path)
	defer model.Close()
	c := cOpen(path)
	defer c.close()
	arena := make([]byte, 1<<30)
	for i := 0; i < len(arena); i += 4096 {
		arena[i] = 1
	}
	var items []safetensors.LoadItem
	rest := arena
	for _, tensor := range model.Tensors() {
		items = append(items, safetensors.LoadItem{Tensor: tensor, Dst: rest[:tensor.Size]})
		rest = rest[tensor.Size:]
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	loadIn := func(ctx context.Context, options *safetensors.LoadOptions) func() {
		return func() {
			if err := model.Load(ctx, items, options); err != nil {
				log.Fatal(err)
			}
		}
	}
	told := &safetensors.LoadOptions{Progress: func(done, total uint64) { sink += done }}
	times := medians(9, func() { c.loadAll(arena) }, loadIn(context.Background(), nil), loadIn(ctx, told))
	over := func(d time.Duration) float64 { return 100 * (d.Seconds()/times[0].Seconds() - 1) }
	fmt.Printf("load 1 GiB, warm:               C %.2f GB/s, Go %.2f GB/s (%+.1f %%), with progress and a context %.2f GB/s (%+.1f %%)\n",
		rate(times[0]), rate(times[1]), over(times[1]), rate(times[2]), over(times[2]))
}

func rate(d time.Duration) float64 { return float64(1<<30) / 1e9 / d.Seconds() }
