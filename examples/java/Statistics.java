// SPDX-License-Identifier: Apache-2.0

import java.nio.FloatBuffer;
import java.nio.ShortBuffer;
import java.nio.file.Path;
import java.util.DoubleSummaryStatistics;
import java.util.Locale;
import java.util.stream.LongStream;
import org.safetensors.Checkpoint;
import org.safetensors.Dtype;
import org.safetensors.SafetensorsException;
import org.safetensors.Tensor;

/**
 * Maps a checkpoint and computes over its weights: count, minimum, maximum, mean and root mean square of each F32 and
 * BF16 tensor.
 *
 * <pre>java -cp safetensors.jar Statistics.java MODEL</pre>
 *
 * <p>MODEL is a file, an index or a folder. Nothing is loaded: the system brings in the pages that are touched, and may
 * drop them again, so a checkpoint can be larger than memory. A buffer shows 2 GiB at most, so tensors are gone through
 * in windows; that also gives every core one to work on.
 */
public final class Statistics {
    /** Bytes: a multiple of every element size. */
    private static final int WINDOW = 64 << 20;

    public static void main(String[] arguments) {
        if (arguments.length != 1) {
            System.err.println("usage: Statistics MODEL");
            System.exit(2);
        }
        try (Checkpoint checkpoint = Checkpoint.open(Path.of(arguments[0]))) {
            System.out.printf("%12s %12s %12s %12s %12s  tensor%n", "elements", "minimum", "maximum", "mean", "rms");
            for (Tensor tensor : checkpoint.tensors()) {
                if (tensor.dtype() == Dtype.F32 || tensor.dtype() == Dtype.BF16) {
                    print(tensor, sum(tensor));
                }
            }
        } catch (SafetensorsException e) {
            System.err.println("Statistics: " + e.status() + ": " + e.getMessage());
            System.exit(1);
        }
    }

    private static Sums sum(Tensor tensor) {
        return LongStream.range(0, (tensor.size() + WINDOW - 1) / WINDOW).parallel()
                .mapToObj(number -> sum(tensor, number * WINDOW)).reduce(new Sums(), Sums::and);
    }

    /** One window of it, where it lies. */
    private static Sums sum(Tensor tensor, long offset) {
        int length = (int) Math.min(WINDOW, tensor.size() - offset);
        Sums sums = new Sums();
        if (tensor.dtype() == Dtype.F32) {
            FloatBuffer values = tensor.window(offset, length).asFloatBuffer();
            for (int i = 0; i < values.limit(); i++) {
                sums.accept(values.get(i));
            }
        } else {
            ShortBuffer bits = tensor.window(offset, length).asShortBuffer();
            for (int i = 0; i < bits.limit(); i++) {
                sums.accept(Float.intBitsToFloat(bits.get(i) << 16));
            }
        }
        return sums;
    }

    private static final class Sums {
        private final DoubleSummaryStatistics values = new DoubleSummaryStatistics();
        private double squares;

        void accept(float value) {
            values.accept(value);
            squares += (double) value * value;
        }

        Sums and(Sums other) {
            Sums both = new Sums();
            both.values.combine(values);
            both.values.combine(other.values);
            both.squares = squares + other.squares;
            return both;
        }
    }

    private static void print(Tensor tensor, Sums sums) {
        // A tensor prints with its name escaped, as that comes from a file.
        System.out.printf(Locale.ROOT, "%12d %12.5g %12.5g %12.5g %12.5g  %s%n", sums.values.getCount(), sums.values.getMin(),
                sums.values.getMax(), sums.values.getAverage(), Math.sqrt(sums.squares / sums.values.getCount()), tensor);
    }
}
