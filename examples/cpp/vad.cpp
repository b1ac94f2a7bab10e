// SPDX-License-Identifier: Apache-2.0
//
// vad: finds speech in a recording, with the Silero VAD network.
//
//     vad_cpp MODEL.safetensors INPUT.wav [--probabilities]
//
// The program of ../c/vad.c as one writes it in C++: tensors are spans of float
// that know their size, the checkpoint closes itself, and what is wrong with a
// file arrives as an exception. Nothing is unpacked or copied: on a local disk
// the spans lead into the mapped file.

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <initializer_list>
#include <iostream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <safetensors.hpp>

namespace {

namespace st = safetensors;

constexpr std::size_t sample_rate = 16000, window_size = 512, context_size = 64, hidden = 128;
constexpr std::size_t fft = 256, hop = 128, bins = 129, frames = 4;

using Floats = st::span<const float>;
using Window = std::array<float, window_size>;

// ---------------------------------------------------------------- the weights

struct Layer {
    Floats weight, bias; // a bias without elements is none
};

std::string type_of(std::string_view dtype, st::span<const std::int64_t> shape)
{
    std::string text = std::string(dtype) + " [";
    for (std::size_t d = 0; d < shape.size(); d++)
        text += (d != 0 ? ", " : "") + std::to_string(shape[d]);
    return text + "]";
}

// A file is somebody's input: dtype and shape are checked before the span is used.
Floats fetch(const st::Checkpoint &model, const char *name, const std::vector<std::int64_t> &shape)
{
    const st::Tensor tensor = model.get(name);
    if (tensor.dtype() != st::Dtype::F32 || !std::equal(shape.begin(), shape.end(), tensor.shape().begin(), tensor.shape().end()))
        throw std::runtime_error(std::string(name) + ": expected " + type_of("F32", shape) + ", the file has " +
                                 type_of(st::name(tensor.dtype()), tensor.shape()));
    return tensor.as<float>();
}

// The format doesn't promise that a tensor begins at a multiple of its element
// size. Where one doesn't, nothing can be computed on the mapping, and the
// library reads instead: into memory that is aligned to 64 bytes.
st::Checkpoint open_aligned(const char *path)
{
    auto model = st::Checkpoint::open(path);
    for (const st::Tensor tensor : model.tensors())
        if (tensor.dtype() == st::Dtype::F32 && tensor.data() != nullptr && !tensor.try_as<float>()) {
            st::OpenOptions options;
            options.access = st::Access::read;
            return st::Checkpoint::open(path, options);
        }
    return model;
}

// ---------------------------------------------------------------- the network

// Sixteen sums side by side. C++ doesn't let the compiler reorder a single float
// sum, and so it could not use vector registers for one.
float dot(const float *a, const float *b, std::size_t n)
{
    float lanes[16] = {}, sum = 0;
    std::size_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (std::size_t j = 0; j < 16; j++)
            lanes[j] += a[i + j] * b[i + j];
    for (; i < n; i++)
        sum += a[i] * b[i];
    for (const float lane : lanes)
        sum += lane;
    return sum;
}

// y = weight x + bias: every layer of the network comes down to this.
void linear(const Layer &layer, Floats x, st::span<float> y)
{
    for (std::size_t row = 0; row < y.size(); row++)
        y[row] = dot(&layer.weight[row * x.size()], x.data(), x.size()) + (layer.bias.empty() ? 0 : layer.bias[row]);
}

// Convolution over 3 frames, with a zero frame before and after, then ReLU.
// x is [frames][in], y is [frames of the result][out].
std::vector<float> convolve(const Layer &layer, std::size_t in, std::size_t out, std::size_t stride, const std::vector<float> &x)
{
    const std::size_t count = x.size() / in;
    std::vector<float> y((count + stride - 1) / stride * out), patch(3 * in); // as a row of the weight: [in][3]
    for (std::size_t t = 0; t < count; t += stride) {
        for (std::size_t k = 0; k < 3; k++) {
            const bool inside = t + k >= 1 && t + k <= count;
            for (std::size_t i = 0; i < in; i++)
                patch[3 * i + k] = inside ? x[(t + k - 1) * in + i] : 0;
        }
        const auto place = st::span<float>(y).subspan(t / stride * out, out);
        linear(layer, patch, place);
        for (float &value : place)
            value = std::fmax(value, 0.0F);
    }
    return y;
}

float sigmoid(float x) { return 1 / (1 + std::exp(-x)); }

class Network {
public:
    explicit Network(const char *path) : model_(open_aligned(path)) {}

