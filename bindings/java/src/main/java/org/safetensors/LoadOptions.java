// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.nio.ByteBuffer;
import java.util.List;
import java.util.Objects;

/** How to load. A new one is all defaults; each method changes it and returns it. */
public final class LoadOptions {
    /** How files are read. */
    public enum Io {
        /** What is in the page cache from there, the rest past it. */
        AUTO,
        /** Through the page cache. */
        CACHED,
        /** Past the page cache, where the file system can. */
        DIRECT
    }

    private int threads;
    private Io io = Io.AUTO;
    private long stagingBytes;
    private boolean dropCache;
    Progress progress;
    Sink sink;
    ByteBuffer[] buffers = {};

    /** All defaults. */
    public LoadOptions() {}

    /**
     * Most threads at work, the calling one among them.
     *
     * @param threads their number; 0: the library's choice
     * @return this
     */
    public LoadOptions threads(int threads) {
        this.threads = (int) Check.notNegative(threads, "threads");
        return this;
    }

    /**
     * How files are read.
     *
     * @param io how
     * @return this
     */
    public LoadOptions io(Io io) {
        this.io = Objects.requireNonNull(io, "io");
        return this;
    }

    /**
     * Most native memory for staging.
     *
     * @param bytes at least 65536; 0: 16 MiB
     * @return this
     */
    public LoadOptions stagingBytes(long bytes) {
        stagingBytes = Check.notNegative(bytes, "stagingBytes");
        return this;
    }

    /**
     * Whether what was read through the page cache is dropped from it.
     *
     * @param drop true: it is
     * @return this
     */
    public LoadOptions dropCache(boolean drop) {
        dropCache = drop;
        return this;
    }

    /**
     * Who hears how far it has come, on the thread that called {@code load}.
     *
     * @param progress who; null: nobody
     * @return this
     */
    public LoadOptions progress(Progress progress) {
        this.progress = progress;
        return this;
    }

    /**
     * Who takes the bytes, instead of plain destinations.
     *
     * @param buffers staging, filled in turn: direct and writable, at least 4096 bytes each, apart from one another; with
     *     more than there are threads, reading never waits for the copies. Pieces are as large as the smallest of them
     * @param sink who
     * @return this
     */
    public LoadOptions sink(List<ByteBuffer> buffers, Sink sink) {
        this.buffers = buffers.stream().map(buffer -> Memory.writable(buffer).owner().slice()).toArray(ByteBuffer[]::new);
        this.sink = Objects.requireNonNull(sink, "sink");
        return this;
    }

    List<ByteBuffer> buffers() {
        return List.of(buffers);
    }

    /** For the shim. */
    long[] packed() {
        Packer packer = new Packer();
        packer.put(threads).put(io.ordinal()).put(stagingBytes).put(dropCache).put(sink != null).put(buffers.length);
        for (ByteBuffer buffer : buffers) {
            Memory memory = Memory.writable(buffer);
            packer.put(memory.address()).put(memory.size());
        }
        return packer.words();
    }
}
