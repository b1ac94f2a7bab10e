// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.Objects;

/** One tensor to write: its name, what it holds and where its bytes come from. Immutable. */
public final class TensorSpec {
    private final String name;
    private final Dtype dtype;
    private final long[] shape;
    private final ByteBuffer data;
    private final Tensor source;

    private TensorSpec(String name, Dtype dtype, long[] shape, ByteBuffer data, Tensor source) {
        this.name = Objects.requireNonNull(name, "name");
        this.dtype = Objects.requireNonNull(dtype, "dtype");
        this.shape = shape;
        this.data = data;
        this.source = source;
    }

    /**
     * A tensor whose bytes come later, through a {@link Writer}.
     *
     * @param name its name
     * @param dtype what its elements are
     * @param shape its dimensions, outermost first
     * @return the spec
     */
    public static TensorSpec of(String name, Dtype dtype, long... shape) {
        return new TensorSpec(name, dtype, shape.clone(), null, null);
    }

    /**
     * A tensor of a checkpoint, to be copied from its file. All such tensors of one call are of one checkpoint.
     *
     * @param tensor which
     * @return the spec
     */
    public static TensorSpec of(Tensor tensor) {
        return of(tensor.name(), tensor);
    }

    /**
     * A tensor of a checkpoint under another name.
     *
     * @param name its new name
     * @param tensor which
     * @return the spec
     */
    public static TensorSpec of(String name, Tensor tensor) {
        return new TensorSpec(name, tensor.dtype(), tensor.shape(), null, tensor);
    }

    /**
     * An F32 tensor.
     *
     * @param name its name
     * @param values its elements, in C order; copied
     * @param shape its dimensions, outermost first
     * @return the spec
     */
    public static TensorSpec of(String name, float[] values, long... shape) {
        ByteBuffer bytes = little(values.length, Float.BYTES);
        bytes.asFloatBuffer().put(values);
        return of(name, Dtype.F32, shape).data(bytes);
    }

    /**
     * An F64 tensor.
     *
     * @param name its name
     * @param values its elements, in C order; copied
     * @param shape its dimensions, outermost first
     * @return the spec
     */
    public static TensorSpec of(String name, double[] values, long... shape) {
        ByteBuffer bytes = little(values.length, Double.BYTES);
        bytes.asDoubleBuffer().put(values);
        return of(name, Dtype.F64, shape).data(bytes);
    }

    /**
     * An I32 tensor.
     *
     * @param name its name
     * @param values its elements, in C order; copied
     * @param shape its dimensions, outermost first
     * @return the spec
     */
    public static TensorSpec of(String name, int[] values, long... shape) {
        ByteBuffer bytes = little(values.length, Integer.BYTES);
        bytes.asIntBuffer().put(values);
        return of(name, Dtype.I32, shape).data(bytes);
    }

    /**
     * An I64 tensor.
     *
     * @param name its name
     * @param values its elements, in C order; copied
     * @param shape its dimensions, outermost first
     * @return the spec
     */
    public static TensorSpec of(String name, long[] values, long... shape) {
        ByteBuffer bytes = little(values.length, Long.BYTES);
        bytes.asLongBuffer().put(values);
        return of(name, Dtype.I64, shape).data(bytes);
    }

    private static ByteBuffer little(int count, int width) {
        return ByteBuffer.allocateDirect(Math.multiplyExact(count, width)).order(ByteOrder.LITTLE_ENDIAN);
    }

    /**
     * The same with its bytes.
     *
     * @param data little-endian, what is between its position and its limit now; read when the tensor is written, so it
     *     must not change until then. A direct one is not copied
     * @return the spec
     */
    public TensorSpec data(ByteBuffer data) {
        return new TensorSpec(name, dtype, shape, data.slice(), null);
    }

    /** {@return its name} */
    public String name() {
        return name;
    }

    /** {@return what its elements are} */
    public Dtype dtype() {
        return dtype;
    }

    /** {@return its dimensions: a copy} */
    public long[] shape() {
        return shape.clone();
    }

    /** Where its bytes are, or null. */
    Memory memory() {
        return data == null ? null : Memory.readable(data);
    }

    /** The checkpoint's tensor that it copies, or null. */
    Tensor source() {
        return source;
    }

    @Override
    public String toString() {
        return Text.quoted(name) + " " + dtype + " " + Arrays.toString(shape);
    }
}
