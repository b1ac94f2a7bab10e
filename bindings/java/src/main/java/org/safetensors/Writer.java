// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.lang.ref.Cleaner;
import java.lang.ref.Reference;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * A file whose tensors' bytes come in pieces, in any order, from any number of threads. It appears whole, when
 * {@link #finish()} returns, or not at all: closed before that, nothing is left behind, and an older file at the path is
 * as it was.
 */
public final class Writer implements AutoCloseable {
    private final Handle handle;
    private final Cleaner.Cleanable cleanable;
    private final Map<String, Integer> numbers = new HashMap<>();

    private Writer(long pointer, List<TensorSpec> tensors) {
        handle = new Handle("writer", pointer, () -> Native.freeWriter(pointer));
        try {
            for (TensorSpec tensor : tensors) {
                numbers.put(tensor.name(), numbers.size());
            }
            cleanable = Memory.CLEANER.register(this, handle::closeLater);
        } catch (Throwable thrown) {
            handle.closeLater();
            throw thrown;
        }
    }

    /**
     * Begins a file without metadata, with all defaults.
     *
     * @param path where it will be
     * @param tensors what it will hold
     * @return the writer, to be closed
     */
    public static Writer open(Path path, List<TensorSpec> tensors) {
        return open(path, tensors, null, new SaveOptions());
    }

    /**
     * Begins a file. The room that it takes is set aside now where the file system can: a full disk is an error here.
     *
     * @param path where it will be
     * @param tensors what it will hold; their data is ignored
     * @param metadata null: none, which differs from an empty map
     * @param options how
     * @return the writer, to be closed
     * @throws SafetensorsException with the rule that could not be kept, or {@link Status#IO}
     */
    public static Writer open(Path path, List<TensorSpec> tensors, Map<String, String> metadata, SaveOptions options) {
        byte[] bytes = Text.path(path);
        List<TensorSpec> specs = tensors.stream().map(t -> TensorSpec.of(t.name(), t.dtype(), t.shape())).toList();
        long pointer = new Given(specs, metadata, options).use((given, none) -> Native.openWriter(bytes, given));
        return new Writer(pointer, specs);
    }

    /**
     * Writes bytes of one tensor.
     *
     * @param tensor its number in the list given to {@code open}
     * @param offset the first byte to write, from the tensor's start
     * @param data what is between its position and its limit; neither moves
     * @throws SafetensorsException with {@link Status#INVALID_ARGUMENT} (past the tensor's end, or written already) or
     *     {@link Status#IO}, after which the same bytes may be written again
     */
    public void write(int tensor, long offset, ByteBuffer data) {
        Check.notNegative(tensor, "tensor");
        Check.notNegative(offset, "offset");
        Memory memory = Memory.readable(data);
        use(pointer -> Native.write(pointer, tensor, offset, memory.address(), memory.size()));
        memory.keep();
    }

    /**
     * Writes bytes of one tensor, as {@link #write(int, long, ByteBuffer)}.
     *
     * @param tensor its name
     * @param offset the first byte to write, from the tensor's start
     * @param data what is between its position and its limit; neither moves
     */
    public void write(String tensor, long offset, ByteBuffer data) {
        Integer number = numbers.get(tensor);
        if (number == null) {
            throw new SafetensorsException(Status.NOT_FOUND, "no tensor " + Text.quoted(tensor) + " is to be written");
        }
        write(number, offset, data);
    }

    /**
     * Brings the file to the disk and gives it its name.
     *
     * @throws SafetensorsException with {@link Status#DATA_NOT_COVERED} while bytes of a tensor are missing (write them
     *     and finish again), or {@link Status#IO}, after which the writer can only be closed
     */
    public void finish() {
        use(pointer -> Platform.call(() -> {
            Native.finish(pointer);
            return null;
        }, () -> {}));
    }

    /** Closes it, after the calls under way; a second time does nothing. Not finished, nothing is left behind. */
    @Override
    public void close() {
        handle.close();
        cleanable.clean();
    }

    private interface Call {
        void with(long pointer);
    }

    private void use(Call call) {
        long pointer = handle.enter();
        try {
            call.with(pointer);
        } finally {
            handle.leave();
            Reference.reachabilityFence(this);
        }
    }
}
