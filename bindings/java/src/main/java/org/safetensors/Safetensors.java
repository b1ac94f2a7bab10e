// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.function.Predicate;

/** What needs no open checkpoint: writing, converting, the version. */
public final class Safetensors {
    private Safetensors() {}

    /**
     * Writes tensors to a file without metadata, with all defaults.
     *
     * @param path where
     * @param tensors what
     */
    public static void save(Path path, List<TensorSpec> tensors) {
        save(path, tensors, null, new SaveOptions());
    }

    /**
     * Writes tensors and metadata to a file with all defaults.
     *
     * @param path where
     * @param tensors what
     * @param metadata null: none, which differs from an empty map
     */
    public static void save(Path path, List<TensorSpec> tensors, Map<String, String> metadata) {
        save(path, tensors, metadata, new SaveOptions());
    }

    /**
     * Writes tensors to a file, which appears whole or not at all: byte for byte what the reference implementation
     * writes. An interrupt of the calling thread cancels, and stays set.
     *
     * @param path where; with {@link SaveOptions#maxShardSize} it ends in {@code NAME.safetensors}, beside which shards
     *     and their index are written where one file is not enough
     * @param tensors what
     * @param metadata null: none, which differs from an empty map
     * @param options how
     * @throws SafetensorsException with the rule that could not be kept, {@link Status#IO} or {@link Status#CANCELLED}
     */
    public static void save(Path path, List<TensorSpec> tensors, Map<String, String> metadata, SaveOptions options) {
        byte[] bytes = Text.path(path);
        write(tensors, metadata, options, (given, source, bridge) -> {
            Native.save(bytes, given, source, bridge);
            return null;
        });
    }

    /**
     * The bytes of the file that {@link #save} would write.
     *
     * @param tensors what
     * @param metadata null: none, which differs from an empty map
     * @return native memory, released when the buffer is garbage collected
     */
    public static ByteBuffer serialize(List<TensorSpec> tensors, Map<String, String> metadata) {
        return serialize(tensors, metadata, new SaveOptions());
    }

    /**
     * The bytes of the file that {@link #save} would write.
     *
     * @param tensors what
     * @param metadata null: none, which differs from an empty map
     * @param options how; {@code sync} and {@code overwrite} are of no effect
     * @return native memory, released when the buffer is garbage collected
     * @throws SafetensorsException as {@link #save}; with {@link Status#UNSUPPORTED} for several files, or over 2 GiB
     */
    public static ByteBuffer serialize(List<TensorSpec> tensors, Map<String, String> metadata, SaveOptions options) {
        Scarce.makeRoom();
        long[] memory = write(tensors, metadata, options, Native::serialize);
        if (memory[1] > Integer.MAX_VALUE) {
            Native.freeBuffer(memory[0], memory[1]);
            throw new SafetensorsException(Status.UNSUPPORTED, memory[1] + " bytes are too many for a ByteBuffer: save them");
        }
        Scarce.BYTES.take(memory[1]);
        return Memory.owned(memory[0], (int) memory[1], () -> {
            Native.freeBuffer(memory[0], memory[1]);
            Scarce.BYTES.giveBack(memory[1]);
        });
    }

    private interface Write<T> {
        T with(long[] given, long source, ProgressBridge bridge);
    }

    private static <T> T write(
            List<TensorSpec> tensors, Map<String, String> metadata, SaveOptions options, Write<T> write) {
        ProgressBridge bridge = new ProgressBridge(options.progress);
        try {
            return new Given(tensors, metadata, options).use(
                    (given, source) -> Platform.call(() -> write.with(given, source, bridge), bridge::interrupt));
        } catch (SafetensorsException e) {
            throw bridge.cause(e);
        }
    }

    /**
     * Replaces all metadata of a file without rewriting its tensors, where its file system shares blocks (xfs, btrfs,
     * bcachefs).
     *
     * @param path one {@code .safetensors} file
     * @param metadata null removes it
     * @throws SafetensorsException with {@link Status#UNSUPPORTED} where the header would have to be overwritten in
     *     place
     */
    public static void setMetadata(Path path, Map<String, String> metadata) {
        setMetadata(path, metadata, false, true);
    }

