// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.lang.ref.Cleaner;
import java.lang.ref.Reference;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.ReadOnlyBufferException;
import java.util.List;

/**
 * Memory as native code sees it, and the buffer that keeps it alive: who hands the address over calls {@link #keep()}
 * after the call.
 */
record Memory(long address, long size, ByteBuffer owner, boolean isCopy) {
    /** Releases what is no longer reachable. */
    static final Cleaner CLEANER = Cleaner.create();

    Memory(long address, long size, ByteBuffer owner) {
        this(address, size, owner, false);
    }

    /** What is between a direct buffer's position and its limit. */
    static Memory of(ByteBuffer buffer) {
        if (!buffer.isDirect()) {
            throw new IllegalArgumentException("the buffer is not direct: ByteBuffer.allocateDirect makes one that is");
        }
        if (buffer.hasRemaining()) {
            // Throws where the memory belongs to an arena that is closed, or confined to another thread.
            buffer.get(buffer.position());
        }
        return new Memory(Native.address(buffer) + buffer.position(), buffer.remaining(), buffer);
    }

    /** The same to be written to. */
    static Memory writable(ByteBuffer buffer) {
        if (buffer.isReadOnly()) {
            throw new ReadOnlyBufferException();
        }
        return of(buffer);
    }

    /** What is between any buffer's position and its limit, copied if it is not direct. */
    static Memory readable(ByteBuffer buffer) {
        return of(buffer.isDirect() ? buffer : ByteBuffer.allocateDirect(buffer.remaining()).put(buffer.duplicate()).flip());
    }

    /** The same in memory that somebody has to {@link #free}, if it is not direct. */
    static Memory readableUntilFreed(ByteBuffer buffer) {
        if (buffer.isDirect()) {
            return of(buffer);
        }
        int size = buffer.remaining();
        Scarce.BYTES.take(size);
        try {
            long address = Scarce.retrying(() -> Native.allocate(size));
            Native.buffer(address, size).put(buffer.duplicate());
            return new Memory(address, size, null, true);
        } catch (Throwable thrown) {
            Scarce.BYTES.giveBack(size);
            throw thrown;
        }
    }

    /** Releases a copy; once. */
    void free() {
        if (isCopy) {
            Native.release(address);
            Scarce.BYTES.giveBack(size);
        }
    }

    void keep() {
        Reference.reachabilityFence(owner);
    }

    /** A native call that fills memory. */
    interface Fill {
        void into(long address, long size);
    }

    /** Fills any buffer from its position on, by way of direct memory if it is not direct itself. */
    static void fill(ByteBuffer buffer, long needed, Fill fill) {
        if (buffer.isDirect()) {
            Memory memory = writable(buffer);
            Segments.holding(List.of(buffer), () -> fill.into(memory.address, memory.size));
            memory.keep();
            return;
        }
        if (buffer.isReadOnly()) {
            throw new ReadOnlyBufferException();
        }
        ByteBuffer direct = ByteBuffer.allocateDirect((int) Math.min(needed, buffer.remaining()));
        fill(direct, needed, fill);
        buffer.duplicate().put(direct);
    }

    /**
     * A buffer over native memory that lives until neither it nor any buffer made from it is reachable, and is then
     * released: a slice, a duplicate or a FloatBuffer of a direct buffer keeps the one it was made from.
     */
    static ByteBuffer owned(long address, int size, Runnable release) {
        try {
            ByteBuffer buffer = Native.buffer(address, size);
            CLEANER.register(buffer, release);
            return buffer.order(ByteOrder.LITTLE_ENDIAN);
        } catch (Throwable thrown) {
            release.run();
            throw thrown;
        }
    }
}
