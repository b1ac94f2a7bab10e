// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.AbstractList;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.RandomAccess;

/**
 * Everything about a checkpoint but its tensors' bytes, in the one block that the shim fills in one crossing: files,
 * metadata, then a row for each tensor, then names and shapes. A {@link Tensor} is made each time it is asked for, reads
 * its row, and is kept by nobody here: a hundred thousand of them, with their names, would be copied by the collector
 * while they are listed, which takes as long as opening does.
 */
final class Records {
    private static final VarHandle INT = MethodHandles.byteArrayViewVarHandle(int[].class, ByteOrder.nativeOrder());
    private static final VarHandle LONG = MethodHandles.byteArrayViewVarHandle(long[].class, ByteOrder.nativeOrder());

    // The fields of a row, as put_row in checkpoint.c has them.
    private static final int OFFSET = 0;
    private static final int SIZE = 8;
    /** Before it there is the shape. */
    private static final int NAME = 16;
    private static final int NAME_LENGTH = 20;
    private static final int RANK = 24;
    private static final int DTYPE = 28;
    private static final int SHARD = 32;
    private static final int SPELLING_LENGTH = 36;
    private static final int MAPPED = 40;
    private static final int ROW = 44;

    private final byte[] block;
    private final List<Shard> shards;
    private final Map<String, String> metadata;
    private final int count;
    private final int rows;
    private final Checkpoint checkpoint;

    Records(byte[] block, Checkpoint checkpoint) {
        this.block = block;
        this.checkpoint = checkpoint;
        ByteBuffer in = ByteBuffer.wrap(block).order(ByteOrder.nativeOrder());
        shards = shards(in);
        metadata = metadata(in);
        count = in.getInt();
        rows = in.position();
    }

    List<Shard> shards() {
        return shards;
    }

    /** Null where there is none, which differs from one without entries. */
    Map<String, String> metadata() {
        return metadata;
    }

    int count() {
        return count;
    }

    Checkpoint checkpoint() {
        return checkpoint;
    }

    List<Tensor> tensors() {
        return new All();
    }

    private final class All extends AbstractList<Tensor> implements RandomAccess {
        @Override
        public Tensor get(int index) {
            return new Tensor(Records.this, Objects.checkIndex(index, count));
        }

        @Override
        public int size() {
            return count;
        }
    }

    // The fields of a tensor.

    String name(int index) {
        return text(number(index, NAME), number(index, NAME_LENGTH));
    }

    Dtype dtype(int index) {
        return Dtype.of(number(index, DTYPE));
    }

    /** Null where Java knows it. The text follows the name. */
    String spelling(int index) {
        int length = number(index, SPELLING_LENGTH);
        return length < 0 ? null : text(number(index, NAME) + number(index, NAME_LENGTH), length);
    }

    Shard shard(int index) {
        return shards.get(number(index, SHARD));
    }

    long offset(int index) {
        return longNumber(index, OFFSET);
    }

    long size(int index) {
        return longNumber(index, SIZE);
    }

    boolean isMapped(int index) {
        return number(index, MAPPED) != 0;
    }

    int rank(int index) {
        return number(index, RANK);
    }

    long[] shape(int index) {
        long[] shape = new long[rank(index)];
        int at = number(index, NAME) - Long.BYTES * shape.length;
        for (int d = 0; d < shape.length; d++) {
            shape[d] = (long) LONG.get(block, at + Long.BYTES * d);
        }
        return shape;
    }

    private int number(int index, int field) {
        return (int) INT.get(block, rows + index * ROW + field);
    }

    private long longNumber(int index, int field) {
        return (long) LONG.get(block, rows + index * ROW + field);
    }

    private String text(int at, int length) {
        return new String(block, at, length, StandardCharsets.UTF_8);
    }

    // What is before the rows.

    private List<Shard> shards(ByteBuffer in) {
        int count = in.getInt();
        List<Shard> found = new ArrayList<>(count);
        for (int i = 0; i < count; i++) {
            found.add(new Shard(text(in), in.getLong(), in.getLong(), in.getLong(), Access.of(in.getInt()), text(in)));
        }
        return Collections.unmodifiableList(found);
    }

    private Map<String, String> metadata(ByteBuffer in) {
        int count = in.getInt();
        if (count < 0) {
            return null;
        }
        Map<String, String> found = new LinkedHashMap<>();
        for (int i = 0; i < count; i++) {
            found.put(text(in), text(in));
        }
        return Collections.unmodifiableMap(found);
    }

    /** Null where C has NULL. */
    private String text(ByteBuffer in) {
        int length = in.getInt();
        if (length < 0) {
            return null;
        }
        String text = text(in.position(), length);
        in.position(in.position() + length);
        return text;
    }
}
