// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/** Memory segments, for Java 22 and newer. */
final class Segments {
    private Segments() {}

    static <S> S of(Class<S> type, Tensor tensor) {
        if (type != MemorySegment.class) {
            throw new IllegalArgumentException("not MemorySegment.class: " + type);
        }
        MemorySegment segment = tensor.checkpoint().view(tensor, (address, share) -> {
            try {
                // The arena is reachable through the segment and all made from it, and ends when none is left.
                return MemorySegment.ofAddress(address).reinterpret(tensor.size(), Arena.ofAuto(), ended -> share.run());
            } catch (Throwable thrown) {
                share.run();
                throw thrown;
            }
        });
        return type.cast(segment.asReadOnly());
    }
}
