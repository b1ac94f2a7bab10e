// SPDX-License-Identifier: Apache-2.0

package safetensors

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	modelFile   = "model.safetensors"
	indexSuffix = ".safetensors.index.json"
)

// A member is one file of a series: its stem, its number, and of how many.
var member = regexp.MustCompile(`^(.*)-(\d+)-of-(\d+)\.safetensors$`)

// openFolder opens what a folder of a file system holds, as [OpenWith] does on
// a disk. Variants ("model.fp16.safetensors") are to be opened by their names.
func openFolder(fsys fs.FS, folder string, open func(string) (Source, error), options *OpenOptions) (*Checkpoint, error) {
	if options != nil && options.Variant != "" {
		return nil, invalid("OpenFS knows no variants of a folder: give the name of the file or index of %+q", options.Variant)
	}
	entries, err := fs.ReadDir(fsys, folder)
	if err != nil {
		return nil, &Error{Code: ErrIO, Message: err.Error(), causes: []error{err}}
	}
	var indexes, files []string
	for _, entry := range entries {
		switch name := entry.Name(); {
		case strings.HasPrefix(name, ".") || entry.IsDir():
		case strings.HasSuffix(name, indexSuffix):
			indexes = append(indexes, name)
		case strings.HasSuffix(name, ".safetensors"):
			files = append(files, name)
		}
	}
	at := func(name string) (*Checkpoint, error) { return OpenResolved(open, path.Join(folder, name), options) }
	switch {
	case slices.Contains(indexes, modelFile+".index.json"):
		return at(modelFile + ".index.json")
	case len(indexes) == 1:
		return at(indexes[0])
	case len(indexes) > 1:
		return nil, ambiguous(folder, "indexes", indexes)
	case len(files) == 0:
		err := &fs.PathError{Op: "open", Path: path.Join(folder, modelFile), Err: fs.ErrNotExist}
		return nil, &Error{Code: ErrIO, Message: fmt.Sprintf("the folder %+q has no *.safetensors", folder), causes: []error{err}}
	case len(files) == 1 && !member.MatchString(files[0]):
		return at(files[0])
	case slices.Contains(files, modelFile):
		return at(modelFile)
	}
	series, err := onlySeries(folder, files)
	if err != nil {
		return nil, err
	}
	return openSeries(folder, series, open, options)
}

func ambiguous(folder, what string, names []string) error {
	text := fmt.Sprintf("the folder %+q has %d %s, of which none is the model's: %+q", folder, len(names), what, names)
	return &Error{Code: ErrIndex, Message: text}
}

// onlySeries returns the files of a folder's one complete series, in order.
func onlySeries(folder string, files []string) ([]string, error) {
	found := map[string][]string{} // by stem and total
	for _, file := range files {
		if parts := member.FindStringSubmatch(file); parts != nil {
			key := parts[1] + "-of-" + parts[3]
			found[key] = append(found[key], file)
		}
	}
	if len(found) != 1 {
		return nil, ambiguous(folder, "models", files)
	}
	var series []string
	for _, series = range found {
	}
	slices.Sort(series)
	parts := member.FindStringSubmatch(series[0])
	if total, err := strconv.Atoi(parts[3]); err != nil || total != len(series) {
		text := fmt.Sprintf("the folder %+q has %d of the %s files of %+q", folder, len(series), parts[3], parts[1])
		return nil, &Error{Code: ErrShard, Message: text}
	}
	return series, nil
}

// openSeries opens shards that have no index through one made of their headers.
func openSeries(folder string, series []string, open func(string) (Source, error), options *OpenOptions) (*Checkpoint, error) {
	shards := map[string]string{}
	for _, file := range series {
		if err := addTensors(shards, folder, file, open, options); err != nil {
			return nil, err
		}
	}
	text, err := json.Marshal(map[string]map[string]string{"weight_map": shards})
	if err != nil {
		return nil, err
	}
	name := path.Join(folder, modelFile+".index.json")
	return OpenResolved(func(wanted string) (Source, error) {
		if wanted == name {
			return Source{ReaderAt: inMemory(text), Size: int64(len(text))}, nil
		}
		return open(wanted)
	}, name, options)
}

// addTensors notes which tensors a file has.
func addTensors(shards map[string]string, folder, file string, open func(string) (Source, error), options *OpenOptions) (err error) {
	one, err := OpenResolved(open, path.Join(folder, file), options)
	if err != nil {
		return err
	}
	defer func() {
		if closing := one.Close(); err == nil {
			err = closing
		}
	}()
	for _, tensor := range one.Tensors() {
		if other, ok := shards[tensor.Name]; ok {
			return &Error{Code: ErrDuplicateKey, Message: fmt.Sprintf("the tensor %+q is in %+q and in %+q", tensor.Name, other, file)}
		}
		shards[tensor.Name] = file
	}
	return nil
}
