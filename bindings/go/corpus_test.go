// SPDX-License-Identifier: Apache-2.0

package safetensors_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	safetensors "github.com/libsafetensors/libsafetensors/bindings/go"
	"github.com/libsafetensors/libsafetensors/bindings/go/internal/cst"
)

// The conformance table: tests/corpus/README.md describes it.

const corpus = "../../tests/corpus"

type corpusCase struct {
	name, path, status string
	options            safetensors.OpenOptions
	hasOptions         bool
	tensors            []string // lines of contents.tsv, sorted
	metadata           map[string]string
}

func (c *corpusCase) isSingle() bool { return strings.HasPrefix(c.path, corpus+"/files/") }

func readCorpus(t *testing.T) []*corpusCase {
	t.Helper()
	var cases []*corpusCase
	byName := map[string]*corpusCase{}
	for _, cells := range readTable(t, "corpus.tsv") {
		c := &corpusCase{name: cells[0], path: corpus + "/" + cells[1], status: cells[3]}
		c.options, c.hasOptions = parseOptions(t, cells[2])
		if cells[5] != "-" {
			c.metadata = map[string]string{}
		}
		cases = append(cases, c)
		byName[c.name] = c
	}
	for _, cells := range readTable(t, "contents.tsv") {
		c := byName[cells[0]]
		if cells[1] == "tensor" {
			c.tensors = append(c.tensors, strings.Join(cells[2:], "\t"))
		} else {
			c.metadata[decode(t, cells[2])] = decode(t, cells[3])
		}
	}
	for _, c := range cases {
		slices.Sort(c.tensors)
	}
	if len(cases) < 400 {
		t.Fatalf("only %d cases", len(cases))
	}
	return cases
}

func readTable(t *testing.T, name string) [][]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(corpus, name))
	if err != nil {
		t.Fatal(err)
	}
	var rows [][]string
	for _, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
		if !strings.HasPrefix(line, "#") {
			rows = append(rows, strings.Split(line, "\t"))
		}
	}
	return rows
}

func parseOptions(t *testing.T, text string) (options safetensors.OpenOptions, some bool) {
	for _, option := range strings.Split(text, ",") {
		name, value, _ := strings.Cut(option, "=")
		number, _ := strconv.ParseUint(value, 10, 64)
		switch name {
		case "-":
			return options, false
		case "trailing_bytes":
			options.TolerateTrailingBytes = true
		case "unknown_dtype":
			options.TolerateUnknownDType = true
		case "max_header_size":
			options.MaxHeaderSize = number
		case "max_tensors":
			options.MaxTensors = number
		case "max_name_length":
			options.MaxNameLength = number
		case "max_set_bytes":
			options.MaxSetBytes = number
		case "variant":
			options.Variant = value
		default:
			t.Fatalf("no such option: %s", option)
		}
	}
	return options, true
}

// decode reads percent-encoded text; "-" is none.
func decode(t *testing.T, text string) string {
	if text == "-" {
		return ""
	}
	var out []byte
	for i := 0; i < len(text); i++ {
		if text[i] != '%' {
			out = append(out, text[i])
			continue
		}
		b, err := hex.DecodeString(text[i+1 : i+3])
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b...)
		i += 2
	}
	return string(out)
}

// encode is the other way.
func encode(text string) string {
	if text == "" {
		return "-"
	}
	var out strings.Builder
	for _, b := range []byte(text) {
		switch {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9', b == '.', b == '_':
			out.WriteByte(b)
		default:
			fmt.Fprintf(&out, "%%%02X", b)
		}
	}
	return out.String()
}

// line spells a tensor as contents.tsv does, from its bytes.
func line(tensor *safetensors.Tensor, data []byte) string {
	shape := "-"
	if len(tensor.Shape) > 0 {
		shape = strings.ReplaceAll(strings.Trim(fmt.Sprint(tensor.Shape), "[]"), " ", "x")
	}
	hash := fnv.New64a()
	hash.Write(data)
	return fmt.Sprintf("%s\t%s\t%s\t%d\t%d\t%d\t%016x", encode(tensor.Name), encode(tensor.DTypeName()),
		shape, tensor.Shard, tensor.Offset, len(data), hash.Sum64())
}

