// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

/** A {@link Progress} as the shim sees it; it also watches for an interrupt of the thread that called. */
class ProgressBridge {
    private final Progress progress;
    private final Thread caller = Thread.currentThread();
    private volatile Throwable failure;
    private volatile boolean interrupted;

    /** Progress may be null. A thread that is interrupted already begins nothing. */
    ProgressBridge(Progress progress) {
        this.progress = progress;
        if (caller.isInterrupted()) {
            throw new SafetensorsException(Status.CANCELLED, "the thread is interrupted");
        }
    }

    /** Called by the shim, maybe on another thread. */
    final boolean report(long done, long total) {
        try {
            return !isInterrupted()
                    && (progress == null || Callbacks.run(() -> progress.report(done, total) && !isInterrupted()));
        } catch (Throwable thrown) {
            return fail(thrown);
        }
    }

    /** The caller was interrupted, which may not show on the thread any more. */
    void interrupt() {
        interrupted = true;
    }

    final boolean isInterrupted() {
        return interrupted || caller.isInterrupted();
    }

    final boolean fail(Throwable thrown) {
        failure = thrown;
        return false;
    }

    /** What the call has to throw: what a callback threw, or else the error itself. */
    final RuntimeException cause(SafetensorsException error) {
        Throwable thrown = failure;
        return thrown == null ? error : Callbacks.thrown(thrown, error.status(), error.getMessage());
    }
}
