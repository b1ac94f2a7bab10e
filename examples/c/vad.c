// SPDX-License-Identifier: Apache-2.0
//
// vad: finds speech in a recording, with the Silero VAD network.
//
//     vad MODEL.safetensors INPUT.wav [--probabilities]
//
// A whole inference program in one file, to show what using the library comes
// to: open the checkpoint, ask for each tensor by name, check that it is what
// the code expects, and compute on the weights where they lie. Nothing is
// unpacked or copied: on a local disk the pointers lead into the mapped file.

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <safetensors.h>

enum { SAMPLE_RATE = 16000, WINDOW = 512, CONTEXT = 64, HIDDEN = 128 };
enum { FFT = 256, HOP = 128, BINS = 129, FRAMES = 4 };

// ---------------------------------------------------------------- the weights

typedef struct { const float *weight, *bias; } layer;

typedef struct {
    st_checkpoint *checkpoint;                 // owns the weights
    bool aligned;                              // every weight begins where a float may
    const float *stft;
    layer conv[4], input, recurrent, output;
    float context[CONTEXT];                    // the end of the window before
    float h[HIDDEN], c[HIDDEN];                // the LSTM's state
} network;

static void print_type(const char *dtype, size_t rank, const int64_t *shape) {
    fprintf(stderr, "%s [", dtype);
    for (size_t d = 0; d < rank; d++)
        fprintf(stderr, d ? ", %lld" : "%lld", (long long)shape[d]);
    fputs("]", stderr);
}

// Finds one tensor; a, b, c are its shape, with 0 for dimensions it hasn't. A
// file is somebody's input: check dtype and shape before using the pointer.
static bool fetch(network *net, const float **data, const char *name,
                  int64_t a, int64_t b, int64_t c) {
    st_error error;
    const int64_t shape[3] = {a, b, c};
    size_t rank = c ? 3 : b ? 2 : 1;

    const st_tensor *tensor = st_get_tensor(net->checkpoint, name, &error);
    if (tensor == NULL) {
        fprintf(stderr, "vad: %s: %s\n", st_status_name(error.code), error.message);
        return false;
    }
    if (tensor->dtype != ST_DTYPE_F32 || tensor->rank != rank ||
        memcmp(tensor->shape, shape, rank * sizeof *shape) != 0) {
        fprintf(stderr, "vad: %s: expected ", name);
        print_type("F32", rank, shape);
        fputs(", the file has ", stderr);
        print_type(st_dtype_name(tensor->dtype), tensor->rank, tensor->shape);
        fputs("\n", stderr);
        return false;
    }
    *data = tensor->data;
    net->aligned = net->aligned && (uintptr_t)tensor->data % _Alignof(float) == 0;
    return true;
}

static bool network_open(network *net, const char *path, int32_t access) {
    st_error error;
    st_open_options options = ST_OPEN_OPTIONS_INIT;
    options.access = access;
    *net = (network){.aligned = true};
    net->checkpoint = st_open_with(path, &options, &error);
    if (net->checkpoint == NULL) {
        fprintf(stderr, "vad: %s: %s\n", st_status_name(error.code), error.message);
        return false;
    }
    bool good = fetch(net, &net->stft, "stft_conv.weight", 2 * BINS, 1, FFT) &&
                fetch(net, &net->conv[0].weight, "conv1.weight", 128, BINS, 3) &&
                fetch(net, &net->conv[0].bias, "conv1.bias", 128, 0, 0) &&
                fetch(net, &net->conv[1].weight, "conv2.weight", 64, 128, 3) &&
                fetch(net, &net->conv[1].bias, "conv2.bias", 64, 0, 0) &&
                fetch(net, &net->conv[2].weight, "conv3.weight", 64, 64, 3) &&
                fetch(net, &net->conv[2].bias, "conv3.bias", 64, 0, 0) &&
                fetch(net, &net->conv[3].weight, "conv4.weight", HIDDEN, 64, 3) &&
                fetch(net, &net->conv[3].bias, "conv4.bias", HIDDEN, 0, 0) &&
                fetch(net, &net->input.weight, "lstm_cell.weight_ih", 4 * HIDDEN, HIDDEN, 0) &&
                fetch(net, &net->input.bias, "lstm_cell.bias_ih", 4 * HIDDEN, 0, 0) &&
                fetch(net, &net->recurrent.weight, "lstm_cell.weight_hh", 4 * HIDDEN, HIDDEN, 0) &&
                fetch(net, &net->recurrent.bias, "lstm_cell.bias_hh", 4 * HIDDEN, 0, 0) &&
                fetch(net, &net->output.weight, "final_conv.weight", 1, HIDDEN, 1) &&
                fetch(net, &net->output.bias, "final_conv.bias", 1, 0, 0);
    if (good && net->aligned)
        return true;
    st_free(net->checkpoint);
    // The format doesn't promise that a tensor begins at a multiple of its
    // element size. Where one doesn't, we can't compute on the mapping, and let
    // the library read instead: into memory that is aligned to 64 bytes.
    return good && access != ST_ACCESS_READ && network_open(net, path, ST_ACCESS_READ);
}

