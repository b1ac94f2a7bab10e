// SPDX-License-Identifier: Apache-2.0

// Vad finds speech in a recording, with the Silero VAD network.
//
//	vad MODEL.safetensors INPUT.wav [--probabilities]
//
// A whole inference program, to show what using the library comes to: open the
// checkpoint, ask for each tensor by name and type, check its shape, and compute
// on the weights where they lie in the mapped file. The network is in
// network.go, what it is told about is in sound.go and picture.go.
package main

import (
	"fmt"
	"log"
	"os"
	"time"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("vad: ")
	list := len(os.Args) == 4 && os.Args[3] == "--probabilities"
	if len(os.Args) != 3 && !list {
		fmt.Fprintln(os.Stderr, "usage: vad MODEL.safetensors INPUT.wav [--probabilities]")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], list); err != nil {
		log.Fatal(err)
	}
}

func run(model, input string, list bool) error {
	samples, err := readWAV(input)
	if err != nil {
		return err
	}
	net, err := openNetwork(model)
	if err != nil {
		return err
	}
	defer net.Close()

	began := time.Now()
	probabilities := net.probabilities(samples)
	took := time.Since(began)

	if list {
		for i, p := range probabilities {
			fmt.Printf("%d %.3f %.9g\n", i, float64(i*window)/sampleRate, p)
		}
		return nil
	}
	segments := findSegments(probabilities, len(samples))
	draw(probabilities, segments)
	length := float64(len(samples)) / sampleRate
	plural := "s"
	if len(segments) == 1 {
		plural = ""
	}
	fmt.Printf("\n%d segment%s of speech in %.2f s of sound\n", len(segments), plural, length)
	for _, s := range segments {
		fmt.Printf("%8.2f s to %.2f s\n", float64(s.start)/sampleRate, float64(s.end)/sampleRate)
	}
	fmt.Printf("%d windows in %.1f ms, %.0f x real time\n",
		len(probabilities), took.Seconds()*1e3, length/max(took.Seconds(), 1e-9))
	return nil
}
