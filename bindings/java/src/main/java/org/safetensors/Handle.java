// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * A native pointer with a use count: whoever calls native code with it is a user until the call returns. Closing lets
 * nobody new in; the last one out releases the pointer, so it never goes while a call is under way.
 */
final class Handle {
    private static final int CLOSED = Integer.MIN_VALUE;

    private final String what;
    private final long pointer;
    private final Runnable release;
    /** The number of users, and the sign bit once it is closed. */
    private final AtomicInteger state = new AtomicInteger();
    private final CountDownLatch released = new CountDownLatch(1);

    Handle(String what, long pointer, Runnable release) {
        this.what = what;
        this.pointer = pointer;
        this.release = release;
    }

    /** The pointer, to be given back with {@link #leave()}. */
    long enter() {
        int users = state.get();
        while (true) {
            if (users < 0) {
                throw closed();
            }
            int found = state.compareAndExchange(users, users + 1);
            if (found == users) {
                return pointer;
            }
            users = found;
        }
    }

    void leave() {
        if (state.decrementAndGet() == CLOSED) {
            releaseNow();
        }
    }

    void requireOpen() {
        if (isClosed()) {
            throw closed();
        }
    }

    boolean isClosed() {
        return state.get() < 0;
    }

    /** Closes it and waits until it is released. */
    void close() {
        if (Callbacks.isRunning() && (state.get() & ~CLOSED) != 0) {
            // The call that this callback belongs to could be the one to wait for, and would wait for us.
            throw new IllegalStateException("a " + what + " can't be closed from a callback while calls use it");
        }
        closeLater();
        boolean interrupted = false;
        while (true) {
            try {
                released.await();
                break;
            } catch (InterruptedException e) {
                interrupted = true;
            }
        }
        if (interrupted) {
            Thread.currentThread().interrupt();
        }
    }

    /** Closes it and does not wait. */
    void closeLater() {
        if (state.getAndUpdate(users -> users | CLOSED) == 0) {
            releaseNow();
        }
    }

    private void releaseNow() {
        try {
            release.run();
        } finally {
            released.countDown();
        }
    }

    private IllegalStateException closed() {
        return new IllegalStateException("the " + what + " is closed");
    }
}
