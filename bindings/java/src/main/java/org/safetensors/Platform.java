// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.io.IOException;
import java.lang.invoke.MethodHandle;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.MethodType;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.function.Supplier;

/**
 * A native call of a virtual thread, which runs on a platform thread while its callbacks run on the virtual one: a
 * virtual thread inside a native call keeps its carrier, of which there are few, so that a callback that waits for
 * another virtual thread could wait for ever, and everybody else's starve.
 */
final class Platform {
    /** Thread.isVirtual of Java 21 and newer; null on an older one. */
    private static final MethodHandle IS_VIRTUAL = isVirtual();

    /** As many as there are calls at once: with a limit, calls that wait for one another could use it up. */
    private static final ExecutorService THREADS = Executors.newCachedThreadPool(work -> {
        Thread thread = new Thread(null, work, "safetensors-call", 0, false);
        thread.setDaemon(true);
        thread.setContextClassLoader(null); // which it would keep from being unloaded
        return thread;
    });

    /** On a thread that makes a call for another: that call. */
    private static final ThreadLocal<Platform> CURRENT = new ThreadLocal<>();

    private final BlockingQueue<Task<?>> tasks = new LinkedBlockingQueue<>();

    private Platform() {}

    private static MethodHandle isVirtual() {
        try {
            MethodType type = MethodType.methodType(boolean.class);
            return MethodHandles.publicLookup().findVirtual(Thread.class, "isVirtual", type);
        } catch (ReflectiveOperationException e) {
            return null;
        }
    }

    /** Whether this is a virtual thread. */
    static boolean isNeeded() {
        try {
            return IS_VIRTUAL != null && (boolean) IS_VIRTUAL.invokeExact(Thread.currentThread());
        } catch (Throwable thrown) {
            throw new AssertionError(thrown);
        }
    }

    /** Makes a call; {@code interrupted} runs when this thread is interrupted meanwhile, which stays set. */
    static <T> T call(Supplier<T> call, Runnable interrupted) {
        if (!isNeeded()) {
            return call.get();
        }
        Platform platform = new Platform();
        Task<T> whole = new Task<>(call::get);
        THREADS.execute(() -> {
            CURRENT.set(platform);
            try {
                whole.run();
            } finally {
                CURRENT.remove();
                platform.tasks.add(whole);
            }
        });
        platform.serve(whole, interrupted);
        return whole.result();
    }

    /** Runs callbacks until the call is over. */
    private void serve(Task<?> whole, Runnable onInterrupt) {
        boolean interrupted = false;
        while (true) {
            Task<?> task;
            try {
                task = tasks.take();
            } catch (InterruptedException e) {
                interrupted = true;
                onInterrupt.run();
                continue;
            }
            if (interrupted) {
                // Seen by the callback, and by the caller in the end.
                Thread.currentThread().interrupt();
            }
            if (task == whole) {
                return;
            }
            task.run();
            interrupted = Thread.interrupted();
            if (interrupted) {
                onInterrupt.run();
            }
        }
    }

    /** Runs a callback: where this thread makes a call for another, on that one. */
    static <T> T callback(Callbacks.Body<T> body) throws IOException {
        Platform platform = CURRENT.get();
        if (platform == null) {
            return body.run();
        }
        Task<T> task = new Task<>(body);
        platform.tasks.add(task);
        return task.result();
    }

    /** Something that one thread runs and another waits for. */
    private static final class Task<T> {
        private final Callbacks.Body<T> body;
        private final CountDownLatch over = new CountDownLatch(1);
        private T value;
        private Throwable thrown;

        Task(Callbacks.Body<T> body) {
            this.body = body;
        }

        void run() {
            try {
                value = body.run();
            } catch (Throwable e) {
                thrown = e;
            } finally {
                over.countDown();
            }
        }

        T result() {
            boolean interrupted = false;
            while (true) {
                try {
                    over.await();
                    break;
                } catch (InterruptedException e) {
                    interrupted = true;
                }
            }
            if (interrupted) {
                Thread.currentThread().interrupt();
            }
            if (thrown != null) {
                Platform.<RuntimeException>sneak(thrown);
            }
            return value;
        }
    }

    /** What a callback threw comes out as it is, checked or not. */
    @SuppressWarnings("unchecked")
    private static <T extends Throwable> void sneak(Throwable thrown) throws T {
        throw (T) thrown;
    }
}
