// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.nio.ByteBuffer;

/**
 * Takes what a load reads, piece by piece, from staging buffers that are filled in turn: to copy to a device, or into a
 * channel. Both methods run on the thread that called {@code load}. What they throw ends the load, which then throws
 * just that.
 */
@FunctionalInterface
public interface Sink {
    /**
     * Takes a piece. May start an asynchronous copy of it and return.
     *
     * @param data the piece: read-only, little-endian, in the staging buffer
     * @param buffer which staging buffer it is in
     * @param item the number of its item in the list that was given
     * @param offset where the piece belongs: bytes from the start of the item's result
     */
    void chunk(ByteBuffer data, int buffer, int item, long offset);

    /**
     * Returns when the copy out of a staging buffer is over: called once for each {@code chunk}, before the buffer is
     * filled again or {@code load} returns, also when the load failed. The default is for a {@code chunk} that is done
     * with the buffer when it returns.
     *
     * @param buffer which
     */
    default void await(int buffer) {}
}
