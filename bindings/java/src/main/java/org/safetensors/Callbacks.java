// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.io.IOException;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;

/**
 * What Java throws inside a callback, kept while C hands an error back to the call that needed it. A source is shared
 * by many calls: its st_error carries the number of the failure as a negative errno, which the library passes on.
 */
final class Callbacks {
    private static final ThreadLocal<int[]> DEPTH = ThreadLocal.withInitial(() -> new int[1]);

    /** By number. A call reports one failure of several; the others are dropped when there are many. */
    private final Map<Integer, Throwable> failures = new LinkedHashMap<>() {
        private static final long serialVersionUID = 1L;

        @Override
        protected boolean removeEldestEntry(Map.Entry<Integer, Throwable> eldest) {
            return size() > 1024;
        }
    };

    private int last;
    private final Queue<SourceBridge> sources = new ConcurrentLinkedQueue<>();
    private volatile Throwable closing;

    /** Keeps what was thrown; returns its number, which is below 0. */
    synchronized int keep(Throwable thrown) {
        last = last == Integer.MIN_VALUE ? -1 : last - 1;
        failures.put(last, thrown);
        return last;
    }

    private synchronized Throwable take(int number) {
        return failures.remove(number);
    }

    /** What a call that failed so has to throw. */
    RuntimeException cause(SafetensorsException error) {
        if (error.errno() >= 0) {
            return error;
        }
        Throwable thrown = take(error.errno());
        return thrown == null
                ? new SafetensorsException(error.status(), error.getMessage())
                : thrown(thrown, error.status(), error.getMessage());
    }

    /** Whether bytes come through callbacks. */
    boolean hasSources() {
        return !sources.isEmpty();
    }

    void add(SourceBridge source) {
        sources.add(source);
    }

    /** Closes the sources when nobody can read any more, though views may hold the checkpoint's memory for long. */
    void closeSources() {
        sources.forEach(SourceBridge::release);
    }

    /** Keeps what was thrown when a source was closed. */
    void keepClosing(Throwable thrown) {
        closing = thrown;
    }

    /** Throws what a source threw when it was closed. */
    void throwClosing() {
        Throwable thrown = closing;
        if (thrown != null) {
            closing = null;
            throw thrown(thrown, Status.IO, "a source can't be closed");
        }
    }

    /** An unchecked exception as it is, also an Error; a checked one as a cause. */
    static RuntimeException thrown(Throwable thrown, Status status, String message) {
        if (thrown instanceof Error error) {
            throw error;
        }
        if (thrown instanceof RuntimeException unchecked) {
            return unchecked;
        }
        return new SafetensorsException(status, 0, message + ": " + thrown, thrown);
    }

    /** Whether this thread is inside a callback. */
    static boolean isRunning() {
        return DEPTH.get()[0] > 0;
    }

    static void enter() {
        DEPTH.get()[0]++;
    }

    static void leave() {
        DEPTH.get()[0]--;
    }

    /** Something that a callback does. */
    interface Body<T> {
        T run() throws IOException;
    }

    static <T> T run(Body<T> body) throws IOException {
        return Platform.callback(() -> here(body));
    }

    private static <T> T here(Body<T> body) throws IOException {
        enter();
        try {
            return body.run();
        } finally {
            leave();
        }
    }
}
