// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.MethodType;
import java.nio.ByteBuffer;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

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

    /** How many arenas one call into native code holds. */
    private static final int AT_ONCE = 8;

    /** Each eight are a call within a call, on a stack that ends. */
    private static final int MOST_HELD = 64 * AT_ONCE;

    /**
     * Runs a native call that writes to these buffers while their arenas, 512 of them at most, can't be closed:
     * {@code close} throws {@link IllegalStateException} meanwhile, as the linker sees to it for the arguments of a call
     * into native code. So the call is made by one that has them as arguments.
     */
    static void holding(Iterable<ByteBuffer> buffers, Runnable call) {
        Map<MemorySegment.Scope, MemorySegment> held = new LinkedHashMap<>();
        for (ByteBuffer buffer : buffers) {
            MemorySegment segment = buffer == null ? MemorySegment.NULL : MemorySegment.ofBuffer(buffer);
            // An arena of another thread is that of a virtual one that waits for this call.
            if (held.size() < MOST_HELD && canBeClosed(segment.scope()) && segment.isAccessibleBy(Thread.currentThread())) {
                held.putIfAbsent(segment.scope(), segment);
            }
        }
        try {
            holding(List.copyOf(held.values()), 0, call);
        } catch (RuntimeException | Error thrown) {
            throw thrown;
        } catch (Throwable thrown) {
            throw new AssertionError(thrown);
        }
    }

    /** Not the scopes of buffers that no arena made, nor those that the collector ends. */
    private static boolean canBeClosed(MemorySegment.Scope scope) {
        return scope.getClass() != Arena.global().scope().getClass() && scope.getClass() != Arena.ofAuto().scope().getClass();
    }

    private static void holding(List<MemorySegment> segments, int from, Runnable call) throws Throwable {
        if (from >= segments.size()) {
            call.run();
            return;
        }
        // Nothing may be thrown through native code.
        Throwable[] thrown = {null};
        Runnable within = () -> {
            try {
                holding(segments, from + AT_ONCE, call);
            } catch (Throwable t) {
                thrown[0] = t;
            }
        };
        MemorySegment[] arguments = new MemorySegment[1 + AT_ONCE];
        for (int i = 0; i < AT_ONCE; i++) {
            arguments[1 + i] = from + i < segments.size() ? segments.get(from + i) : MemorySegment.NULL;
        }
        try (Arena arena = Arena.ofConfined()) {
            MethodHandle run = MethodHandles.lookup().findVirtual(Runnable.class, "run", MethodType.methodType(void.class));
            arguments[0] = Linker.nativeLinker().upcallStub(run.bindTo(within), FunctionDescriptor.ofVoid(), arena);
            caller().invokeExact(arguments);
        }
        if (thrown[0] != null) {
            throw thrown[0];
        }
    }

    private static volatile MethodHandle caller;

    /** The native function that calls its first argument, while it has the others. */
    private static MethodHandle caller() {
        if (caller == null) {
            ValueLayout[] pointers = Collections.nCopies(1 + AT_ONCE, ValueLayout.ADDRESS).toArray(ValueLayout[]::new);
            caller = Linker.nativeLinker()
                    .downcallHandle(MemorySegment.ofAddress(Native.caller()), FunctionDescriptor.ofVoid(pointers))
                    .asSpreader(MemorySegment[].class, 1 + AT_ONCE);
        }
        return caller;
    }
}