    /**
     * Replaces all metadata of a file without rewriting its tensors.
     *
     * @param path one {@code .safetensors} file
     * @param metadata null removes it
     * @param inPlace true: where the file system can't share blocks, the header may be overwritten where it is. A crash
     *     of the system in that moment can leave old and new text mixed: have a copy of the header
     * @param sync whether it is on the disk when the call returns
     * @throws SafetensorsException with {@link Status#BUFFER_SIZE} where the header has not the room
     *     ({@link SaveOptions#headerReserve}), {@link Status#UNSUPPORTED} where {@code inPlace} would be needed
     */
    public static void setMetadata(Path path, Map<String, String> metadata, boolean inPlace, boolean sync) {
        Packer packer = new Packer();
        Given.pack(packer, metadata);
        Native.setMetadata(Text.path(path), packer.words(), inPlace, sync);
    }

    /**
     * Everything that is wrong with a file, an index and its shards, or a folder. Reads headers and no tensors.
     *
     * @param path what {@code Checkpoint.open} would be given
     * @return each broken rule, where opening stops at the first, and {@link Status#IO} where it can't be reached; empty
     *     where all is right
     */
    public static List<Problem> validate(Path path) {
        List<Problem> all = new ArrayList<>();
        try {
            validate(path, new OpenOptions(), problem -> {
                all.add(problem);
                return true;
            });
        } catch (SafetensorsException e) {
            // It repeats the first problem that is fatal, or has another reason.
            if (all.stream().noneMatch(problem -> problem.fatal() && problem.status() == e.status())) {
                throw e;
            }
        }
        return all;
    }

    /**
     * Tells a report of everything that is wrong with a file, an index and its shards, or a folder.
     *
     * @param path what {@code Checkpoint.open} would be given
     * @param options how it would be opened; access and prefetch are of no effect
     * @param report called with each broken rule, on this thread; false ends the call. What it throws comes out
     * @throws SafetensorsException what {@code Checkpoint.open} would say with these options; with
     *     {@link Status#CANCELLED} where the report ended it
     */
    public static void validate(Path path, OpenOptions options, Predicate<Problem> report) {
        ReportBridge bridge = new ReportBridge(Objects.requireNonNull(report, "report"));
        byte[] bytes = Text.path(path);
        long[] packed = options.packed();
        try {
            Scarce.makeRoom();
            Platform.call(() -> {
                Native.validate(bytes, packed, bridge);
                return null;
            }, () -> {});
        } catch (SafetensorsException e) {
            throw bridge.cause(e);
        }
    }

    /**
     * Converts elements from one dtype to another: from every float, BOOL and the integers to F32, F16 and BF16, from
     * F32 also to the 8-bit floats. Each value is rounded once, to nearest even; overflow is infinity where the target
     * has one, else NaN.
     *
     * @param from what {@code source} holds
     * @param source whole elements, between its position and its limit
     * @param to what {@code target} receives
     * @param target filled from its position on; must not overlap the source. No buffer's position or limit moves
     * @throws SafetensorsException with {@link Status#UNSUPPORTED} for other pairs, {@link Status#SUB_BYTE}, or
     *     {@link Status#BUFFER_SIZE}
     */
    public static void convert(Dtype from, ByteBuffer source, Dtype to, ByteBuffer target) {
        long count = from.bits() == 0 ? 0 : source.remaining() * 8L / from.bits();
        if (from.bits() == 0 || to.bits() == 0) {
            throw new SafetensorsException(Status.UNSUPPORTED, "can't convert from " + from + " to " + to);
        }
        if (count * from.bits() != source.remaining() * 8L) {
            throw new IllegalArgumentException(source.remaining() + " bytes are not a whole number of " + from + " elements");
        }
        long needed = (count * to.bits() + 7) / 8;
        if (target.remaining() < needed) {
            throw new SafetensorsException(Status.BUFFER_SIZE, "the target has room for " + target.remaining()
                    + " bytes, not for " + needed);
        }
        Memory memory = Memory.readable(source);
        Memory.fill(target, needed, (address, room) -> {
            if (address < memory.address() + memory.size() && memory.address() < address + needed) {
                throw new IllegalArgumentException("source and target overlap");
            }
            Native.convert(from.number(), memory.address(), to.number(), address, count);
        });
        memory.keep();
    }

    /**
     * Memory for tensors: direct, zeroed, aligned to 64 bytes.
     *
     * @param size its bytes
     * @return a writable, little-endian direct buffer
     */
    public static ByteBuffer allocate(int size) {
        Check.notNegative(size, "size");
        ByteBuffer memory = ByteBuffer.allocateDirect(Math.addExact(size, 63));
        int skip = (64 - memory.alignmentOffset(0, 64)) % 64;
        return memory.slice(skip, size).order(ByteOrder.LITTLE_ENDIAN);
    }

    /** {@return the version of the native library that is running, as "0.1.0"} */
    public static String version() {
        return Native.version();
    }
}
