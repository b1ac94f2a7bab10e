// SPDX-License-Identifier: Apache-2.0

import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Locale;
import java.util.Random;
import org.safetensors.Checkpoint;
import org.safetensors.Dtype;
import org.safetensors.LoadItem;
import org.safetensors.Safetensors;
import org.safetensors.SaveOptions;
import org.safetensors.Tensor;
import org.safetensors.TensorSpec;
import org.safetensors.Writer;

/**
 * What the Java binding costs, in the same units as bench.c beside it: opening and listing 300 and 100,000 tensors,
 * looking up each name once after opening (with strings of its own, and with whatever map is made on the way), the first
 * lookup alone, lookups later on, and loading 1 GiB from the page cache. Medians.
 *
 * <pre>java -cp safetensors.jar Bench.java FOLDER [make]</pre>
 */
public final class Bench {
    private static final int[] COUNTS = {300, 100_000};
    private static final int LOADS = 7;
    private static final int LARGE = 64 << 20;

    public static void main(String[] arguments) throws Exception {
        Path large = Path.of(arguments[0], "large.safetensors");
        if (arguments.length > 1) {
            for (int count : COUNTS) {
                make(Path.of(arguments[0], count + ".safetensors"), count);
            }
            makeLarge(large);
            return;
        }
        for (int count : COUNTS) {
            Path path = Path.of(arguments[0], count + ".safetensors");
            double open = openAndList(path, count);
            double[] lookups = lookups(path, count);
            System.out.printf(Locale.ROOT, "Java: %6d tensors: open and list %8.3f ms, first lookup %8.1f us,"
                    + " each name once %5.0f ns, again %5.0f ns%n", count, open / 1e6, lookups[0] / 1e3, lookups[1], lookups[2]);
        }
        System.out.printf(Locale.ROOT, "Java: load 1 GiB %6.1f ms%n", load(large) / 1e6);
    }

    private static int rounds(int count) {
        return count < 1000 ? 501 : 15;
    }

    private static void make(Path path, int count) {
        List<TensorSpec> specs = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            specs.add(TensorSpec.of("model.layers." + i / 9 + ".mlp.experts." + i % 9 + ".down_proj.weight", Dtype.U8, 1, 1)
                    .data(ByteBuffer.allocateDirect(1)));
        }
        Safetensors.save(path, specs, null, new SaveOptions().sync(false));
    }

    private static void makeLarge(Path large) {
        List<TensorSpec> parts = new ArrayList<>();
        for (int i = 0; i < 16; i++) {
            parts.add(TensorSpec.of("layer." + i, Dtype.BF16, LARGE / 2));
        }
        ByteBuffer data = ByteBuffer.allocateDirect(LARGE);
        byte[] noise = new byte[LARGE];
        new Random(1).nextBytes(noise);
        data.put(noise).flip();
        try (Writer writer = Writer.open(large, parts, null, new SaveOptions().sync(false))) {
            for (int i = 0; i < parts.size(); i++) {
                writer.write(i, 0, data);
            }
            writer.finish();
        }
    }

    private static double openAndList(Path path, int count) {
        double[] took = new double[rounds(count)];
        long bytes = 0;
        for (int round = 0; round < took.length; round++) {
            long began = System.nanoTime();
            try (Checkpoint checkpoint = Checkpoint.open(path)) {
                for (Tensor tensor : checkpoint.tensors()) {
                    bytes += tensor.size() + tensor.name().length() + tensor.rank();
                }
            }
            took[round] = System.nanoTime() - began;
        }
        check(bytes > (long) took.length * count);
        return median(took);
    }

    /** The first lookup after opening; each name once, the first among them, per lookup; the same again. */
    private static double[] lookups(Path path, int count) {
        List<String> names = new ArrayList<>();
        try (Checkpoint checkpoint = Checkpoint.open(path)) {
            checkpoint.tensors().forEach(tensor -> names.add(tensor.name()));
        }
        Collections.shuffle(names, new Random(2));
        double[][] took = new double[3][rounds(count)];
        long bytes = 0;
        for (int round = 0; round < took[0].length; round++) {
            try (Checkpoint checkpoint = Checkpoint.open(path)) {
                String[] own = fresh(names);
                long began = System.nanoTime();
                bytes += checkpoint.get(own[0]).size();
                took[0][round] = System.nanoTime() - began;
                for (int i = 1; i < count; i++) {
                    bytes += checkpoint.get(own[i]).size();
                }
                took[1][round] = (System.nanoTime() - began) / (double) count;
                own = fresh(names);
                began = System.nanoTime();
                for (String name : own) {
                    bytes += checkpoint.get(name).size();
                }
                took[2][round] = (System.nanoTime() - began) / (double) count;
            }
        }
        check(bytes == 2L * took[0].length * count);
        return Arrays.stream(took).mapToDouble(Bench::median).toArray();
    }

    /** New strings, as one that has been looked up keeps its hash. */
    private static String[] fresh(List<String> names) {
        return names.stream().map(name -> new String(name.toCharArray())).toArray(String[]::new);
    }

    private static double load(Path large) {
        try (Checkpoint checkpoint = Checkpoint.open(large)) {
            List<LoadItem> items = new ArrayList<>();
            for (Tensor tensor : checkpoint.tensors()) {
                items.add(LoadItem.of(tensor, Safetensors.allocate(LARGE)));
            }
            double[] took = new double[LOADS];
            checkpoint.load(items); // the page cache and the memory, once
            for (int round = 0; round < LOADS; round++) {
                long began = System.nanoTime();
                checkpoint.load(items);
                took[round] = System.nanoTime() - began;
            }
            return median(took);
        }
    }

    private static void check(boolean holds) {
        if (!holds) {
            throw new AssertionError();
        }
    }

    private static double median(double[] values) {
        Arrays.sort(values);
        return values[values.length / 2];
    }
}
