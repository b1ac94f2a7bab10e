// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.lang.ref.Reference;
import java.nio.ByteBuffer;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * Who owns a native checkpoint: the Java object until it is closed, and each view until it is collected. With the last
 * of them the native one goes, and with it its mappings and descriptors.
 */
final class Ownership {
    /**
     * So many closed checkpoints may wait for their views to be collected. They take no heap, so nothing would make the
     * collector run before the process is out of descriptors, of which it may have 1024.
     */
    private static final int MOST = 512;

    private static final AtomicInteger WAITING = new AtomicInteger();
    private static volatile int limit = MOST;

    private final long pointer;
    /** What the checkpoint was opened from, if that was memory. */
    private final ByteBuffer memory;
    private final AtomicInteger owners = new AtomicInteger(1);

    Ownership(long pointer, ByteBuffer memory) {
        this.pointer = pointer;
        this.memory = memory;
    }

    /** Called before a checkpoint is opened: where too many wait, the collector has to look at them. */
    static void makeRoom() {
        if (WAITING.get() >= limit) {
            System.gc();
            // Those whose views are in use stay, and are no reason to collect again each time.
            limit = Math.max(MOST, 2 * WAITING.get());
        }
    }

    /** The closing of the Java object. */
    void close() {
        if (owners.decrementAndGet() > 0) {
            WAITING.incrementAndGet();
        }
        free();
    }

    /** A view's share, taken while the checkpoint is open; to be given up by the result. */
    Runnable share() {
        owners.incrementAndGet();
        Native.retain(pointer);
        return this::giveUp;
    }

    private void giveUp() {
        if (owners.decrementAndGet() == 0) {
            WAITING.decrementAndGet();
        }
        free();
    }

    private void free() {
        Native.free(pointer);
        Reference.reachabilityFence(memory);
    }
}
