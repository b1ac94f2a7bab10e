// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.nio.ByteBuffer;
import java.util.List;
import java.util.Objects;

/**
 * One thing to load: a tensor or a part of it, as stored or converted, and where it goes. Immutable: each method returns
 * a new one.
 */
public final class LoadItem {
    private final Tensor tensor;
    private final ByteBuffer dst;
    private final Range[] ranges;
    private final Dtype dtype;
    private final long[] strides;

    private LoadItem(Tensor tensor, ByteBuffer dst, Range[] ranges, Dtype dtype, long[] strides) {
        this.tensor = Objects.requireNonNull(tensor, "tensor");
        this.dst = dst;
        this.ranges = ranges;
        this.dtype = dtype;
        this.strides = strides;
    }

    /**
     * A tensor, and where it goes.
     *
     * @param tensor which
     * @param dst direct and writable; filled from its present position on, and neither position nor limit moves
     * @return the item
     */
    public static LoadItem of(Tensor tensor, ByteBuffer dst) {
        return new LoadItem(tensor, Memory.writable(dst).owner().slice(), new Range[0], null, new long[0]);
    }

    /**
     * A tensor that goes to the load's {@link Sink}.
     *
     * @param tensor which
     * @return the item
     */
    public static LoadItem of(Tensor tensor) {
        return new LoadItem(tensor, null, new Range[0], null, new long[0]);
    }

    /**
     * The same of a part of the tensor.
     *
     * @param ranges from the outermost dimension on; dimensions without one are taken whole
     * @return the item
     */
    public LoadItem ranges(Range... ranges) {
        return new LoadItem(tensor, dst, ranges.clone(), dtype, strides);
    }

    /**
     * The same, converted: to the dtypes that {@link Safetensors#convert} knows.
     *
     * @param dtype what to convert to
     * @return the item
     */
    public LoadItem dtype(Dtype dtype) {
        return new LoadItem(tensor, dst, ranges, Objects.requireNonNull(dtype, "dtype"), strides);
    }

    /**
     * The same, spread out in the destination.
     *
     * @param strides bytes from one element of the result to the next, for each dimension, in any order of sizes
     * @return the item
     */
    public LoadItem strides(long... strides) {
        if (strides.length != tensor.rank()) {
            throw new IllegalArgumentException(strides.length + " strides for " + tensor.rank() + " dimensions");
        }
        return new LoadItem(tensor, dst, ranges, dtype, strides.clone());
    }

    /** {@return the tensor} */
    public Tensor tensor() {
        return tensor;
    }

    /** Where the results go; with null where a sink takes them. */
    static List<ByteBuffer> destinations(List<LoadItem> items) {
        return items.stream().map(item -> item.dst).toList();
    }

    static long[] packed(List<LoadItem> items, Checkpoint checkpoint) {
        Packer packer = new Packer();
        for (LoadItem item : items) {
            packer.put(item.tensor.indexIn(checkpoint)).put(item.dtype == null ? 0 : item.dtype.number());
            Memory memory = item.dst == null ? new Memory(0, 0, null) : Memory.writable(item.dst);
            packer.put(memory.address()).put(memory.size()).put(item.ranges).put(item.strides);
        }
        return packer.words();
    }
}
