// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/** A load's {@link Progress} and {@link Sink} as the shim sees them. */
final class LoadBridge extends ProgressBridge {
    private static final VarHandle CANCEL =
            MethodHandles.byteBufferViewVarHandle(int[].class, ByteOrder.nativeOrder());

    private final Sink sink;
    private final ByteBuffer[] buffers;

    /** The load looks at it before each read. */
    private final ByteBuffer cancel = ByteBuffer.allocateDirect(Integer.BYTES).order(ByteOrder.nativeOrder());

    LoadBridge(LoadOptions options) {
        super(options.progress);
        sink = options.sink;
        buffers = options.buffers;
    }

    /** Where the word is that ends the load; the bridge keeps it. */
    long cancelAddress() {
        return Native.address(cancel);
    }

    @Override
    void interrupt() {
        super.interrupt();
        CANCEL.setVolatile(cancel, 0, 1);
    }

    void cancelIfInterrupted() {
        if (isInterrupted()) {
            interrupt();
        }
    }

    /** Called by the shim. */
    boolean chunk(long buffer, long item, long offset, long size) {
        try {
            ByteBuffer data = buffers[(int) buffer].asReadOnlyBuffer().slice(0, (int) size).order(ByteOrder.LITTLE_ENDIAN);
            return Callbacks.run(() -> {
                sink.chunk(data, (int) buffer, (int) item, offset);
                return true;
            });
        } catch (Throwable thrown) {
            return fail(thrown);
        }
    }

    /** Called by the shim. */
    boolean await(long buffer) {
        try {
            return Callbacks.run(() -> {
                sink.await((int) buffer);
                return true;
            });
        } catch (Throwable thrown) {
            return fail(thrown);
        }
    }
}
