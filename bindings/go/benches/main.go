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

	many := filepath.Join(folder, "many.safetensors")
	write(many, 100_000, 16, 8)
	openAndList(many)
	lookup(many)
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

func openAndList(path string) {
	times := medians(31,
		func() { sink += cOpenAndList(path) },
		func() {
			model := mustOpen(path)
			for _, tensor := range model.Tensors() {
				sink += tensor.Size + uint64(len(tensor.Name)) + uint64(tensor.Shape[0])
			}
			model.Close()
		})
	fmt.Printf("open and list 100,000 tensors:  C %v, Go %v (%+v: names and shapes become Go memory)\n",
		times[0].Round(10*time.Microsecond), times[1].Round(10*time.Microsecond), (times[1] - times[0]).Round(10*time.Microsecond))
}

func lookup(path string) {
	model := mustOpen(path)
	defer model.Close()
	c := cOpen(path)
	defer c.close()
	var names []string
	for _, tensor := range model.Tensors() {
		names = append(names, strings.Clone(tensor.Name))
	}
	rand.New(rand.NewSource(1)).Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	all := strings.Join(names, "")
	ends := make([]uint32, len(names))
	end := 0
	for i, name := range names {
		names[i] = all[end : end+len(name)]
		end += len(name)
		ends[i] = uint32(end)
	}
	times := medians(31,
		func() { sink += c.findAll(all, ends) },
		func() {
			for _, name := range names {
				tensor, err := model.Tensor(name)
				if err != nil {
					log.Fatal(err)
				}
				sink += tensor.Size
			}
		},
		func() {
			for range names {
				sink += cross(1)
			}
		})
	each := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / float64(len(names)) }
	fmt.Printf("one lookup among them:          C %.0f ns, Go %.0f ns (%+.0f; a call to C and back: %.0f)\n",
		each(times[0]), each(times[1]), each(times[1]-times[0]), each(times[2]))
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
