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
 * What the Java binding costs, in the same units as bench.c beside it: opening and listing 100,000 tensors, one lookup
 * among them, and loading 1 GiB from the page cache. Medians.
 *
 * <pre>java -cp safetensors.jar Bench.java FOLDER [make]</pre>
 */
public final class Bench {
    private static final int ROUNDS = 15;
    private static final int LOADS = 7;
    private static final int TENSORS = 100_000;
    private static final int LARGE = 64 << 20;

    public static void main(String[] arguments) throws Exception {
        Path many = Path.of(arguments[0], "many.safetensors");
        Path large = Path.of(arguments[0], "large.safetensors");
        if (arguments.length > 1) {
            make(many, large);
            return;
        }
        double open = openAndList(many);
        double lookup = lookup(many);
        double load = load(large);
        System.out.printf(Locale.ROOT, "Java: open and list %6.1f ms, lookup %5.0f ns, load 1 GiB %6.1f ms%n", open / 1e6, lookup, load / 1e6);
    }

    private static void make(Path many, Path large) throws Exception {
        List<TensorSpec> specs = new ArrayList<>();
        for (int i = 0; i < TENSORS; i++) {
            specs.add(TensorSpec.of("model.layers." + i / 9 + ".mlp.experts." + i % 9 + ".down_proj.weight", Dtype.U8, 1, 1)
                    .data(ByteBuffer.allocateDirect(1)));
        }
        Safetensors.save(many, specs);
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

    private static double openAndList(Path many) {
        double[] took = new double[ROUNDS];
        long bytes = 0;
        for (int round = 0; round < ROUNDS; round++) {
            long began = System.nanoTime();
            try (Checkpoint checkpoint = Checkpoint.open(many)) {
                for (Tensor tensor : checkpoint.tensors()) {
                    bytes += tensor.size();
                }
            }
            took[round] = System.nanoTime() - began;
        }
        check(bytes == (long) ROUNDS * TENSORS);
        return median(took);
    }

    private static double lookup(Path many) {
        try (Checkpoint checkpoint = Checkpoint.open(many)) {
            List<String> names = new ArrayList<>();
            checkpoint.tensors().forEach(tensor -> names.add(tensor.name()));
            Collections.shuffle(names, new Random(2));
            double[] took = new double[ROUNDS];
            long bytes = 0;
            for (int round = 0; round < ROUNDS; round++) {
                // New strings each time, as one that has been looked up keeps its hash.
                String[] fresh = names.stream().map(name -> new String(name.toCharArray())).toArray(String[]::new);
                long began = System.nanoTime();
                for (String name : fresh) {
                    bytes += checkpoint.get(name).size();
                }
                took[round] = (System.nanoTime() - began) / (double) TENSORS;
            }
            check(bytes == (long) ROUNDS * TENSORS);
            return median(took);
        }
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
