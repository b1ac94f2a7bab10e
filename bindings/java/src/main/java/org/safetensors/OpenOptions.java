// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.util.Objects;

/**
 * How to open. A new one is all defaults; each method changes it and returns it. Limits hold for each file by itself, but for
 * {@link #maxSetBytes}.
 */
public final class OpenOptions {
    /** Reading ahead at opening. */
    public enum Prefetch {
        /** Nothing. */
        NONE,
        /** Tell the system to read ahead, and don't wait. */
        ADVISE,
        /** Mapped files are in memory when opening returns; as {@link #ADVISE} for others. */
        POPULATE
    }

    private Access access = Access.AUTO;
    private Prefetch prefetch = Prefetch.NONE;
    private boolean trailingBytes;
    private boolean unknownDtypes;
    private long maxHeaderSize;
    private long maxTensors;
    private long maxRank;
    private long maxNameLength;
    private long maxSetBytes;
    private byte[] variant = {};

    /** All defaults. */
    public OpenOptions() {}

    /**
     * Whether to map or to read.
     *
     * @param access {@link Access#AUTO} (the default), {@link Access#MAP} or {@link Access#READ}
     * @return this
     */
    public OpenOptions access(Access access) {
        if (access.number() > Access.READ.number()) {
            throw new IllegalArgumentException(access + " can't be asked for");
        }
        this.access = access;
        return this;
    }

    /**
     * Reading ahead.
     *
     * @param prefetch how much
     * @return this
     */
    public OpenOptions prefetch(Prefetch prefetch) {
        this.prefetch = Objects.requireNonNull(prefetch, "prefetch");
        return this;
    }

    /**
     * Whether bytes after the last tensor are allowed.
     *
     * @param tolerate true: they are
     * @return this
     */
    public OpenOptions tolerateTrailingBytes(boolean tolerate) {
        trailingBytes = tolerate;
        return this;
    }

    /**
     * Whether tensors of unknown dtypes are kept, as opaque bytes.
     *
     * @param tolerate true: they are
     * @return this
     */
    public OpenOptions tolerateUnknownDtypes(boolean tolerate) {
        unknownDtypes = tolerate;
        return this;
    }

    /**
     * Largest header, and largest index file.
     *
     * @param bytes their bytes; 0: 100,000,000; {@link Long#MAX_VALUE}: no limit
     * @return this
     */
    public OpenOptions maxHeaderSize(long bytes) {
        maxHeaderSize = Check.notNegative(bytes, "maxHeaderSize");
        return this;
    }

    /**
     * Most tensors in a header.
     *
     * @param count their number; 0: as many as fit
     * @return this
     */
    public OpenOptions maxTensors(long count) {
        maxTensors = Check.notNegative(count, "maxTensors");
        return this;
    }

    /**
     * Most dimensions of a tensor.
     *
     * @param rank their number; 0: as many as fit
     * @return this
     */
    public OpenOptions maxRank(long rank) {
        maxRank = Check.notNegative(rank, "maxRank");
        return this;
    }

    /**
     * Longest name of a tensor.
     *
     * @param bytes bytes of its UTF-8; 0: as long as fits
     * @return this
     */
    public OpenOptions maxNameLength(long bytes) {
        maxNameLength = Check.notNegative(bytes, "maxNameLength");
        return this;
    }

    /**
     * Most bytes of headers and index of all files together.
     *
     * @param bytes their number; 0: 1,000,000,000
     * @return this
     */
    public OpenOptions maxSetBytes(long bytes) {
        maxSetBytes = Check.notNegative(bytes, "maxSetBytes");
        return this;
    }

    /**
     * Which files of a folder.
     *
     * @param variant as "fp16", for {@code model.fp16.safetensors}; empty: those of none
     * @return this
     */
    public OpenOptions variant(String variant) {
        this.variant = Text.utf8WithoutNul(variant, "variant");
        return this;
    }

    /** For the shim, in the order of {@code st_open_options}, with the text at the end. */
    long[] packed() {
        int tolerate = (trailingBytes ? 1 : 0) | (unknownDtypes ? 2 : 0);
        // Without a limit is all that 64 bits can say, which a long can't.
        long headerSize = maxHeaderSize == Long.MAX_VALUE ? -1 : maxHeaderSize;
        return new Packer().put(access.number()).put(tolerate).put(prefetch.ordinal()).put(headerSize).put(maxTensors)
                .put(maxRank).put(maxNameLength).put(maxSetBytes).put(variant).words();
    }
}
