// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.MethodType;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Calls with callbacks out of virtual threads, on Java 21 and newer. */
@Timeout(value = 2, unit = TimeUnit.MINUTES, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class VirtualThreadTest {
    private static final int SIZE = 200_000;
    private static final byte[] DATA = Support.pattern(SIZE);
    private static final byte[] FILE = Support.file(Support.header("w", "U8", "[" + SIZE + "]", SIZE), DATA);

    @BeforeAll
    static void thereAreSome() {
        assumeTrue(Runtime.version().feature() >= 21, "virtual threads are of Java 21");
    }

    private static Thread start(Runnable work) {
        try {
            return (Thread) MethodHandles.publicLookup()
                    .findStatic(Thread.class, "startVirtualThread", MethodType.methodType(Thread.class, Runnable.class))
                    .invoke(work);
        } catch (Throwable thrown) {
            throw new AssertionError(thrown);
        }
    }

    /** Runs work on virtual threads, one of each number, and throws what one of them threw. */
    private static void all(int count, Work work) throws Exception {
        List<CompletableFuture<Void>> done = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            int number = i;
            CompletableFuture<Void> one = new CompletableFuture<>();
            done.add(one);
            start(() -> {
                try {
                    work.run(number);
                    one.complete(null);
                } catch (Throwable thrown) {
                    one.completeExceptionally(thrown);
                }
            });
        }
        for (CompletableFuture<Void> one : done) {
            one.get(60, TimeUnit.SECONDS);
        }
    }

    private interface Work {
        void run(int number) throws Exception;
    }

    /** A source each of whose reads waits for another virtual thread. */
    private static final class Waiting extends ArraySource {
        Waiting() {
            super(FILE);
        }

        @Override
        public int readAt(long offset, ByteBuffer dst) {
            CompletableFuture<Integer> read = new CompletableFuture<>();
            start(() -> read.complete(super.readAt(offset, dst)));
            try {
                return read.get();
            } catch (InterruptedException | ExecutionException e) {
                throw new IllegalStateException(e);
            }
        }
    }

    /** More of them than there are carriers, in every kind of call; others run meanwhile. */
    @Test
    void aSourceMayWaitForOtherVirtualThreads() throws Exception {
        try (Checkpoint shared = Checkpoint.open(new Waiting())) {
            all(16, number -> {
                ByteBuffer dst = ByteBuffer.allocateDirect(SIZE);
                switch (number % 4) {
                    case 0 -> shared.get("w").read(dst);
                    case 1 -> shared.load(List.of(LoadItem.of(shared.get("w"), dst)));
                    case 2 -> shared.get("w").readSlice(dst);
                    default -> {
                        try (Checkpoint own = Checkpoint.open(new Waiting())) {
                            dst.put(own.get("w").buffer()).flip();
                        }
                    }
                }
                assertEquals(ByteBuffer.wrap(DATA), dst);
            });
        }
    }

    @Test
    void callbacksRunOnTheThreadThatCalls() throws Exception {
        all(1, number -> {
            Thread caller = Thread.currentThread();
            AtomicReference<Thread> reader = new AtomicReference<>();
            Source source = new ArraySource(FILE) {
                @Override
                public int readAt(long offset, ByteBuffer dst) {
                    reader.set(Thread.currentThread());
                    assertTrue(Callbacks.isRunning());
                    return super.readAt(offset, dst);
                }
            };
            try (Checkpoint checkpoint = Checkpoint.open(source)) {
                assertSame(caller, reader.getAndSet(null));
                checkpoint.get("w").buffer();
                assertSame(caller, reader.get());
                AtomicReference<Thread> told = new AtomicReference<>();
                checkpoint.load(List.of(LoadItem.of(checkpoint.get("w"), ByteBuffer.allocateDirect(SIZE))),
                        new LoadOptions().progress((done, total) -> {
                            told.set(Thread.currentThread());
                            return true;
                        }));
                assertSame(caller, told.get());
                assertFalse(Callbacks.isRunning());
            }
        });
    }

    @Test
    void whatACallbackThrowsComesOut() throws Exception {
        all(1, number -> {
            for (Throwable thrown : List.of(new IllegalStateException("mine"), new StackOverflowError("mine"))) {
                try (Checkpoint checkpoint = Checkpoint.open(new ArraySource(FILE))) {
                    LoadItem item = LoadItem.of(checkpoint.get("w"), ByteBuffer.allocateDirect(SIZE));
                    LoadOptions options = new LoadOptions().progress((done, total) -> {
                        if (thrown instanceof Error error) {
                            throw error;
                        }
                        throw (RuntimeException) thrown;
                    });
                    assertSame(thrown, assertThrows(Throwable.class, () -> checkpoint.load(List.of(item), options)));
                }
            }
        });
    }

    /** An interrupt reaches a callback that waits, ends the load, and stays set. */
    @Test
    void interruptsCancel() throws Exception {
        try (Checkpoint checkpoint = Checkpoint.open(new ArraySource(FILE))) {
            CountDownLatch waiting = new CountDownLatch(1);
            AtomicReference<Throwable> thrown = new AtomicReference<>();
            AtomicReference<Boolean> seen = new AtomicReference<>(false);
            Thread loading = start(() -> {
                LoadItem item = LoadItem.of(checkpoint.get("w"), ByteBuffer.allocateDirect(SIZE));
                try {
                    checkpoint.load(List.of(item), new LoadOptions().progress((done, total) -> {
                        waiting.countDown();
                        try {
                            Thread.sleep(60_000);
                        } catch (InterruptedException e) {
                            seen.set(true);
                            Thread.currentThread().interrupt();
                        }
                        return true;
                    }));
                } catch (Throwable e) {
                    thrown.set(Thread.currentThread().isInterrupted() ? e : new AssertionError("not interrupted", e));
                }
            });
            waiting.await();
            loading.interrupt();
            loading.join();
            assertTrue(seen.get());
            assertEquals(Status.CANCELLED, thrown.get() instanceof SafetensorsException e ? e.status() : thrown.get());
        }
    }
}
