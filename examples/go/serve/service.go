// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"strconv"
	"strings"
	"sync"

	safetensors "github.com/libsafetensors/libsafetensors/bindings/go"
)

// A service is a checkpoint that can be replaced while it is served.
type service struct {
	path  string
	mutex sync.Mutex
	model *safetensors.Checkpoint
}

func newService(path string) (*service, error) {
	model, err := safetensors.Open(path)
	if err != nil {
		return nil, err
	}
	return &service{path: path, model: model}, nil
}

// Close gives up the checkpoint; requests under way keep theirs.
func (s *service) Close() error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.model.Close()
}

func (s *service) reload() error {
	model, err := safetensors.Open(s.path)
	if err != nil {
		return err
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	old := s.model
	s.model = model
	return old.Close()
}

// current returns an owner of the checkpoint for the time of one request.
func (s *service) current() (*safetensors.Checkpoint, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.model.Retain()
}

func (s *service) handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, answer := range map[string]func(*safetensors.Checkpoint, http.ResponseWriter, *http.Request) error{
		"GET /{$}":     summary,
		"GET /tensors": list,
		"GET /data":    data,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			model, err := s.current()
			if err == nil {
				defer model.Close()
				err = answer(model, w, r)
			}
			if err != nil {
				http.Error(w, err.Error(), statusOf(err))
			}
		})
	}
	return mux
}

// statusOf is what an error is to a client.
func statusOf(err error) int {
	switch {
	case errors.Is(err, safetensors.ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, safetensors.ErrClosed):
		return http.StatusServiceUnavailable
	case errors.Is(err, errRequest), errors.Is(err, safetensors.ErrInvalidArgument),
		errors.Is(err, safetensors.ErrUnsupported), errors.Is(err, safetensors.ErrSubByte),
		errors.Is(err, safetensors.ErrDType):
		return http.StatusBadRequest
	}
	return http.StatusInternalServerError
}

var errRequest = errors.New("bad request")

// summary answers what is in the checkpoint.
func summary(model *safetensors.Checkpoint, w http.ResponseWriter, _ *http.Request) error {
	type total struct {
		Tensors int    `json:"tensors"`
		Bytes   uint64 `json:"bytes"`
	}
	type file struct {
		Path   string `json:"path"`
		Size   uint64 `json:"size"`
		Access string `json:"access"`
		Reason string `json:"reason"`
	}
	answer := struct {
		Files    []file            `json:"files"`
		Metadata map[string]string `json:"metadata"`
		DTypes   map[string]total  `json:"dtypes"`
	}{Metadata: model.Metadata(), DTypes: map[string]total{}}
	for _, shard := range model.Shards() {
		answer.Files = append(answer.Files, file{shard.Path, shard.Size, shard.Access.String(), shard.Reason})
	}
	for _, tensor := range model.Tensors() {
		sum := answer.DTypes[tensor.DTypeName()]
		answer.DTypes[tensor.DTypeName()] = total{sum.Tensors + 1, sum.Bytes + tensor.Size}
	}
	return reply(w, answer)
}

// list answers which tensors there are.
func list(model *safetensors.Checkpoint, w http.ResponseWriter, r *http.Request) error {
	type entry struct {
		Name  string            `json:"name"`
		DType safetensors.DType `json:"dtype"`
		Shape []int64           `json:"shape"`
		Size  uint64            `json:"size"`
		Shard int               `json:"shard"`
	}
	entries := []entry{}
	for _, tensor := range model.Tensors() {
		if strings.HasPrefix(tensor.Name, r.FormValue("prefix")) {
			shape := append([]int64{}, tensor.Shape...)
			entries = append(entries, entry{tensor.Name, tensor.DType, shape, tensor.Size, tensor.Shard})
		}
	}
	return reply(w, entries)
}

func reply(w http.ResponseWriter, answer any) error {
	text, err := json.MarshalIndent(answer, "", "  ")
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(append(text, '\n'))
	return nil
}

// data streams one tensor, while the library reads on. Nothing of it is kept:
// a tensor larger than memory passes through all the same.
func data(model *safetensors.Checkpoint, w http.ResponseWriter, r *http.Request) error {
	tensor, err := model.Tensor(r.FormValue("name"))
	if err != nil {
		return err
	}
	item := safetensors.LoadItem{Tensor: tensor}
	dtype := tensor.DType
	if name := r.FormValue("dtype"); name != "" {
		if dtype, err = safetensors.ParseDType(name); err != nil {
			return err
		}
		item.DType = dtype
	}
	if item.Ranges, err = parseRanges(r.FormValue("slice")); err != nil {
		return err
	}
	shape, _, err := tensor.SliceShape(item.Ranges...)
	if err != nil {
		return err
	}
	// What can't be loaded is refused here, while there can be an answer.
	plan, err := model.LoadPlan([]safetensors.LoadItem{item}, nil)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatUint(plan.Bytes, 10))
	w.Header().Set("Safetensors-Dtype", dtype.String())
	w.Header().Set("Safetensors-Shape", strings.Trim(fmt.Sprint(shape), "[]"))
	if r.Method == http.MethodHead {
		return nil
	}
	// A client that goes away ends r.Context(), and that ends the reading.
	err = model.Stream(r.Context(), []safetensors.LoadItem{item}, nil, func(chunk safetensors.Chunk) error {
		_, err := w.Write(chunk.Data)
		return err
	})
	if err != nil {
		if r.Context().Err() == nil {
			log.Print(err)
		}
		panic(http.ErrAbortHandler) // the client must not take it for the whole
	}
	return nil
}

// parseRanges reads slices as Python spells them: 0:8,:,-1:,::2,5
func parseRanges(text string) ([]safetensors.Range, error) {
	if text == "" {
		return nil, nil
	}
	var ranges []safetensors.Range
	for _, part := range strings.Split(text, ",") {
		numbers := strings.Split(part, ":")
		if len(numbers) > 3 {
			return nil, fmt.Errorf("%w: %q is not a slice", errRequest, part)
		}
		all := safetensors.All()
		for i, to := range []*int64{&all.Start, &all.Stop, &all.Step}[:len(numbers)] {
			if numbers[i] == "" && len(numbers) > 1 {
				continue
			}
			number, err := strconv.ParseInt(numbers[i], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("%w: %q is not a slice", errRequest, part)
			}
			*to = number
		}
		if len(numbers) == 1 {
			if all.Stop = all.Start + 1; all.Stop == 0 { // -1: the last one
				all.Stop = safetensors.End
			}
		}
		ranges = append(ranges, all)
	}
	return ranges, nil
}
