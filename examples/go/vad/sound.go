// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// readWAV reads a RIFF WAVE file: chunks of a four letter name, a size and that
// many bytes, padded to an even number. A size is never believed: memory grows
// with what has been read.
func readWAV(path string) ([]float32, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	samples, err := decodeWAV(bufio.NewReader(file))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return samples, nil
}

func decodeWAV(r io.Reader) ([]float32, error) {
	var head [16]byte
	if _, err := io.ReadFull(r, head[:12]); err != nil || string(head[:4]) != "RIFF" || string(head[8:12]) != "WAVE" {
		return nil, errors.New("not a RIFF WAVE file")
	}
	for formatSeen := false; ; {
		if _, err := io.ReadFull(r, head[:8]); err != nil {
			return nil, errors.New("it has no data chunk")
		}
		name, size := string(head[:4]), int64(binary.LittleEndian.Uint32(head[4:]))
		size += size % 2
		switch {
		case name == "data" && !formatSeen:
			return nil, errors.New("its data chunk comes before its fmt chunk")
		case name == "data":
			return decodeSamples(r, size)
		case name == "fmt ":
			if _, err := io.ReadFull(r, head[:16]); size < 16 || err != nil {
				return nil, errors.New("its fmt chunk is too short")
			}
			little := binary.LittleEndian
			if little.Uint16(head[0:]) != 1 || little.Uint16(head[2:]) != 1 ||
				little.Uint32(head[4:]) != sampleRate || little.Uint16(head[14:]) != 16 {
				return nil, errors.New("not 16 kHz mono 16-bit PCM (sox IN -r 16000 -c 1 -b 16 OUT.wav makes that)")
			}
			formatSeen = true
			size -= 16
		}
		if _, err := io.CopyN(io.Discard, r, size); err != nil {
			return nil, errShort
		}
	}
}

var errShort = errors.New("cut short: it ends inside a chunk")

func decodeSamples(r io.Reader, size int64) ([]float32, error) {
	data, err := io.ReadAll(io.LimitReader(r, size))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) != size {
		return nil, errShort
	}
	samples := make([]float32, len(data)/2)
	for i := range samples {
		samples[i] = float32(int16(binary.LittleEndian.Uint16(data[2*i:]))) / 32768
	}
	return samples, nil
}

// A segment of speech, in samples.
type segment struct{ start, end int }

// findSegments makes segments of probabilities, as get_speech_timestamps() of
// the silero-vad package does with its defaults: speech begins at 0.5 and ends
// where it stays below 0.35 for 100 ms; what is not longer than 250 ms is
// dropped; the rest grows by 30 ms at both ends.
func findSegments(probabilities []float32, samples int) []segment {
	const minSilence, minSpeech, pad = sampleRate / 10, sampleRate / 4, sampleRate * 3 / 100
	var found []segment
	speaking, fading := false, false
	var start, end int
	for i, p := range probabilities {
		now := i * window
		switch {
		case p >= 0.5:
			if !speaking {
				start = now
			}
			speaking, fading = true, false
		case speaking && p < 0.35:
			if !fading {
				end = now
			}
			fading = true
			if now-end >= minSilence {
				if end-start > minSpeech {
					found = append(found, segment{start, end})
				}
				speaking, fading = false, false
			}
		}
	}
	if speaking && samples-start > minSpeech {
		found = append(found, segment{start, samples})
	}
	for i := range found { // segments are over 60 ms apart: these can't meet
		found[i].start = max(found[i].start-pad, 0)
		found[i].end = min(found[i].end+pad, samples)
	}
	return found
}
