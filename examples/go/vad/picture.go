// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
)

const graphWidth, graphRows = 72, 7

var bars = []rune(" ▁▂▃▄▅▆▇█")

// eighths says how much of a cell to fill. A NaN (weights may hold one) gives 0.
func eighths(value float32) int {
	if value > 0 {
		return int(min(value, 8))
	}
	return 0
}

// draw prints the probabilities over time, and the segments below.
func draw(probabilities []float32, segments []segment) {
	windows := len(probabilities)
	width := min(windows, graphWidth)
	if width == 0 {
		return
	}
	level := make([]float32, width) // mean probability in each column
	for column := range level {
		from, to := column*windows/width, (column+1)*windows/width
		for _, p := range probabilities[from:to] {
			level[column] += p / float32(to-from)
		}
	}
	for row := graphRows - 1; row >= 0; row-- {
		threshold := row == graphRows/2 // 0.5 is the middle of this row
		switch {
		case row == graphRows-1:
			fmt.Print("   1.0 ┤")
		case threshold:
			fmt.Print("   0.5 ┤")
		default:
			fmt.Print("       │")
		}
		for _, l := range level {
			bar := bars[eighths(8*(graphRows*l-float32(row))+0.5)]
			if bar == ' ' && threshold {
				bar = '╌'
			}
			fmt.Print(string(bar))
		}
		fmt.Println()
	}

	columnsPerSecond := float64(width) / float64(windows) * sampleRate / window
	step, next := 1, 0 // seconds between marks, the next mark
	for float64(step)*columnsPerSecond < 8 {
		step *= 2
	}
	var axis, labels strings.Builder
	for column := 0; column < width; column++ {
		if int(float64(next)*columnsPerSecond+0.5) != column {
			axis.WriteRune('─')
			continue
		}
		axis.WriteRune('┬')
		fmt.Fprintf(&labels, "%*s%d s", column-labels.Len(), "", next)
		next += step
	}
	text := labels.String()
	fmt.Printf("   0.0 ┼%s\n        %s\nspeech  ", axis.String(), text[:min(len(text), graphWidth)])
	for column, i := 0, 0; column < width; column++ {
		time := (2*column + 1) * windows / width * window / 2 // its middle
		for i < len(segments) && segments[i].end <= time {
			i++
		}
		if i < len(segments) && segments[i].start <= time {
			fmt.Print("━")
		} else {
			fmt.Print(" ")
		}
	}
	fmt.Println()
}
