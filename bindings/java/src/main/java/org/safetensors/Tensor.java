// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.DoubleBuffer;
import java.nio.FloatBuffer;
import java.nio.IntBuffer;
import java.nio.LongBuffer;
import java.nio.ShortBuffer;
import java.util.Arrays;
import java.util.Objects;

/**
 * One tensor of a checkpoint: its name, what it holds and where its bytes are. What it says stays after the checkpoint
 * is closed; its bytes can be asked for until then. It is a value: two are equal where they are the same tensor of the
 * same checkpoint.
 *
 * <p><b>Views</b> are read-only, little-endian direct buffers over the mapped file (or over memory, where nothing is
 * mapped: {@link Access#READ}); nothing is copied. A view stays valid after the checkpoint is closed, for as long as it
 * or anything made from it is reachable. Making one costs about a microsecond: keep it instead of asking again.
 * {@link ByteBuffer#slice()} and {@link ByteBuffer#duplicate()} of a view are big-endian, as always in Java, until their
 * {@code order} is set. If somebody cuts a mapped file short, touching the lost bytes makes the JVM throw an
 * {@link InternalError} at some later point of that thread, and ends the process if native code touches them; where
 * files are not under your control, use {@link Access#READ}.
 *
 * <p><b>Copies</b> ({@link #read}, {@link #readSlice}, {@link Checkpoint#load}) read the file, never the mapping: a file
 * cut short or a failing disk is an exception.
 */
public final class Tensor {
    private static final ByteBuffer EMPTY = ByteBuffer.allocateDirect(0).asReadOnlyBuffer();

    private final Records records;
    private final int index;
    /** Read from the records when it is first asked for. */
    private String name;

    Tensor(Records records, int index) {
        this.records = records;
        this.index = index;
    }

    /** {@return its name; may hold any character, NUL too} */
    public String name() {
        String known = name;
        if (known == null) {
            known = records.name(index);
            name = known;
        }
        return known;
    }

    /** {@return what its elements are} */
    public Dtype dtype() {
        return records.dtype(index);
    }

    /** {@return the dtype as the file spells it, which tells where {@link #dtype()} is {@link Dtype#UNKNOWN} or
     * {@link Dtype#UNRECOGNIZED}} */
    public String dtypeName() {
        String spelling = records.spelling(index);
        return spelling == null ? dtype().name() : spelling;
    }

    /** {@return its dimensions in elements, outermost first: a copy; without any it is a scalar of one element} */
    public long[] shape() {
        return records.shape(index);
    }

    /** {@return the number of dimensions} */
    public int rank() {
        return records.rank(index);
    }

    /** {@return the product of the shape} */
    public long elementCount() {
        long elements = 1;
        for (long dimension : records.shape(index)) {
            elements *= dimension;
        }
        return elements;
    }

    /** {@return the file it is in} */
    public Shard shard() {
        return records.shard(index);
    }

    /** {@return where its bytes begin, from the start of its shard's file} */
    public long offset() {
        return records.offset(index);
    }

    /** {@return its bytes} */
    public long size() {
        return records.size(index);
    }

    /** {@return whether its bytes are in memory already, mapped or given; if not, the first view reads them} */
    public boolean isMapped() {
        return records.isMapped(index);
    }

    /** {@return the checkpoint it is of} */
    public Checkpoint checkpoint() {
        return records.checkpoint();
    }

    /**
     * A view of the whole tensor.
     *
     * @return a read-only, little-endian direct buffer
     * @throws SafetensorsException with {@link Status#UNSUPPORTED} over 2 GiB, where there are {@link #window} and
     *     {@link #segment}; with {@link Status#IO} where the bytes have to be read and can't be
     */
    public ByteBuffer buffer() {
        long size = size();
        if (size > Integer.MAX_VALUE) {
            throw unsupported("has " + size + " bytes, over the 2147483647 that a ByteBuffer can show: use window()"
                    + " or segment()");
        }
        return window(0, (int) size);
    }

    /**
     * A view of a part.
     *
     * @param offset its first byte, from the start of the tensor
     * @param length its bytes
     * @return a read-only, little-endian direct buffer
     * @throws IndexOutOfBoundsException where that is not inside the tensor
     */
    public ByteBuffer window(long offset, int length) {
        Objects.checkFromIndexSize(offset, length, size());
        ByteBuffer view = length == 0
                ? checkpoint().use(pointer -> EMPTY)
                : checkpoint().view(this, (address, share) -> Memory.owned(address + offset, length, share));
        return view.asReadOnlyBuffer().order(ByteOrder.LITTLE_ENDIAN);
    }

    /**
     * A view of an F32 tensor. Where its bytes don't begin at a multiple of 4 (the format does not promise it), Java
     * reads them all the same.
     *
     * @return a read-only direct buffer
     * @throws SafetensorsException with {@link Status#UNSUPPORTED} for another dtype, or over 2 GiB
     */
    public FloatBuffer floatBuffer() {
        require(Dtype.F32);
        return buffer().asFloatBuffer();
    }

    /**
     * A view of an F64 tensor, as {@link #floatBuffer()}.
     *
     * @return a read-only direct buffer
     */
    public DoubleBuffer doubleBuffer() {
        require(Dtype.F64);
        return buffer().asDoubleBuffer();
    }