// ---------------------------------------------------------------- the network

// Sixteen sums side by side. C doesn't let the compiler reorder a single float
// sum, and so it could not use vector registers for one.
static float dot(const float *a, const float *b, size_t n) {
    float lanes[16] = {0}, sum = 0;
    size_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (size_t j = 0; j < 16; j++)
            lanes[j] += a[i + j] * b[i + j];
    for (; i < n; i++)
        sum += a[i] * b[i];
    for (size_t j = 0; j < 16; j++)
        sum += lanes[j];
    return sum;
}

// y = weight x + bias: every layer of the network comes down to this.
static void linear(layer l, size_t rows, size_t columns, const float *x, float *y) {
    for (size_t row = 0; row < rows; row++)
        y[row] = dot(l.weight + row * columns, x, columns) + (l.bias ? l.bias[row] : 0);
}

// Convolution over 3 frames, with a zero frame before and after, then ReLU.
// x is [frames][in], y is [frames of the result][out].
static void convolve(layer l, size_t in, size_t out, size_t stride, size_t frames,
                     const float *x, float *y) {
    for (size_t t = 0; t < frames; t += stride, y += out) {
        float patch[3 * BINS];                 // laid out as a row of the weight: [in][3]
        for (size_t k = 0; k < 3; k++) {
            bool inside = t + k >= 1 && t + k <= frames;
            for (size_t i = 0; i < in; i++)
                patch[3 * i + k] = inside ? x[(t + k - 1) * in + i] : 0;
        }
        linear(l, out, 3 * in, patch, y);
        for (size_t i = 0; i < out; i++)
            y[i] = fmaxf(y[i], 0);
    }
}

static float sigmoid(float x) { return 1 / (1 + expf(-x)); }

// The probability that the next 32 ms are speech.
static float network_step(network *net, const float window[WINDOW]) {
    // The end of the window before, the window, its end mirrored.
    float x[CONTEXT + WINDOW + FFT / 4];
    memcpy(x, net->context, sizeof net->context);
    memcpy(x + CONTEXT, window, WINDOW * sizeof *x);
    for (size_t i = 0; i < FFT / 4; i++)
        x[CONTEXT + WINDOW + i] = x[CONTEXT + WINDOW - 2 - i];
    memcpy(net->context, window + WINDOW - CONTEXT, sizeof net->context);

    // Short-time Fourier transform: real parts, then imaginary; we take magnitudes.
    float a[FRAMES * BINS], b[FRAMES * BINS], spectrum[2 * BINS];
    for (size_t t = 0; t < FRAMES; t++) {
        linear((layer){net->stft, NULL}, 2 * BINS, FFT, x + t * HOP, spectrum);
        for (size_t k = 0; k < BINS; k++) {
            float re = spectrum[k], im = spectrum[BINS + k];
            a[t * BINS + k] = sqrtf(re * re + im * im);
        }
    }

    // Encoder: 4 frames of 129 bins become 1 frame of 128 features.
    convolve(net->conv[0], BINS, 128, 1, 4, a, b);
    convolve(net->conv[1], 128, 64, 2, 4, b, a);
    convolve(net->conv[2], 64, 64, 2, 2, a, b);
    convolve(net->conv[3], 64, HIDDEN, 1, 1, b, a);

    // Decoder: one step of an LSTM (gates in the order i, f, g, o), then a sum.
    float gates[4 * HIDDEN], recurrent[4 * HIDDEN], positive[HIDDEN], logit;
    linear(net->input, 4 * HIDDEN, HIDDEN, a, gates);
    linear(net->recurrent, 4 * HIDDEN, HIDDEN, net->h, recurrent);
    for (size_t k = 0; k < 4 * HIDDEN; k++)
        gates[k] += recurrent[k];
    for (size_t k = 0; k < HIDDEN; k++) {
        float i = sigmoid(gates[k]), f = sigmoid(gates[HIDDEN + k]);
        float g = tanhf(gates[2 * HIDDEN + k]), o = sigmoid(gates[3 * HIDDEN + k]);
        net->c[k] = f * net->c[k] + i * g;
        net->h[k] = o * tanhf(net->c[k]);
        positive[k] = fmaxf(net->h[k], 0);
    }
    linear(net->output, 1, HIDDEN, positive, &logit);
    return sigmoid(logit);
}

