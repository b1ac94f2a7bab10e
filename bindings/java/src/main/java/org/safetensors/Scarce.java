// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.Supplier;

/**
 * What native objects hold that the process has little of. It takes no heap, so nothing would make the collector run
 * before there is none left: who opens asks for a collection in time ({@link #makeRoom}), and once more where the
 * system refused all the same ({@link #retrying}), as the JDK does for its own direct buffers.
 */
final class Scarce {
    /** Open files: half of what the process may have is left to the program. More than some thousands are no use. */
    static final Scarce DESCRIPTORS = new Scarce(Math.min(Native.descriptorLimit() / 2, 8192));

    /** Mappings of files, half of what a process may have. */
    static final Scarce MAPPINGS = new Scarce(Native.mappingLimit() / 2);

    /** Native memory, which has no end that could be known: of what is in use, half as much may come on top. */
    static final Scarce BYTES = new Scarce(Runtime.getRuntime().maxMemory() / 4);

    private static final int ENOMEM = 12;
    private static final int ENFILE = 23;
    private static final int EMFILE = 24;

    /** Pauses of 1, 2, … 256 ms, about half a second in all. */
    private static final int ATTEMPTS = 9;

    private static final ReentrantLock COLLECTING = new ReentrantLock();
    private static volatile long collections;

    private final long most;
    private final AtomicLong held = new AtomicLong();
    /** What may be held before the collector has to look. */
    private volatile long limit;

    private Scarce(long most) {
        this.most = Math.max(most, 2);
        settle();
    }

    void take(long amount) {
        held.addAndGet(amount);
    }

    void giveBack(long amount) {
        held.addAndGet(-amount);
    }

    private boolean isShort() {
        return held.get() >= limit;
    }

    /** What is held now is in use, and no reason to collect again: half of the rest may come on top of it. */
    private void settle() {
        long now = held.get();
        limit = now + (this == BYTES ? Math.max(most, now) / 2 : Math.max((most - now) / 2, most / 32 + 1));
    }

    /** Called before anything native is made. */
    static void makeRoom() {
        if (DESCRIPTORS.isShort() || MAPPINGS.isShort() || BYTES.isShort()) {
            collect(collections);
        }
    }

    /** Makes something native; where the system has no more of something, what is unreachable goes first. */
    static <T> T retrying(Supplier<T> make) {
        makeRoom();
        for (int attempt = 0; ; attempt++) {
            long seen = collections;
            try {
                return make.get();
            } catch (SafetensorsException e) {
                boolean scarce = e.status() == Status.OUT_OF_MEMORY
                        || e.errno() == EMFILE || e.errno() == ENFILE || e.errno() == ENOMEM;
                if (!scarce || attempt == ATTEMPTS) {
                    throw e;
                }
            }
            collect(seen);
            pause(1L << attempt);
        }
    }

    /** Collects, unless somebody has since {@code seen}, and waits until the Cleaner has done what came of it. */
    private static void collect(long seen) {
        COLLECTING.lock();
        try {
            if (collections != seen) {
                return;
            }
            CountDownLatch cleaned = new CountDownLatch(1);
            leaveBehind(cleaned);
            System.gc();
            await(cleaned);
            // That was one of many in the Cleaner's queue, which has no order.
            for (int quiet = 0, looks = 0; quiet < 2 && looks < 100; looks++) {
                long before = DESCRIPTORS.held.get() + BYTES.held.get();
                pause(1);
                quiet = DESCRIPTORS.held.get() + BYTES.held.get() == before ? quiet + 1 : 0;
            }
            DESCRIPTORS.settle();
            MAPPINGS.settle();
            BYTES.settle();
            collections = seen + 1;
        } finally {
            COLLECTING.unlock();
        }
    }

    /** Something unreachable, by which one sees that the Cleaner is at work. */
    private static void leaveBehind(CountDownLatch cleaned) {
        Memory.CLEANER.register(new Object(), cleaned::countDown);
    }

    /** In vain where the JVM was told to ignore System.gc(). */
    private static void await(CountDownLatch latch) {
        uninterrupted(() -> latch.await(200, TimeUnit.MILLISECONDS));
    }

    private static void pause(long milliseconds) {
        uninterrupted(() -> Thread.sleep(milliseconds));
    }

    private interface Wait {
        void begin() throws InterruptedException;
    }

    /** An interrupt is for whoever called: it is no reason not to wait, and stays set. */
    private static void uninterrupted(Wait wait) {
        boolean interrupted = Thread.interrupted();
        try {
            wait.begin();
        } catch (InterruptedException e) {
            interrupted = true;
        }
        if (interrupted) {
            Thread.currentThread().interrupt();
        }
    }
}
