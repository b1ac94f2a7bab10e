// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"math"
	"slices"

	safetensors "github.com/libsafetensors/libsafetensors/bindings/go"
)

const (
	sampleRate = 16000
	window     = 512
	context    = 64 // samples of the window before
	hidden     = 128
	fft        = 256
	hop        = 128
	bins       = 129
	frames     = 4
)

type layer struct{ weight, bias []float32 }

// A network is the weights, where they lie, and the state between windows.
type network struct {
	checkpoint       *safetensors.Checkpoint // owns the weights
	stft             []float32
	conv             [4]layer
	input, recurrent layer
	output           layer
	context          [context]float32
	h, c             [hidden]float32 // the LSTM's state
}

// openNetwork opens a checkpoint and finds the weights in it. The format
// doesn't promise that a tensor begins at a multiple of its element size. Where
// one doesn't, we can't compute on the mapping, and let the library read
// instead: into memory that is aligned.
func openNetwork(path string) (*network, error) {
	net, err := openNetworkBy(path, safetensors.AccessAuto)
	if errors.Is(err, safetensors.ErrUnaligned) {
		net, err = openNetworkBy(path, safetensors.AccessRead)
	}
	return net, err
}

func openNetworkBy(path string, access safetensors.Access) (*network, error) {
	checkpoint, err := safetensors.OpenWith(path, &safetensors.OpenOptions{Access: access})
	if err != nil {
		return nil, err
	}
	net := &network{checkpoint: checkpoint}
	for _, weight := range []struct {
		to    *[]float32
		name  string
		shape []int64
	}{
		{&net.stft, "stft_conv.weight", []int64{2 * bins, 1, fft}},
		{&net.conv[0].weight, "conv1.weight", []int64{128, bins, 3}},
		{&net.conv[0].bias, "conv1.bias", []int64{128}},
		{&net.conv[1].weight, "conv2.weight", []int64{64, 128, 3}},
		{&net.conv[1].bias, "conv2.bias", []int64{64}},
		{&net.conv[2].weight, "conv3.weight", []int64{64, 64, 3}},
		{&net.conv[2].bias, "conv3.bias", []int64{64}},
		{&net.conv[3].weight, "conv4.weight", []int64{hidden, 64, 3}},
		{&net.conv[3].bias, "conv4.bias", []int64{hidden}},
		{&net.input.weight, "lstm_cell.weight_ih", []int64{4 * hidden, hidden}},
		{&net.input.bias, "lstm_cell.bias_ih", []int64{4 * hidden}},
		{&net.recurrent.weight, "lstm_cell.weight_hh", []int64{4 * hidden, hidden}},
		{&net.recurrent.bias, "lstm_cell.bias_hh", []int64{4 * hidden}},
		{&net.output.weight, "final_conv.weight", []int64{1, hidden, 1}},
		{&net.output.bias, "final_conv.bias", []int64{1}},
	} {
		if *weight.to, err = fetch(checkpoint, weight.name, weight.shape); err != nil {
			checkpoint.Close()
			return nil, err
		}
	}
	return net, nil
}

// fetch finds one tensor. A file is somebody's input: dtype and shape are
// checked before the values are used.
func fetch(checkpoint *safetensors.Checkpoint, name string, shape []int64) ([]float32, error) {
	tensor, err := checkpoint.Tensor(name)
	if err != nil {
		return nil, err
	}
	if !slices.Equal(tensor.Shape, shape) {
		return nil, fmt.Errorf("%s: expected the shape %v, the file has %v", name, shape, tensor.Shape)
	}
	return tensor.Float32s()
}

// Close ends the weights with the checkpoint.
func (net *network) Close() error { return net.checkpoint.Close() }

// probabilities returns what the network says about each window of a recording.
func (net *network) probabilities(samples []float32) []float32 {
	probabilities := make([]float32, 0, len(samples)/window+1)
	for at := 0; at < len(samples); at += window {
		var next [window]float32 // zeros follow the last sample
		copy(next[:], samples[at:])
		probabilities = append(probabilities, net.step(&next))
	}
	return probabilities
}

