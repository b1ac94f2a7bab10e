// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.nio.ByteBuffer;
import java.util.concurrent.atomic.AtomicInteger;

/** A source over an array, which counts what is called. */
class ArraySource implements Source {
    final AtomicInteger reads = new AtomicInteger();
    final AtomicInteger closed = new AtomicInteger();
    private final byte[] bytes;
    private final int most;

    ArraySource(byte[] bytes) {
        this(bytes, Integer.MAX_VALUE);
    }

    /** Never gives more than a few bytes at a time. */
    ArraySource(byte[] bytes, int most) {
        this.bytes = bytes;
        this.most = most;
    }

    @Override
    public long size() {
        return bytes.length;
    }

    @Override
    public int readAt(long offset, ByteBuffer dst) {
        reads.incrementAndGet();
        int count = Math.min(most, dst.remaining());
        dst.put(bytes, (int) offset, count);
        return count;
    }

    @Override
    public void close() {
        closed.incrementAndGet();
    }
}
