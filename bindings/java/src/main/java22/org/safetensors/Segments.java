// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/** Memory segments, for Java 22 and newer. */
final class Segments {
    private Segments() {}

    static <S> S of(Class<S> type, Checkpoint checkpoint, int tensor, long size) {
        if (type != MemorySegment.class) {
            throw new IllegalArgumentException("not MemorySegment.class: " + type);
        }
        MemorySegment segment = checkpoint.use(pointer -> {
            MemorySegment data = MemorySegment.ofAddress(size == 0 ? 0 : Native.data(pointer, tensor));
            Runnable release = checkpoint.share();
            try {
                // The arena is reachable through the segment and all made from it, and ends when none is left.
                return data.reinterpret(size, Arena.ofAuto(), ended -> release.run());
            } catch (Throwable thrown) {
                release.run();
                throw thrown;
            }
        });
        return type.cast(segment.asReadOnly());
    }
}
