// SPDX-License-Identifier: Apache-2.0

import java.io.File;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.ShortBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import javax.sound.sampled.AudioFormat;
import javax.sound.sampled.AudioInputStream;
import javax.sound.sampled.AudioSystem;
import javax.sound.sampled.UnsupportedAudioFileException;
import org.safetensors.Checkpoint;
import org.safetensors.Dtype;
import org.safetensors.SafetensorsException;
import org.safetensors.Tensor;

/**
 * Finds speech in a recording, with the Silero VAD network: the program of examples/c/vad.c in Java.
 *
 * <pre>java -cp safetensors.jar Vad.java MODEL.safetensors INPUT.wav [--probabilities]</pre>
 *
 * <p>Opens the checkpoint, asks for each tensor by name, checks that it is what the code expects, and computes on the
 * weights where they lie: each FloatBuffer is a view of the mapped file.
 */
public final class Vad {
    private static final int SAMPLE_RATE = 16000;
    private static final int WINDOW = 512;
    private static final int CONTEXT = 64;
    private static final int HIDDEN = 128;
    private static final int FFT = 256;
    private static final int HOP = 128;
    private static final int BINS = 129;
    private static final int FRAMES = 4;

    public static void main(String[] arguments) {
        boolean list = arguments.length == 3 && arguments[2].equals("--probabilities");
        if (arguments.length != 2 && !list) {
            System.err.println("usage: Vad MODEL.safetensors INPUT.wav [--probabilities]");
            System.exit(2);
        }
        try (Checkpoint checkpoint = Checkpoint.open(Path.of(arguments[0]))) {
            short[] samples = readWav(new File(arguments[1]));
            Network network = new Network(checkpoint);
            float[] p = new float[(samples.length + WINDOW - 1) / WINDOW];
            long began = System.nanoTime();
            for (int i = 0; i < p.length; i++) {
                float[] window = new float[WINDOW]; // zeros follow the last sample
                for (int j = 0; j < WINDOW && i * WINDOW + j < samples.length; j++) {
                    window[j] = samples[i * WINDOW + j] / 32768f;
                }
                p[i] = network.step(window);
            }
            double took = (System.nanoTime() - began) / 1e9;
            if (list) {
                for (int i = 0; i < p.length; i++) {
                    print("%d %.3f %.9f%n", i, (double) (i * WINDOW) / SAMPLE_RATE, p[i]);
                }
            } else {
                report(p, samples.length, took);
            }
        } catch (SafetensorsException e) {
            System.err.println("Vad: " + e.status() + ": " + e.getMessage());
            System.exit(1);
        } catch (UnsupportedAudioFileException | IOException e) {
            System.err.println("Vad: " + arguments[1] + ": " + e.getMessage());
            System.exit(1);
        }
    }

    // ------------------------------------------------------------ the network

    /** Weights, [rows][columns], and a bias, which may be null. */
    private record Layer(FloatBuffer weight, FloatBuffer bias) {
        /** y = weight x + bias: every layer of the network comes down to this. */
        void apply(int rows, int columns, float[] x, int from, float[] y, int to) {
            for (int row = 0; row < rows; row++) {
                y[to + row] = dot(weight, row * columns, x, from, columns) + (bias == null ? 0 : bias.get(row));
            }
        }