// check compares what a way to open gave with the table.
func (c *corpusCase) check(t *testing.T, model *safetensors.Checkpoint, err error) {
	t.Helper()
	if c.status != "ST_OK" {
		var failure *safetensors.Error
		if model != nil || !errors.As(err, &failure) || cst.StatusName(int32(failure.Code)) != c.status {
			t.Errorf("wanted %s, found %v", c.status, err)
		} else if !errors.Is(err, failure.Code) || failure.Message == "" {
			t.Errorf("an error without a code or message: %#v", failure)
		}
		return
	}
	if err != nil {
		t.Errorf("wanted no error, found %v", err)
		return
	}
	defer model.Close()
	lines := []string{}
	for i, tensor := range model.Tensors() {
		found, err := model.Tensor(tensor.Name)
		if err != nil || found != tensor {
			t.Errorf("%q is not found as itself: %v", tensor.Name, err)
		}
		data, err := tensor.Bytes()
		if err != nil || uint64(len(data)) != tensor.Size {
			t.Errorf("Bytes of %q: %d of %d, %v", tensor.Name, len(data), tensor.Size, err)
		}
		read := make([]byte, tensor.Size)
		if err := tensor.ReadInto(read); err != nil || !bytes.Equal(read, data) {
			t.Errorf("ReadInto of %q differs from Bytes, or %v", tensor.Name, err)
		}
		if before := model.Tensors()[max(i-1, 0)]; before.Shard > tensor.Shard ||
			before.Shard == tensor.Shard && before.Offset > tensor.Offset {
			t.Errorf("%q is out of order", tensor.Name)
		}
		if tensor.DType != safetensors.UnknownDType && tensor.DType.String() != tensor.DTypeName() {
			t.Errorf("%q has the dtype %v and is spelled %q", tensor.Name, tensor.DType, tensor.DTypeName())
		}
		lines = append(lines, line(tensor, data))
	}
	slices.Sort(lines)
	if !slices.Equal(lines, c.tensors) {
		t.Errorf("wanted %q, found %q", c.tensors, lines)
	}
	metadata := model.Metadata()
	if !maps.Equal(metadata, c.metadata) || (metadata == nil) != (c.metadata == nil) {
		t.Errorf("wanted metadata %q, found %q", c.metadata, metadata)
	}
}

func TestCorpus(t *testing.T) {
	for _, c := range readCorpus(t) {
		t.Run(c.name, func(t *testing.T) {
			for _, access := range []safetensors.Access{safetensors.AccessAuto, safetensors.AccessMap, safetensors.AccessRead} {
				options := c.options
				options.Access = access
				model, err := safetensors.OpenWith(c.path, &options)
				c.check(t, model, err)
			}
			if !c.hasOptions {
				model, err := safetensors.Open(c.path)
				c.check(t, model, err)
			}
			if info, err := os.Stat(c.path); err == nil && !info.IsDir() {
				folder, file := filepath.Split(c.path)
				model, err := safetensors.OpenFS(os.DirFS(folder), file, &c.options)
				c.check(t, model, err)
			}
			if !c.isSingle() {
				return
			}
			file, err := os.ReadFile(c.path)
			if err != nil {
				t.Fatal(err)
			}
			model, err := safetensors.OpenMemory(file, &c.options)
			c.check(t, model, err)
			for _, most := range []int{0, 7} {
				model, err := safetensors.OpenReaderAt(shortReader{file, most}, int64(len(file)), &c.options)
				c.check(t, model, err)
			}
		})
	}
}

// shortReader reads at most that many bytes at a time; 0: any number.
type shortReader struct {
	data []byte
	most int
}

func (r shortReader) ReadAt(p []byte, offset int64) (int, error) {
	if r.most > 0 && len(p) > r.most {
		n := copy(p[:r.most], r.data[offset:])
		return n, io.EOF
	}
	return bytes.NewReader(r.data).ReadAt(p, offset)
}
