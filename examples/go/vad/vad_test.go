// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"slices"
	"testing"
)

// The reference was computed without the library, by data/vad_reference.py.
func TestProbabilitiesAndSegments(t *testing.T) {
	const data = "../../data/"
	samples, err := readWAV(data + "speech.wav")
	if err != nil {
		t.Fatal(err)
	}
	net, err := openNetwork(data + "silero_vad_16k.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer net.Close()
	reference, err := os.Open(data + "vad_reference.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer reference.Close()
	found := net.probabilities(samples)
	lines := 0
	for scanner := bufio.NewScanner(reference); scanner.Scan(); lines++ {
		var index int
		var start, want float64
		if _, err := fmt.Sscan(scanner.Text(), &index, &start, &want); err != nil || index != lines {
			t.Fatalf("line %d: %v", lines, err)
		}
		if math.Abs(float64(found[index])-want) > 1e-5 {
			t.Errorf("window %d: wanted %v, found %v", index, want, found[index])
		}
	}
	if lines != len(found) {
		t.Errorf("%d windows, %d in the reference", len(found), lines)
	}
	if want := []segment{{11296, 58848}, {75808, 117216}}; !slices.Equal(findSegments(found, len(samples)), want) {
		t.Errorf("wanted %v, found %v", want, findSegments(found, len(samples)))
	}
}
