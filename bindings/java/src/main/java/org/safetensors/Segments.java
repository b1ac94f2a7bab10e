// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.nio.ByteBuffer;

/** Memory segments, which Java 17 does not have; META-INF/versions/22 of the jar holds the class that makes them. */
final class Segments {
    private Segments() {}

    static <S> S of(Class<S> type, Tensor tensor) {
        throw new UnsupportedOperationException("memory segments need Java 22 or newer, and this library's jar as a jar");
    }

    /** Runs a native call that writes to these buffers; on Java 22 and newer their arenas can't be closed meanwhile. */
    static void holding(Iterable<ByteBuffer> buffers, Runnable call) {
        call.run();
    }
}
