// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.util.Objects;

/** How to write. A new one is all defaults; each method changes it and returns it. */
public final class SaveOptions {
    /** How tensors follow one another in the file. */
    public enum Order {
        /** By dtype, widest first, then by name, as the reference implementation writes. */
        REFERENCE,
        /** As given. */
        GIVEN
    }

    private Order order = Order.REFERENCE;
    private int alignment;
    private long maxShardSize;
    private boolean sync = true;
    private boolean overwrite = true;
    private long headerReserve;
    Progress progress;

    /** All defaults. */
    public SaveOptions() {}

    /**
     * How tensors follow one another.
     *
     * @param order how
     * @return this
     */
    public SaveOptions order(Order order) {
        this.order = Objects.requireNonNull(order, "order");
        return this;
    }

    /**
     * The data section begins at a multiple of this many bytes.
     *
     * @param bytes a power of two from 8 to 2097152; 0: 8
     * @return this
     */
    public SaveOptions alignment(int bytes) {
        alignment = (int) Check.notNegative(bytes, "alignment");
        return this;
    }

    /**
     * Most bytes of tensors in one file. What takes more becomes shards and an index; one tensor larger than this is a
     * shard by itself.
     *
     * @param bytes their number; 0: one file
     * @return this
     */
    public SaveOptions maxShardSize(long bytes) {
        maxShardSize = Check.notNegative(bytes, "maxShardSize");
        return this;
    }

    /**
     * Whether files and their names are on the disk when the call returns.
     *
     * @param sync true (the default): they are; false: a power failure may lose them
     * @return this
     */
    public SaveOptions sync(boolean sync) {
        this.sync = sync;
        return this;
    }

    /**
     * Whether a file that exists is replaced, in one step.
     *
     * @param overwrite true (the default): it is; false: {@link Status#IO} with the errno EEXIST
     * @return this
     */
    public SaveOptions overwrite(boolean overwrite) {
        this.overwrite = overwrite;
        return this;
    }

    /**
     * Spare bytes in the header, for a later {@link Safetensors#setMetadata}.
     *
     * @param bytes their number
     * @return this
     */
    public SaveOptions headerReserve(long bytes) {
        headerReserve = Check.notNegative(bytes, "headerReserve");
        return this;
    }

    /**
     * Who hears how far it has come; maybe on another thread, one at a time. Not for {@link Writer}.
     *
     * @param progress who; null: nobody
     * @return this
     */
    public SaveOptions progress(Progress progress) {
        this.progress = progress;
        return this;
    }

    /** For the shim, in the order of {@code st_save_options}. */
    void pack(Packer packer) {
        packer.put(order.ordinal()).put(alignment).put(maxShardSize).put(!sync).put(!overwrite).put(headerReserve);
    }
}