    /**
     * A view of an I64 or U64 tensor, as {@link #floatBuffer()}.
     *
     * @return a read-only direct buffer
     */
    public LongBuffer longBuffer() {
        require(Dtype.I64, Dtype.U64);
        return buffer().asLongBuffer();
    }

    /**
     * A view of an I32 or U32 tensor, as {@link #floatBuffer()}.
     *
     * @return a read-only direct buffer
     */
    public IntBuffer intBuffer() {
        require(Dtype.I32, Dtype.U32);
        return buffer().asIntBuffer();
    }

    /**
     * A view of an I16, U16, F16 or BF16 tensor, as {@link #floatBuffer()}. A BF16's value is
     * {@code Float.intBitsToFloat(bits << 16)}.
     *
     * @return a read-only direct buffer
     */
    public ShortBuffer shortBuffer() {
        require(Dtype.I16, Dtype.U16, Dtype.F16, Dtype.BF16);
        return buffer().asShortBuffer();
    }

    /**
     * A view of the whole tensor, of any size, as a {@code java.lang.foreign.MemorySegment}: read-only, usable by all
     * threads, valid for as long as it is reachable. On Java 22 or newer:
     *
     * <pre>{@code MemorySegment weights = tensor.segment(MemorySegment.class);}</pre>
     *
     * @param type {@code MemorySegment.class}, which Java 17 has no name for
     * @param <S> {@code MemorySegment}
     * @return the segment
     * @throws UnsupportedOperationException on an older Java
     */
    public <S> S segment(Class<S> type) {
        return Segments.of(type, this);
    }

    /**
     * Copies all bytes to {@code dst}, from its position on; neither position nor limit moves. Goes by way of direct
     * memory if {@code dst} is not direct.
     *
     * @param dst with room for at least {@link #size()} bytes
     * @throws SafetensorsException with {@link Status#BUFFER_SIZE} or {@link Status#IO}
     */
    public void read(ByteBuffer dst) {
        checkpoint().use(size(), pointer -> {
            Memory.fill(dst, size(), (address, room) -> Native.read(pointer, index, address, room));
            return null;
        });
    }

    /**
     * Copies what the ranges pick to {@code dst}, dense, in C order; otherwise as {@link #read}.
     *
     * @param dst with room for {@link #sliceSize} bytes
     * @param ranges from the outermost dimension on; dimensions without one are taken whole
     * @throws SafetensorsException with {@link Status#INVALID_ARGUMENT} where a range leaves its dimension, else as
     *     {@link #read}
     */
    public void readSlice(ByteBuffer dst, Range... ranges) {
        long[] flat = flat(ranges);
        checkpoint().use(size(), pointer -> {
            long[] slice = Native.sliceShape(pointer, index, flat);
            long needed = slice[slice.length - 1];
            Memory.fill(dst, needed, (address, room) -> Native.readSlice(pointer, index, flat, address, room));
            return null;
        });
    }

    /**
     * The shape of what {@link #readSlice} gives. No I/O.
     *
     * @param ranges as for {@link #readSlice}
     * @return sizes in elements
     */
    public long[] sliceShape(Range... ranges) {
        long[] slice = slice(ranges);
        return Arrays.copyOf(slice, slice.length - 1);
    }

    /**
     * The bytes of what {@link #readSlice} gives. No I/O.
     *
     * @param ranges as for {@link #readSlice}
     * @return their number
     */
    public long sliceSize(Range... ranges) {
        long[] slice = slice(ranges);
        return slice[slice.length - 1];
    }

    private long[] slice(Range... ranges) {
        long[] flat = flat(ranges);
        return checkpoint().use(pointer -> Native.sliceShape(pointer, index, flat));
    }

    private static long[] flat(Range... ranges) {
        long[] flat = new long[ranges.length * 3];
        for (int i = 0; i < ranges.length; i++) {
            flat[3 * i] = ranges[i].start();
            flat[3 * i + 1] = ranges[i].stop();
            flat[3 * i + 2] = ranges[i].step();
        }
        return flat;
    }

    private void require(Dtype... wanted) {
        for (Dtype one : wanted) {
            if (dtype() == one) {
                return;
            }
        }
        throw unsupported("is " + dtypeName() + " and not " + String.join(" or ", Arrays.stream(wanted).map(Dtype::name).toList()));
    }

    private SafetensorsException unsupported(String text) {
        return new SafetensorsException(Status.UNSUPPORTED, "tensor " + Text.quoted(name()) + " " + text);
    }

    /** Its number among the checkpoint's. */
    int index() {
        return index;
    }

    /** Its number, for a call to the checkpoint that it has to be of. */
    int indexIn(Checkpoint wanted) {
        if (checkpoint() != wanted) {
            throw new IllegalArgumentException("tensor " + Text.quoted(name()) + " is of another checkpoint");
        }
        return index;
    }

    /** {@return whether it is the same tensor of the same checkpoint: each time one is asked for, it is another object} */
    @Override
    public boolean equals(Object other) {
        return other instanceof Tensor tensor && tensor.records == records && tensor.index == index;
    }

    @Override
    public int hashCode() {
        return 31 * System.identityHashCode(records) + index;
    }

    @Override
    public String toString() {
        return Text.quoted(name()) + " " + Text.quoted(dtypeName()).replace("\"", "") + " " + Arrays.toString(shape());
    }
}