// ------------------------------------------------------------------ the sound

static uint32_t little_endian(const unsigned char *bytes, int count) {
    uint32_t value = 0;
    while (count-- > 0)
        value = value << 8 | bytes[count];
    return value;
}

// Reads a RIFF WAVE file: chunks of a four letter name, a size and that many
// bytes, padded to an even number. A size is never believed: memory grows with
// what has been read. Returns NULL or what is wrong; *samples is the caller's
// to free either way.
static const char *read_wav(FILE *file, int16_t **samples, size_t *count) {
    unsigned char head[16], block[4096];
    bool format_seen = false, is_data = false;
    size_t capacity = 0;
    if (fread(head, 1, 12, file) != 12 || memcmp(head, "RIFF", 4) || memcmp(head + 8, "WAVE", 4))
        return "not a RIFF WAVE file";
    while (!is_data && fread(head, 1, 8, file) == 8) {
        uint64_t left = little_endian(head + 4, 4);
        left += left % 2;
        is_data = memcmp(head, "data", 4) == 0;
        if (is_data && !format_seen)
            return "its data chunk comes before its fmt chunk";
        if (memcmp(head, "fmt ", 4) == 0) {
            if (left < 16 || fread(head, 1, 16, file) != 16)
                return "its fmt chunk is too short";
            if (little_endian(head, 2) != 1 || little_endian(head + 2, 2) != 1 ||
                little_endian(head + 4, 4) != SAMPLE_RATE || little_endian(head + 14, 2) != 16)
                return "not 16 kHz mono 16-bit PCM (sox IN -r 16000 -c 1 -b 16 OUT.wav makes that)";
            format_seen = true;
            left -= 16;
        }
        while (left > 0) {
            size_t want = left < sizeof block ? (size_t)left : sizeof block;
            if (fread(block, 1, want, file) != want)
                return "cut short: it ends inside a chunk";
            left -= want;
            if (is_data && *count + want / 2 > capacity) {
                capacity = 2 * capacity + sizeof block;
                int16_t *grown = realloc(*samples, capacity * sizeof *grown);
                if (grown == NULL)
                    return "too long for the memory there is";
                *samples = grown;
            }
            for (size_t i = 0; is_data && i < want; i += 2)
                (*samples)[(*count)++] = (int16_t)little_endian(block + i, 2);
        }
    }
    return is_data ? NULL : "it has no data chunk";
}

// ---------------------------------------------------------------- the segments

typedef struct { size_t start, end; } segment;     // in samples

// Probabilities to segments, as get_speech_timestamps() of the silero-vad
// package does with its defaults (src/silero_vad/utils_vad.py): speech begins
// at 0.5 and ends where it stays below 0.35 for 100 ms; what is not longer
// than 250 ms is dropped; the rest grows by 30 ms at both ends.
static size_t find_segments(const float *p, size_t windows, size_t samples, segment *found) {
    const size_t min_silence = SAMPLE_RATE / 10, min_speech = SAMPLE_RATE / 4;
    const size_t pad = SAMPLE_RATE * 3 / 100;
    bool speaking = false, fading = false;
    size_t n = 0, start = 0, end = 0;
    for (size_t i = 0; i < windows; i++) {
        size_t now = i * WINDOW;
        if (p[i] >= 0.5f) {
            fading = false;
            if (!speaking)
                start = now;
            speaking = true;
        } else if (speaking && p[i] < 0.35f) {
            if (!fading)
                end = now;
            fading = true;
            if (now - end >= min_silence) {
                if (end - start > min_speech)
                    found[n++] = (segment){start, end};
                speaking = fading = false;
            }
        }
    }
    if (speaking && samples - start > min_speech)
        found[n++] = (segment){start, samples};
    for (size_t i = 0; i < n; i++) {   // segments are over 60 ms apart: these can't meet
        found[i].start -= found[i].start < pad ? found[i].start : pad;
        found[i].end += samples - found[i].end < pad ? samples - found[i].end : pad;
    }
    return n;
}

// ----------------------------------------------------------------- the picture

enum { GRAPH_WIDTH = 72, GRAPH_ROWS = 7 };

// How much of a cell to fill, in eighths. A NaN (weights may hold one) gives 0.
static int eighths(float value) { return value > 0 ? value < 8 ? (int)value : 8 : 0; }

