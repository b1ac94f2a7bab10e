// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

/** Where a shard's bytes come from. The first three can be asked for in {@link OpenOptions#access(Access)}. */
public enum Access {
    /** Map on file systems known to be local, read elsewhere. */
    AUTO,
    /** Zero-copy: views lead into the mapped file. */
    MAP,
    /**
     * Nothing is mapped: a failing disk is an exception, never a fault. A tensor's first view reads it into memory of
     * the checkpoint.
     */
    READ,
    /** In {@link Shard#access()} only: memory that was given to {@code Checkpoint.open}. */
    MEMORY,
    /** In {@link Shard#access()} only: a {@link Source}. */
    CALLBACK,
    /** In {@link Shard#access()} only: something that a newer native library knows and this jar does not. */
    UNRECOGNIZED;

    private static final Access[] BY_NUMBER = values();

    /** The constants stand in the order of C's numbers, from 0 on. */
    int number() {
        return ordinal();
    }

    static Access of(int number) {
        return number >= 0 && number < UNRECOGNIZED.ordinal() ? BY_NUMBER[number] : UNRECOGNIZED;
    }
}