    // The probability that the next 32 ms are speech.
    float step(const Window &window)
    {
        // The end of the window before, the window, its end mirrored.
        std::array<float, context_size + window_size + fft / 4> x;
        auto end = std::copy(context_.begin(), context_.end(), x.begin());
        end = std::copy(window.begin(), window.end(), end);
        std::reverse_copy(end - 1 - fft / 4, end - 1, end);
        std::copy(window.end() - context_size, window.end(), context_.begin());

        // Short-time Fourier transform: real parts, then imaginary; we take magnitudes.
        std::vector<float> features(frames * bins), spectrum(2 * bins);
        for (std::size_t t = 0; t < frames; t++) {
            linear({stft_, {}}, Floats(x).subspan(t * hop, fft), spectrum);
            for (std::size_t k = 0; k < bins; k++)
                features[t * bins + k] = std::sqrt(spectrum[k] * spectrum[k] + spectrum[bins + k] * spectrum[bins + k]);
        }

        // Encoder: 4 frames of 129 bins become 1 frame of 128 features.
        features = convolve(encoder_[0], bins, 128, 1, features);
        features = convolve(encoder_[1], 128, 64, 2, features);
        features = convolve(encoder_[2], 64, 64, 2, features);
        features = convolve(encoder_[3], 64, hidden, 1, features);

        // Decoder: one step of an LSTM (gates in the order i, f, g, o), then a sum.
        std::array<float, 4 * hidden> gates, recurrent;
        std::array<float, hidden> positive;
        linear(input_, features, gates);
        linear(recurrent_, h_, recurrent);
        for (std::size_t k = 0; k < gates.size(); k++)
            gates[k] += recurrent[k];
        for (std::size_t k = 0; k < hidden; k++) {
            const float i = sigmoid(gates[k]), f = sigmoid(gates[hidden + k]);
            const float g = std::tanh(gates[2 * hidden + k]), o = sigmoid(gates[3 * hidden + k]);
            c_[k] = f * c_[k] + i * g;
            h_[k] = o * std::tanh(c_[k]);
            positive[k] = std::fmax(h_[k], 0.0F);
        }
        float logit[1];
        linear(output_, positive, logit);
        return sigmoid(logit[0]);
    }

private:
    Layer layer(const char *weight, const std::vector<std::int64_t> &shape, const char *bias) const
    {
        return {fetch(model_, weight, shape), fetch(model_, bias, {shape[0]})};
    }

