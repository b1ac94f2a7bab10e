// SPDX-License-Identifier: Apache-2.0

package safetensors_test

import (
	"errors"
	"runtime"
	"strings"
	"testing"

	safetensors "github.com/libsafetensors/libsafetensors/bindings/go"
)

func TestValidate(t *testing.T) {
	header := `{"a":{"dtype":"F128","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,8]}}`
	path := writeFile(t, fileOf(header, make([]byte, 9)))
	var found []safetensors.Problem
	err := safetensors.Validate(path, nil, func(p safetensors.Problem) bool { found = append(found, p); return true })
	wants(t, err, safetensors.ErrDType)
	codes := map[safetensors.Status]string{}
	for _, p := range found {
		codes[p.Code] = p.Tensor
		if !p.Fatal || p.File != path || p.Text == "" || p.FatalTolerant != (p.Code == safetensors.ErrSizeMismatch) {
			t.Errorf("found %+v", p)
		}
	}
	if len(found) != 3 || codes[safetensors.ErrDType] != "a" || codes[safetensors.ErrSizeMismatch] != "b" {
		t.Errorf("found %+v", found)
	}

	calls := 0
	stop := func(safetensors.Problem) bool { calls++; return false }
	if wants(t, safetensors.Validate(path, nil, stop), safetensors.ErrCancelled); calls != 1 {
		t.Errorf("told %d times", calls)
	}
	if value := panicOf(func() {
		safetensors.Validate(path, nil, func(safetensors.Problem) bool { panic("report") })
	}); value != "report" {
		t.Errorf("panicked with %v", value)
	}
	ended := newSignal()
	go func() {
		defer close(ended)
		safetensors.Validate(path, nil, func(safetensors.Problem) bool { runtime.Goexit(); return true })
		t.Error("Goexit came back")
	}()
	<-ended
	wants(t, safetensors.Validate(path, nil, nil), safetensors.ErrInvalidArgument)
	wants(t, safetensors.Validate("a\x00b", nil, stop), safetensors.ErrInvalidArgument)
}

// What Validate returns is what opening says, and it has told why.
func TestValidateAgreesWithTheCorpus(t *testing.T) {
	for _, c := range readCorpus(t) {
		fatal := 0
		err := safetensors.Validate(c.path, &c.options, func(p safetensors.Problem) bool {
			if !strings.HasPrefix(p.Code.String(), "Err") || p.Text == "" {
				t.Errorf("%s: found %+v", c.name, p)
			}
			fatal++
			return true
		})
		model, opening := safetensors.OpenWith(c.path, &c.options)
		model.Close()
		var found, want safetensors.Status
		errors.As(err, &found)
		errors.As(opening, &want)
		if found != want || err != nil && fatal == 0 {
			t.Errorf("%s: validated with %v, opened with %v", c.name, err, opening)
		}
	}
}
