// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.nio.ByteBuffer;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicBoolean;

/** A {@link Source} as the shim sees it: nothing is thrown through C. */
final class SourceBridge {
    /** Most that is read at once where a source has no preference; the library asks again for what is missing. */
    private static final int PIECE = 8 << 20;

    /** The least to try where direct memory is short. */
    private static final int LEAST = 64 << 10;

    /** Preferences beyond are cut: a buffer has no room for more. */
    private static final int MOST = 1 << 30;

    private final Source source;
    private final Callbacks failures;
    /** What the shim puts into the st_io. */
    private final long size;
    private final long preferredRead;
    private final long maxParallel;
    /**
     * Where sources read into. They never see the destination itself: a source that kept its buffer and wrote to it
     * later would write into memory that is somebody else's by then.
     */
    private final Queue<ByteBuffer> pieces = new ConcurrentLinkedQueue<>();
    private final AtomicBoolean released = new AtomicBoolean();

    /** The source is closed if this throws. */
    static SourceBridge of(Source source, Callbacks failures) {
        try {
            SourceBridge bridge = Callbacks.run(() -> new SourceBridge(source, failures));
            failures.add(bridge);
            return bridge;
        } catch (Throwable thrown) {
            try {
                source.close();
            } catch (Throwable second) {
                thrown.addSuppressed(second);
            }
            throw Callbacks.thrown(thrown, Status.IO, "a source can't be opened");
        }
    }

    private SourceBridge(Source source, Callbacks failures) {
        this.source = source;
        this.failures = failures;
        this.size = Check.notNegative(source.size(), "Source.size()");
        this.preferredRead = Check.notNegative(source.preferredRead(), "Source.preferredRead()");
        this.maxParallel = Check.notNegative(source.maxParallel(), "Source.maxParallel()");
    }

    /** Called by the shim. Bytes read, or the negative number of a failure. */
    int readAt(long offset, long address, long length) {
        try {
            ByteBuffer piece = piece((int) Math.min(length, preferredRead == 0 ? PIECE : Math.min(preferredRead, MOST)));
            int wanted = (int) Math.min(length, piece.capacity());
            ByteBuffer dst = piece.clear().limit(wanted).slice();
            int done = Callbacks.run(() -> source.readAt(offset, dst));
            if (done > wanted) {
                throw new IllegalStateException("readAt says " + done + " bytes where " + wanted + " were wanted");
            }
            if (done > 0) {
                Native.copy(piece, done, address);
            }
            pieces.add(piece);
            return Math.max(done, 0);
        } catch (Throwable thrown) {
            return failures.keep(thrown);
        }
    }

    /** A piece with this room, or with less where there is no memory for it. */
    private ByteBuffer piece(int room) {
        ByteBuffer piece = pieces.poll();
        if (piece != null && piece.capacity() >= room) {
            return piece;
        }
        for (int size = room; ; size /= 2) {
            try {
                return ByteBuffer.allocateDirect(size);
            } catch (OutOfMemoryError e) {
                if (piece != null) {
                    return piece;
                }
                if (size <= LEAST) {
                    throw e;
                }
            }
        }
    }

    /** Called by the shim when the library is done with it, and by closing the checkpoint before that. */
    void release() {
        if (released.getAndSet(true)) {
            return;
        }
        try {
            Callbacks.run(() -> {
                source.close();
                return null;
            });
        } catch (Throwable thrown) {
            failures.keepClosing(thrown);
        }
        pieces.clear();
    }
}