    st::Checkpoint model_; // owns what the spans show
    Floats stft_ = fetch(model_, "stft_conv.weight", {2 * bins, 1, fft});
    std::array<Layer, 4> encoder_ = {layer("conv1.weight", {128, bins, 3}, "conv1.bias"),
                                     layer("conv2.weight", {64, 128, 3}, "conv2.bias"),
                                     layer("conv3.weight", {64, 64, 3}, "conv3.bias"),
                                     layer("conv4.weight", {hidden, 64, 3}, "conv4.bias")};
    Layer input_ = layer("lstm_cell.weight_ih", {4 * hidden, hidden}, "lstm_cell.bias_ih");
    Layer recurrent_ = layer("lstm_cell.weight_hh", {4 * hidden, hidden}, "lstm_cell.bias_hh");
    Layer output_ = layer("final_conv.weight", {1, hidden, 1}, "final_conv.bias");
    std::array<float, context_size> context_ = {}; // the end of the window before
    std::array<float, hidden> h_ = {}, c_ = {};    // the LSTM's state
};

// ------------------------------------------------------------------ the sound

std::uint32_t little_endian(const char *bytes, std::size_t count)
{
    std::uint32_t value = 0;
    while (count-- > 0)
        value = value << 8 | static_cast<unsigned char>(bytes[count]);
    return value;
}

// Reads a RIFF WAVE file: chunks of a four letter name, a size and that many
// bytes, padded to an even number. A size is never believed: memory grows with
// what has been read.
std::vector<std::int16_t> read_wav(const std::string &path)
{
    std::ifstream file(path, std::ios::binary);
    const auto wrong = [&](const char *what) { return std::runtime_error(path + ": " + what); };
    const auto read = [&](char *to, std::size_t size) { return static_cast<bool>(file.read(to, static_cast<std::streamsize>(size))); };
    if (!file)
        throw wrong("can't be opened");
    char head[16], block[4096];
    if (!read(head, 12) || std::memcmp(head, "RIFF", 4) != 0 || std::memcmp(head + 8, "WAVE", 4) != 0)
        throw wrong("not a RIFF WAVE file");
    std::vector<std::int16_t> samples;
    for (bool format_seen = false; read(head, 8);) {
        const bool is_data = std::memcmp(head, "data", 4) == 0, is_format = std::memcmp(head, "fmt ", 4) == 0;
        std::uint64_t left = little_endian(head + 4, 4);
        left += left % 2;
        if (is_data && !format_seen)
            throw wrong("its data chunk comes before its fmt chunk");
        if (is_format) {
            if (left < 16 || !read(head, 16))
                throw wrong("its fmt chunk is too short");
            if (little_endian(head, 2) != 1 || little_endian(head + 2, 2) != 1 || little_endian(head + 4, 4) != sample_rate ||
                little_endian(head + 14, 2) != 16)
                throw wrong("not 16 kHz mono 16-bit PCM (sox IN -r 16000 -c 1 -b 16 OUT.wav makes that)");
            format_seen = true;
            left -= 16;
        }
        while (left > 0) {
            const std::size_t want = static_cast<std::size_t>(std::min<std::uint64_t>(left, sizeof block));
            if (!read(block, want))
                throw wrong("cut short: it ends inside a chunk");
            left -= want;
            for (std::size_t i = 0; is_data && i < want; i += 2)
                samples.push_back(static_cast<std::int16_t>(little_endian(block + i, 2)));
        }
        if (is_data)
            return samples;
    }
    throw wrong("it has no data chunk");
}

// ---------------------------------------------------------------- the segments

struct Segment {
    std::size_t start, end; // in samples
};

// Probabilities to segments, as get_speech_timestamps() of the silero-vad
// package does with its defaults (src/silero_vad/utils_vad.py): speech begins
// at 0.5 and ends where it stays below 0.35 for 100 ms; what is not longer
// than 250 ms is dropped; the rest grows by 30 ms at both ends.
std::vector<Segment> find_segments(const std::vector<float> &probabilities, std::size_t samples)
{
    constexpr std::size_t min_silence = sample_rate / 10, min_speech = sample_rate / 4, pad = sample_rate * 3 / 100;
    std::vector<Segment> found;
    bool speaking = false, fading = false;
    std::size_t start = 0, end = 0, now = 0;
    for (const float p : probabilities) {
        if (p >= 0.5F) {
            fading = false;
            if (!speaking)
                start = now;
            speaking = true;
        } else if (speaking && p < 0.35F) {
            if (!fading)
                end = now;
            fading = true;
            if (now - end >= min_silence) {
                if (end - start > min_speech)
                    found.push_back({start, end});
                speaking = fading = false;
            }
        }
        now += window_size;
    }
    if (speaking && samples - start > min_speech)
        found.push_back({start, samples});
    for (Segment &segment : found) { // they are over 60 ms apart: these can't meet
        segment.start -= std::min(segment.start, pad);
        segment.end += std::min(samples - segment.end, pad);
    }
    return found;
}

// ----------------------------------------------------------------- the picture

// How much of a cell to fill, in eighths. A NaN (weights may hold one) gives 0.
std::size_t eighths(float value) { return value > 0 ? value < 8 ? static_cast<std::size_t>(value) : 8 : 0; }

void draw(const std::vector<float> &p, const std::vector<Segment> &segments)
{
    static const char *const bars[9] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    constexpr std::size_t graph_width = 72, rows = 7;
    const std::size_t windows = p.size(), width = std::min(windows, graph_width);

    std::vector<float> level(width); // mean probability in each column
    for (std::size_t column = 0; column < width; column++) {
        const std::size_t from = column * windows / width, to = (column + 1) * windows / width;
        for (std::size_t i = from; i < to; i++)
            level[column] += p[i] / static_cast<float>(to - from);
    }
    for (std::size_t row = rows; row-- > 0;) {
        const bool threshold = row == rows / 2; // 0.5 is the middle of this row
        std::cout << (row == rows - 1 ? "   1.0 ┤" : threshold ? "   0.5 ┤" : "       │");
        for (const float value : level) {
            const std::size_t fill = eighths(8 * (rows * value - static_cast<float>(row)) + 0.5F);
            std::cout << (fill == 0 && threshold ? "╌" : bars[fill]);
        }
        std::cout << '\n';
    }

    // Seconds, eight columns apart or more.
    const double columns_per_second = static_cast<double>(width) / static_cast<double>(windows) * sample_rate / window_size;
    unsigned step = 1, next = 0;
    while (step * columns_per_second < 8)
        step *= 2;
    std::string axis, labels, speech;
    for (std::size_t column = 0; column < width; column++) {
        const bool mark = static_cast<std::size_t>(next * columns_per_second + 0.5) == column;
        axis += mark ? "┬" : "─";
        if (mark) {
            labels.resize(column, ' ');
            labels += std::to_string(next) + " s";
            next += step;
        }
        const std::size_t time = (2 * column + 1) * windows / width * window_size / 2; // its middle
        const auto here = [time](const Segment &segment) { return segment.start <= time && time < segment.end; };
        speech += std::any_of(segments.begin(), segments.end(), here) ? "━" : " ";
    }
    std::cout << "   0.0 ┼" << axis << "\n        " << labels.substr(0, graph_width) << "\nspeech  " << speech << '\n';
}

// -------------------------------------------------------------------- together

void report(const std::vector<float> &p, std::size_t samples, double took)
{
    const auto segments = find_segments(p, samples);
    const double length = static_cast<double>(samples) / sample_rate;
    if (!p.empty())
        draw(p, segments);
    std::cout << std::flush;
    std::printf("\n%zu segment%s of speech in %.2f s of sound\n", segments.size(), segments.size() == 1 ? "" : "s", length);
    for (const Segment &segment : segments)
        std::printf("%8.2f s to %.2f s\n", static_cast<double>(segment.start) / sample_rate,
                    static_cast<double>(segment.end) / sample_rate);
    std::printf("%zu windows in %.1f ms, %.0f x real time\n", p.size(), took * 1e3, took > 0 ? length / took : 0);
}

void run(const char *model, const char *sound, bool list)
{
    const auto samples = read_wav(sound);
    Network network(model);
    std::vector<float> p;
    const auto began = std::chrono::steady_clock::now();
    for (std::size_t start = 0; start < samples.size(); start += window_size) {
        Window window = {}; // zeros follow the last sample
        for (std::size_t i = 0; i < window_size && start + i < samples.size(); i++)
            window[i] = static_cast<float>(samples[start + i]) / 32768;
        p.push_back(network.step(window));
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
    if (!list)
        return report(p, samples.size(), took.count());
    for (std::size_t i = 0; i < p.size(); i++)
        std::printf("%zu %.3f %.9g\n", i, static_cast<double>(i * window_size) / sample_rate, static_cast<double>(p[i]));
}

} // namespace

int main(int argc, char **argv)
{
    const bool list = argc == 4 && std::string_view(argv[3]) == "--probabilities";
    if (argc != 3 && !list) {
        std::cerr << "usage: vad_cpp MODEL.safetensors INPUT.wav [--probabilities]\n";
        return 2;
    }
    try {
        run(argv[1], argv[2], list);
        return 0;
    } catch (const st::Error &error) {
        std::cerr << "vad_cpp: " << error.name() << ": " << error.what() << '\n';
    } catch (const std::exception &error) {
        std::cerr << "vad_cpp: " << error.what() << '\n';
    }
    return 1;
}
