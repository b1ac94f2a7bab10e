#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The answer that examples/c/vad.c is compared with.

Runs the 16 kHz Silero VAD network over a WAV file with nothing but numpy, and
writes one line per window of 512 samples: index, start in seconds,
probability of speech. It shares no code with the library: the safetensors
file is parsed here, and all arithmetic is float64, so what is written is
nearer to the true value than any float32 pass can be.

    python3 vad_reference.py > vad_reference.txt
"""

import json
import pathlib
import struct
import sys
import wave

import numpy as np

HERE = pathlib.Path(__file__).parent
WINDOW, CONTEXT, HOP = 512, 64, 128


def read_safetensors(path):
    raw = pathlib.Path(path).read_bytes()
    (header_len,) = struct.unpack_from("<Q", raw)
    header = json.loads(raw[8 : 8 + header_len])
    header.pop("__metadata__", None)
    tensors = {}
    for name, info in header.items():
        assert info["dtype"] == "F32", name
        begin, end = (8 + header_len + offset for offset in info["data_offsets"])
        tensors[name] = (
            np.frombuffer(raw[begin:end], "<f4").reshape(info["shape"]).astype(np.float64)
        )
    return tensors


def read_wav(path):
    with wave.open(str(path)) as wav:
        assert (wav.getnchannels(), wav.getsampwidth(), wav.getframerate()) == (1, 2, 16000)
        return np.frombuffer(wav.readframes(wav.getnframes()), "<i2") / 32768.0


def conv1d(x, weight, bias=None, stride=1, padding=0):
    """torch.nn.functional.conv1d for one item: x is [in, length], weight [out, in, kernel]."""
    x = np.pad(x, ((0, 0), (padding, padding)))
    kernel = weight.shape[2]
    patches = np.lib.stride_tricks.sliding_window_view(x, kernel, axis=1)[:, ::stride]
    y = np.einsum("itk,oik->ot", patches, weight)
    return y if bias is None else y + bias[:, None]


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def probabilities(t, samples):
    samples = np.pad(samples, (0, -len(samples) % WINDOW))
    context = np.zeros(CONTEXT)
    h, c = np.zeros(128), np.zeros(128)
    for start in range(0, len(samples), WINDOW):
        window = samples[start : start + WINDOW]
        x = np.concatenate([context, window])
        context = window[-CONTEXT:]

        # Short-time Fourier transform, as a convolution: 4 frames of 129 bins.
        x = np.pad(x, (0, 64), mode="reflect")[None]
        spectrum = conv1d(x, t["stft_conv.weight"], stride=HOP)
        x = np.hypot(spectrum[:129], spectrum[129:])

        # Encoder: 129 x 4 becomes 128 x 1.
        for layer, stride in (("conv1", 1), ("conv2", 2), ("conv3", 2), ("conv4", 1)):
            x = conv1d(x, t[layer + ".weight"], t[layer + ".bias"], stride, padding=1)
            x = np.maximum(x, 0.0)

        # Decoder: one step of an LSTM whose state lives on, then a projection.
        gates = t["lstm_cell.weight_ih"] @ x[:, 0] + t["lstm_cell.bias_ih"]
        gates += t["lstm_cell.weight_hh"] @ h + t["lstm_cell.bias_hh"]
        i, f, g, o = np.split(gates, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        logit = t["final_conv.weight"][0, :, 0] @ np.maximum(h, 0.0) + t["final_conv.bias"][0]
        yield sigmoid(logit)


def main():
    model = sys.argv[1] if len(sys.argv) > 1 else HERE / "silero_vad_16k.safetensors"
    audio = sys.argv[2] if len(sys.argv) > 2 else HERE / "speech.wav"
    for index, p in enumerate(probabilities(read_safetensors(model), read_wav(audio))):
        print(f"{index} {index * WINDOW / 16000:.3f} {p:.9g}")


if __name__ == "__main__":
    main()
