// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.lang.ref.Reference;
import java.util.BitSet;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * Who owns a native checkpoint: the Java object until it is closed, and each view until it is collected. With the last
 * of them the native one goes, and with it its mappings, descriptors and memory, which are counted here.
 */
final class Ownership {
    private final long pointer;
    /** What the checkpoint was opened from, if that was memory. */
    private final Memory memory;
    private final AtomicInteger owners = new AtomicInteger(1);
    private int descriptors;
    private int mappings;
    private long bytes;
    /** Tensors that were read into memory of the checkpoint. */
    private final BitSet loaded = new BitSet();

    Ownership(long pointer, Memory memory) {
        this.pointer = pointer;
        this.memory = memory;
    }

    /** Counts what these files and their records hold: called once, before there is a view. */
    void holds(List<Shard> shards, long records) {
        bytes = 2 * records;
        Scarce.BYTES.take(bytes);
        // Of more files than a quarter of what may be open, none is kept open.
        boolean open = shards.size() <= Native.descriptorLimit() / 4;
        for (Shard shard : shards) {
            descriptors += open && (shard.access() == Access.MAP || shard.access() == Access.READ) ? 1 : 0;
            mappings += shard.access() == Access.MAP ? 1 : 0;
        }
        Scarce.DESCRIPTORS.take(descriptors);
        Scarce.MAPPINGS.take(mappings);
    }

    /** Counts a tensor that was read for a view. */
    void holds(int tensor, long size) {
        synchronized (loaded) {
            if (loaded.get(tensor)) {
                return;
            }
            loaded.set(tensor);
            bytes += size;
        }
        Scarce.BYTES.take(size);
    }

    /** The closing of the Java object. */
    void close() {
        giveUp();
    }

    /** A view's share, taken while the checkpoint is open; to be given up by the result. */
    Runnable share() {
        owners.incrementAndGet();
        Native.retain(pointer);
        return this::giveUp;
    }

    private void giveUp() {
        boolean last = owners.decrementAndGet() == 0;
        Native.free(pointer);
        if (last) {
            Scarce.DESCRIPTORS.giveBack(descriptors);
            Scarce.MAPPINGS.giveBack(mappings);
            synchronized (loaded) {
                Scarce.BYTES.giveBack(bytes);
            }
            if (memory != null) {
                memory.free();
            }
        }
        Reference.reachabilityFence(memory);
    }
}