static void draw(const float *p, size_t windows, const segment *segments, size_t n) {
    static const char *const bars[9] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    size_t width = windows < GRAPH_WIDTH ? windows : GRAPH_WIDTH;
    double columns_per_second = (double)width / (double)windows * SAMPLE_RATE / WINDOW;

    float level[GRAPH_WIDTH] = {0};                // mean probability in each column
    for (size_t column = 0; column < width; column++) {
        size_t from = column * windows / width, to = (column + 1) * windows / width;
        for (size_t i = from; i < to; i++)
            level[column] += p[i] / (float)(to - from);
    }
    for (int row = GRAPH_ROWS - 1; row >= 0; row--) {
        bool threshold = row == GRAPH_ROWS / 2;    // 0.5 is the middle of this row
        fputs(row == GRAPH_ROWS - 1 ? "   1.0 ┤" : threshold ? "   0.5 ┤" : "       │", stdout);
        for (size_t column = 0; column < width; column++) {
            int fill = eighths(8 * (GRAPH_ROWS * level[column] - (float)row) + 0.5f);
            fputs(fill == 0 && threshold ? "╌" : bars[fill], stdout);
        }
        putchar('\n');
    }

    unsigned long step = 1, next = 0;              // seconds between marks, the next mark
    while ((double)step * columns_per_second < 8)
        step *= 2;
    char labels[GRAPH_WIDTH + 24] = "";
    int end = 0;
    fputs("   0.0 ┼", stdout);
    for (int column = 0; column < (int)width; column++) {
        bool mark = (int)((double)next * columns_per_second + 0.5) == column;
        fputs(mark ? "┬" : "─", stdout);
        if (mark) {
            end += sprintf(labels + end, "%*s%lu s", column - end, "", next);
            next += step;
        }
    }
    printf("\n        %.*s\nspeech  ", GRAPH_WIDTH, labels);
    for (size_t column = 0, i = 0; column < width; column++) {
        size_t time = (2 * column + 1) * windows / width * WINDOW / 2;     // its middle
        while (i < n && segments[i].end <= time)
            i++;
        fputs(i < n && segments[i].start <= time ? "━" : " ", stdout);
    }
    putchar('\n');
}

// -------------------------------------------------------------------- together

static double now_in_seconds(void) {
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void report(const float *p, size_t windows, size_t samples, segment *segments, double took) {
    size_t n = find_segments(p, windows, samples, segments);
    double length = (double)samples / SAMPLE_RATE;
    if (windows > 0)
        draw(p, windows, segments, n);
    printf("\n%zu segment%s of speech in %.2f s of sound\n", n, n == 1 ? "" : "s", length);
    for (size_t i = 0; i < n; i++)
        printf("%8.2f s to %.2f s\n", (double)segments[i].start / SAMPLE_RATE,
               (double)segments[i].end / SAMPLE_RATE);
    printf("%zu windows in %.1f ms, %.0f x real time\n", windows, took * 1e3,
           took > 0 ? length / took : 0);
}

int main(int argc, char **argv) {
    bool list = argc == 4 && strcmp(argv[3], "--probabilities") == 0;
    if (argc != 3 && !list) {
        fputs("usage: vad MODEL.safetensors INPUT.wav [--probabilities]\n", stderr);
        return 2;
    }
    int16_t *samples = NULL;
    size_t count = 0;
    FILE *file = fopen(argv[2], "rb");
    const char *problem = file ? read_wav(file, &samples, &count) : "can't be opened";
    if (file)
        fclose(file);
    size_t windows = count / WINDOW + (count % WINDOW != 0);
    float *p = malloc((windows + 1) * sizeof *p);
    segment *segments = malloc((windows + 1) * sizeof *segments);
    if (problem == NULL && (p == NULL || segments == NULL))
        problem = "too long for the memory there is";
    if (problem != NULL)
        fprintf(stderr, "vad: %s: %s\n", argv[2], problem);

    network net;
    bool good = problem == NULL && network_open(&net, argv[1], ST_ACCESS_AUTO);
    if (good) {
        double began = now_in_seconds();
        for (size_t i = 0; i < windows; i++) {
            float window[WINDOW] = {0};            // zeros follow the last sample
            for (size_t j = 0; j < WINDOW && i * WINDOW + j < count; j++)
                window[j] = (float)samples[i * WINDOW + j] / 32768;
            p[i] = network_step(&net, window);
        }
        double took = now_in_seconds() - began;
        for (size_t i = 0; list && i < windows; i++)
            printf("%zu %.3f %.9g\n", i, (double)(i * WINDOW) / SAMPLE_RATE, p[i]);
        if (!list)
            report(p, windows, count, segments, took);
        st_free(net.checkpoint);
    }
    free(segments);
    free(p);
    free(samples);
    return good ? 0 : 1;
}