        /** Eight sums side by side: one sum has to be added up in order, and waits for itself. */
        private static float dot(FloatBuffer a, int at, float[] b, int from, int n) {
            float s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0;
            int i = 0;
            for (; i + 8 <= n; i += 8) {
                s0 += a.get(at + i) * b[from + i];
                s1 += a.get(at + i + 1) * b[from + i + 1];
                s2 += a.get(at + i + 2) * b[from + i + 2];
                s3 += a.get(at + i + 3) * b[from + i + 3];
                s4 += a.get(at + i + 4) * b[from + i + 4];
                s5 += a.get(at + i + 5) * b[from + i + 5];
                s6 += a.get(at + i + 6) * b[from + i + 6];
                s7 += a.get(at + i + 7) * b[from + i + 7];
            }
            for (; i < n; i++) {
                s0 += a.get(at + i) * b[from + i];
            }
            return ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7));
        }
    }

    private static final class Network {
        private final Checkpoint checkpoint;
        private final Layer stft;
        private final Layer[] conv;
        private final Layer input;
        private final Layer recurrent;
        private final Layer output;
        private final float[] context = new float[CONTEXT]; // the end of the window before
        private final float[] h = new float[HIDDEN]; // the LSTM's state
        private final float[] c = new float[HIDDEN];

        Network(Checkpoint checkpoint) {
            this.checkpoint = checkpoint;
            stft = new Layer(fetch("stft_conv.weight", 2 * BINS, 1, FFT), null);
            conv = new Layer[] {
                layer("conv1.weight", "conv1.bias", 128, BINS, 3), layer("conv2.weight", "conv2.bias", 64, 128, 3),
                layer("conv3.weight", "conv3.bias", 64, 64, 3), layer("conv4.weight", "conv4.bias", HIDDEN, 64, 3)
            };
            input = layer("lstm_cell.weight_ih", "lstm_cell.bias_ih", 4 * HIDDEN, HIDDEN);
            recurrent = layer("lstm_cell.weight_hh", "lstm_cell.bias_hh", 4 * HIDDEN, HIDDEN);
            output = layer("final_conv.weight", "final_conv.bias", 1, HIDDEN, 1);
        }

        private Layer layer(String weight, String bias, long... shape) {
            return new Layer(fetch(weight, shape), fetch(bias, shape[0]));
        }

        /** A file is somebody's input: dtype and shape are checked before they are relied on. */
        private FloatBuffer fetch(String name, long... shape) {
            Tensor tensor = checkpoint.get(name);
            if (tensor.dtype() != Dtype.F32 || !Arrays.equals(tensor.shape(), shape)) {
                System.err.println("Vad: expected " + name + " to be F32 " + Arrays.toString(shape) + ", the file has " + tensor);
                System.exit(1);
            }
            return tensor.floatBuffer();
        }

        /**
         * Convolution over 3 frames, with a zero frame before and after, then ReLU. x is [frames][in], y is [frames of
         * the result][out].
         */
        private static void convolve(Layer layer, int in, int out, int stride, int frames, float[] x, float[] y) {
            float[] patch = new float[3 * in]; // laid out as a row of the weight: [in][3]
            for (int t = 0, to = 0; t < frames; t += stride, to += out) {
                for (int k = 0; k < 3; k++) {
                    boolean inside = t + k >= 1 && t + k <= frames;
                    for (int i = 0; i < in; i++) {
                        patch[3 * i + k] = inside ? x[(t + k - 1) * in + i] : 0;
                    }
                }
                layer.apply(out, 3 * in, patch, 0, y, to);
                for (int i = 0; i < out; i++) {
                    y[to + i] = Math.max(y[to + i], 0);
                }
            }
        }

        private static float sigmoid(float x) {
            return (float) (1 / (1 + Math.exp(-x)));
        }

        /** The probability that the next 32 ms are speech. */
        float step(float[] window) {
            // The end of the window before, the window, its end mirrored.
            float[] x = new float[CONTEXT + WINDOW + FFT / 4];
            System.arraycopy(context, 0, x, 0, CONTEXT);
            System.arraycopy(window, 0, x, CONTEXT, WINDOW);
            for (int i = 0; i < FFT / 4; i++) {
                x[CONTEXT + WINDOW + i] = x[CONTEXT + WINDOW - 2 - i];
            }
            System.arraycopy(window, WINDOW - CONTEXT, context, 0, CONTEXT);

            // Short-time Fourier transform: real parts, then imaginary; we take magnitudes.
            float[] a = new float[FRAMES * BINS];
            float[] b = new float[FRAMES * BINS];
            float[] spectrum = new float[2 * BINS];
            for (int t = 0; t < FRAMES; t++) {
                stft.apply(2 * BINS, FFT, x, t * HOP, spectrum, 0);
                for (int k = 0; k < BINS; k++) {
                    float re = spectrum[k];
                    float im = spectrum[BINS + k];
                    a[t * BINS + k] = (float) Math.sqrt(re * re + im * im);
                }
            }

            // Encoder: 4 frames of 129 bins become 1 frame of 128 features.
            convolve(conv[0], BINS, 128, 1, 4, a, b);
            convolve(conv[1], 128, 64, 2, 4, b, a);
            convolve(conv[2], 64, 64, 2, 2, a, b);
            convolve(conv[3], 64, HIDDEN, 1, 1, b, a);

            // Decoder: one step of an LSTM (gates in the order i, f, g, o), then a sum.
            float[] gates = new float[4 * HIDDEN];
            float[] more = new float[4 * HIDDEN];
            float[] positive = new float[HIDDEN];
            float[] logit = new float[1];
            input.apply(4 * HIDDEN, HIDDEN, a, 0, gates, 0);
            recurrent.apply(4 * HIDDEN, HIDDEN, h, 0, more, 0);
            for (int k = 0; k < 4 * HIDDEN; k++) {
                gates[k] += more[k];
            }
            for (int k = 0; k < HIDDEN; k++) {
                float in = sigmoid(gates[k]);
                float forget = sigmoid(gates[HIDDEN + k]);
                float cell = (float) Math.tanh(gates[2 * HIDDEN + k]);
                float out = sigmoid(gates[3 * HIDDEN + k]);
                c[k] = forget * c[k] + in * cell;
                h[k] = out * (float) Math.tanh(c[k]);
                positive[k] = Math.max(h[k], 0);
            }
            output.apply(1, HIDDEN, positive, 0, logit, 0);
            return sigmoid(logit[0]);
        }
    }

    // -------------------------------------------------------------- the sound

    private static short[] readWav(File file) throws IOException, UnsupportedAudioFileException {
        try (AudioInputStream in = AudioSystem.getAudioInputStream(file)) {
            AudioFormat format = in.getFormat();
            if (format.getEncoding() != AudioFormat.Encoding.PCM_SIGNED || format.getSampleRate() != SAMPLE_RATE
                    || format.getChannels() != 1 || format.getSampleSizeInBits() != 16) {
                throw new UnsupportedAudioFileException(
                        "not 16 kHz mono 16-bit PCM (sox IN -r 16000 -c 1 -b 16 OUT.wav makes that)");
            }
            ByteOrder order = format.isBigEndian() ? ByteOrder.BIG_ENDIAN : ByteOrder.LITTLE_ENDIAN;
            ShortBuffer samples = ByteBuffer.wrap(in.readAllBytes()).order(order).asShortBuffer();
            short[] all = new short[samples.remaining()];
            samples.get(all);
            return all;
        }
    }

    // ----------------------------------------------------------- the segments

    /** In samples. */
    private record Segment(int start, int end) {}

    /**
     * Probabilities to segments, as get_speech_timestamps() of the silero-vad package does with its defaults: speech
     * begins at 0.5 and ends where it stays below 0.35 for 100 ms; what is not longer than 250 ms is dropped; the rest
     * grows by 30 ms at both ends.
     */
    private static List<Segment> findSegments(float[] p, int samples) {
        int minSilence = SAMPLE_RATE / 10;
        int minSpeech = SAMPLE_RATE / 4;
        int pad = SAMPLE_RATE * 3 / 100;
        List<Segment> found = new ArrayList<>();
        boolean speaking = false;
        boolean fading = false;
        int start = 0;
        int end = 0;
        for (int i = 0; i < p.length; i++) {
            int now = i * WINDOW;
            if (p[i] >= 0.5f) {
                fading = false;
                start = speaking ? start : now;
                speaking = true;
            } else if (speaking && p[i] < 0.35f) {
                end = fading ? end : now;
                fading = true;
                if (now - end >= minSilence) {
                    if (end - start > minSpeech) {
                        found.add(new Segment(start, end));
                    }
                    speaking = false;
                    fading = false;
                }
            }
        }
        if (speaking && samples - start > minSpeech) {
            found.add(new Segment(start, samples));
        }
        // Segments are over 60 ms apart: these can't meet.
        found.replaceAll(one -> new Segment(Math.max(one.start - pad, 0), Math.min(one.end + pad, samples)));
        return found;
    }

    // ------------------------------------------------------------ the picture

    private static final int GRAPH_WIDTH = 72;
    private static final int GRAPH_ROWS = 7;

    private static void draw(float[] p, List<Segment> segments) {
        String[] bars = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
        int width = Math.min(p.length, GRAPH_WIDTH);
        double columnsPerSecond = (double) width / p.length * SAMPLE_RATE / WINDOW;
        float[] level = new float[width]; // mean probability in each column
        for (int column = 0; column < width; column++) {
            int from = column * p.length / width;
            int to = (column + 1) * p.length / width;
            for (int i = from; i < to; i++) {
                level[column] += p[i] / (to - from);
            }
        }
        for (int row = GRAPH_ROWS - 1; row >= 0; row--) {
            boolean threshold = row == GRAPH_ROWS / 2; // 0.5 is the middle of this row
            StringBuilder line = new StringBuilder(row == GRAPH_ROWS - 1 ? "   1.0 ┤" : threshold ? "   0.5 ┤" : "       │");
            for (float value : level) {
                // In eighths; a NaN (weights may hold one) gives 0.
                int fill = Math.max(0, Math.min(8, (int) (8 * (GRAPH_ROWS * value - row) + 0.5f)));
                line.append(fill == 0 && threshold ? "╌" : bars[fill]);
            }
            print("%s%n", line);
        }
        int step = 1; // seconds between marks
        while (step * columnsPerSecond < 8) {
            step *= 2;
        }
        StringBuilder axis = new StringBuilder("   0.0 ┼");
        StringBuilder labels = new StringBuilder();
        StringBuilder speech = new StringBuilder("speech  ");
        for (int column = 0, next = 0; column < width; column++) {
            boolean mark = (int) (next * columnsPerSecond + 0.5) == column;
            axis.append(mark ? "┬" : "─");
            if (mark) {
                labels.append(" ".repeat(Math.max(0, column - labels.length()))).append(next).append(" s");
                next += step;
            }
            long time = (2L * column + 1) * p.length / width * WINDOW / 2; // its middle
            speech.append(segments.stream().anyMatch(one -> one.start <= time && time < one.end) ? "━" : " ");
        }
        print("%s%n        %.72s%n%s%n", axis, labels, speech);
    }

    private static void report(float[] p, int samples, double took) {
        List<Segment> segments = findSegments(p, samples);
        double length = (double) samples / SAMPLE_RATE;
        if (p.length > 0) {
            draw(p, segments);
        }
        print("%n%d segment%s of speech in %.2f s of sound%n", segments.size(), segments.size() == 1 ? "" : "s", length);
        for (Segment one : segments) {
            print("%8.2f s to %.2f s%n", (double) one.start / SAMPLE_RATE, (double) one.end / SAMPLE_RATE);
        }
        print("%d windows in %.1f ms, %.0f x real time%n", p.length, took * 1e3, length / took);
    }

    /** Bars and lines need UTF-8, whatever the locale says. */
    private static final PrintStream OUT = new PrintStream(new FileOutputStream(FileDescriptor.out), true, StandardCharsets.UTF_8);

    private static void print(String format, Object... arguments) {
        OUT.printf(Locale.ROOT, format, arguments);
    }
}
