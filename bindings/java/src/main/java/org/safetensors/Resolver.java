// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.io.IOException;

/** Finds the files of a sharded checkpoint that is read through {@link Source}s. */
@FunctionalInterface
public interface Resolver {
    /**
     * Opens the file or index of this name. Called on the thread that opens, one name after another.
     *
     * @param name the one given to {@code Checkpoint.open}, then each shard's, with the same folder before it
     * @return its bytes; the library closes it
     * @throws IOException if there is none: for a shard that is {@link Status#SHARD}, with this as its cause
     */
    Source open(String name) throws IOException;
}
