// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	safetensors "github.com/libsafetensors/libsafetensors/bindings/go"
)

// serve serves a checkpoint with a small tensor, and one too large for what a
// connection buffers.
func serve(t *testing.T) (*service, *httptest.Server) {
	t.Helper()
	const large = 64 << 20
	path := filepath.Join(t.TempDir(), "model.safetensors")
	tensors := []*safetensors.Tensor{
		{Name: "m/..//?", DType: safetensors.F32, Shape: []int64{2, 2}, Data: safetensors.BytesOf([]float32{1, 2, 3, 4})},
		{Name: "large", DType: safetensors.U8, Shape: []int64{large}, Data: bytes.Repeat([]byte("0123456789abcdef"), large/16)},
	}
	options := &safetensors.SaveOptions{Metadata: map[string]string{"format": "pt"}, Sync: safetensors.SyncNone}
	if err := safetensors.Save(context.Background(), path, tensors, options); err != nil {
		t.Fatal(err)
	}
	s, err := newService(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	server := httptest.NewServer(s.handler())
	t.Cleanup(server.Close)
	return s, server
}

func get(t *testing.T, url string) (*http.Response, []byte) {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, body
}

func TestWhatIsInIt(t *testing.T) {
	_, server := serve(t)
	_, body := get(t, server.URL+"/")
	var summary struct {
		Metadata map[string]string
		DTypes   map[string]struct{ Tensors, Bytes int }
	}
	if err := json.Unmarshal(body, &summary); err != nil || summary.Metadata["format"] != "pt" || summary.DTypes["F32"].Bytes != 16 {
		t.Errorf("found %s, %v", body, err)
	}
	_, body = get(t, server.URL+"/tensors?prefix=m/")
	var list []struct {
		Name  string
		DType safetensors.DType
		Shape []int64
	}
	if err := json.Unmarshal(body, &list); err != nil || len(list) != 1 || list[0].Name != "m/..//?" || list[0].DType != safetensors.F32 {
		t.Errorf("found %s, %v", body, err)
	}
}

func TestData(t *testing.T) {
	s, server := serve(t)
	name := server.URL + "/data?name=m/..//%3F"
	for _, c := range []struct {
		query string
		want  any
	}{
		{"", []float32{1, 2, 3, 4}},
		{"&slice=-1,:1", []float32{3}},
		{"&slice=:,1", []float32{2, 4}},
		{"&slice=::2&dtype=BF16", []safetensors.BFloat16{0x3F80, 0x4000}},
	} {
		var want []byte
		switch values := c.want.(type) {
		case []float32:
			want = safetensors.BytesOf(values)
		case []safetensors.BFloat16:
			want = safetensors.BytesOf(values)
		}
		response, body := get(t, name+c.query)
		if !bytes.Equal(body, want) || response.ContentLength != int64(len(want)) {
			t.Errorf("%q: wanted %x, found %x", c.query, want, body)
		}
	}
	for query, want := range map[string]int{
		"&slice=9": 400, "&slice=a": 400, "&slice=1:2:3:4": 400, "&slice=:,:,:": 400, "&dtype=I8": 400, "&dtype=X": 400,
	} {
		if response, body := get(t, name+query); response.StatusCode != want {
			t.Errorf("%q: %d, %s", query, response.StatusCode, body)
		}
	}
	if response, _ := get(t, server.URL+"/data?name=nothing"); response.StatusCode != 404 {
		t.Errorf("status %d for what is not there", response.StatusCode)
	}
	if err := s.reload(); err != nil {
		t.Fatal(err)
	}
	if _, body := get(t, server.URL+"/data?name=large"); len(body) != 64<<20 || !strings.HasPrefix(string(body[32<<20:]), "0123456789abcdef") {
		t.Errorf("%d bytes", len(body))
	}
}

func TestAClientThatGoesAwayEndsItsStream(t *testing.T) {
	s, _ := serve(t)
	ended := make(chan any, 1)
	handler := s.handler()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			value := recover()
			ended <- value
			panic(http.ErrAbortHandler)
		}()
		handler.ServeHTTP(w, r)
	}))
	defer server.Close()
	ctx, cancel := context.WithCancel(context.Background())
	request, _ := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/data?name=large", nil)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, response.Body, 1<<16); err != nil {
		t.Fatal(err)
	}
	s.Close() // the stream has an owner of its own
	if _, err := io.CopyN(io.Discard, response.Body, 1<<16); err != nil {
		t.Fatal(err)
	}
	cancel()
	response.Body.Close()
	if value := <-ended; value != http.ErrAbortHandler {
		t.Errorf("the stream ended with %v", value)
	}
}
