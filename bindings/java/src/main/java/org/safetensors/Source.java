// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.io.IOException;
import java.nio.ByteBuffer;

/**
 * Your own bytes: HTTP, object stores, archives.
 *
 * <p>What a method throws comes out of the call that needed the bytes: an unchecked exception as it is, an
 * {@link IOException} as the cause of a {@link SafetensorsException} with {@link Status#IO}.
 */
public interface Source extends AutoCloseable {
    /** {@return bytes in the file; asked for once, at opening} */
    long size();

    /**
     * Reads bytes into {@code dst}, from its position on. May be called by several threads at once, also by threads of
     * the library.
     *
     * @param offset the first byte to read, from the start of the file
     * @param dst direct, with room for as many bytes as are wanted; it belongs to the library and is used again after
     *     the call
     * @return how many bytes were read: fewer than wanted is fine, none is an error
     * @throws IOException whatever kept it from reading
     */
    int readAt(long offset, ByteBuffer dst) throws IOException;

    /** {@return the request size that suits it best, in bytes; 0: no preference} */
    default long preferredRead() {
        return 0;
    }

    /** {@return how many reads may be under way at once; 0: any number} */
    default int maxParallel() {
        return 0;
    }

    /**
     * Called once, when nothing more will be read: by {@code Checkpoint.close}, or when opening has failed.
     *
     * @throws IOException which {@code Checkpoint.close} throws as the cause of a {@link SafetensorsException}
     */
    @Override
    default void close() throws IOException {}
}