// step returns the probability that the next 32 ms are speech.
func (net *network) step(next *[window]float32) float32 {
	// The end of the window before, the window, its end mirrored.
	var x [context + window + fft/4]float32
	copy(x[:], net.context[:])
	copy(x[context:], next[:])
	for i := range x[context+window:] {
		x[context+window+i] = x[context+window-2-i]
	}
	copy(net.context[:], next[window-context:])

	// Short-time Fourier transform: real parts, then imaginary; we take magnitudes.
	var a, b [frames * bins]float32
	var spectrum [2 * bins]float32
	for t := 0; t < frames; t++ {
		linear(layer{weight: net.stft}, x[t*hop:t*hop+fft], spectrum[:])
		for k := 0; k < bins; k++ {
			re, im := spectrum[k], spectrum[bins+k]
			a[t*bins+k] = float32(math.Sqrt(float64(re*re + im*im)))
		}
	}

	// Encoder: 4 frames of 129 bins become 1 frame of 128 features.
	convolve(net.conv[0], bins, 128, 1, 4, a[:], b[:])
	convolve(net.conv[1], 128, 64, 2, 4, b[:], a[:])
	convolve(net.conv[2], 64, 64, 2, 2, a[:], b[:])
	convolve(net.conv[3], 64, hidden, 1, 1, b[:], a[:])

	// Decoder: one step of an LSTM (gates in the order i, f, g, o), then a sum.
	var gates, recurrent [4 * hidden]float32
	var positive [hidden]float32
	linear(net.input, a[:hidden], gates[:])
	linear(net.recurrent, net.h[:], recurrent[:])
	for k := range gates {
		gates[k] += recurrent[k]
	}
	for k := range net.h {
		i, f := sigmoid(gates[k]), sigmoid(gates[hidden+k])
		g, o := tanh(gates[2*hidden+k]), sigmoid(gates[3*hidden+k])
		net.c[k] = f*net.c[k] + i*g
		net.h[k] = o * tanh(net.c[k])
		positive[k] = max(net.h[k], 0)
	}
	var logit [1]float32
	linear(net.output, positive[:], logit[:])
	return sigmoid(logit[0])
}

// linear is y = weight x + bias: every layer of the network comes down to this.
func linear(l layer, x, y []float32) {
	for row := range y {
		y[row] = dot(l.weight[row*len(x):][:len(x)], x)
		if l.bias != nil {
			y[row] += l.bias[row]
		}
	}
}

// dot keeps four sums side by side, so that none waits for the one before.
func dot(a, b []float32) float32 {
	var s0, s1, s2, s3 float32
	b = b[:len(a)]
	i := 0
	for ; i+4 <= len(a); i += 4 {
		x, y := a[i:i+4:i+4], b[i:i+4:i+4]
		s0 += x[0] * y[0]
		s1 += x[1] * y[1]
		s2 += x[2] * y[2]
		s3 += x[3] * y[3]
	}
	for ; i < len(a); i++ {
		s0 += a[i] * b[i]
	}
	return s0 + s1 + s2 + s3
}

// convolve is a convolution over 3 frames, with a zero frame before and after,
// then ReLU. x is [frames][in], y is [frames of the result][out].
func convolve(l layer, in, out, stride, frames int, x, y []float32) {
	var patch [3 * bins]float32 // laid out as a row of the weight: [in][3]
	for t := 0; t < frames; t += stride {
		for k := 0; k < 3; k++ {
			inside := t+k >= 1 && t+k <= frames
			for i := 0; i < in; i++ {
				patch[3*i+k] = 0
				if inside {
					patch[3*i+k] = x[(t+k-1)*in+i]
				}
			}
		}
		linear(l, patch[:3*in], y[:out])
		for i := range y[:out] {
			y[i] = max(y[i], 0)
		}
		y = y[out:]
	}
}

func sigmoid(x float32) float32 { return float32(1 / (1 + math.Exp(-float64(x)))) }

func tanh(x float32) float32 { return float32(math.Tanh(float64(x))) }
