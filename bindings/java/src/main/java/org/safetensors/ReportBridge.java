// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.nio.charset.StandardCharsets;
import java.util.function.Predicate;

/** Who hears of problems, as the shim sees it: nothing is thrown through C. */
final class ReportBridge {
    private static final int FATAL_STRICT = 1;
    private static final int FATAL_TOLERANT = 2;

    private final Predicate<Problem> report;
    private Throwable failure;

    ReportBridge(Predicate<Problem> report) {
        this.report = report;
    }

    /** Called by the shim; false ends the call. */
    boolean problem(int code, int fatal, long position, byte[] file, byte[] tensor, byte[] text) {
        try {
            Problem problem = new Problem(Status.of(code), (fatal & FATAL_STRICT) != 0, (fatal & FATAL_TOLERANT) != 0,
                    position, text(file), tensor == null ? null : text(tensor), text(text));
            return Callbacks.run(() -> report.test(problem));
        } catch (Throwable thrown) {
            failure = thrown;
            return false;
        }
    }

    private static String text(byte[] bytes) {
        return new String(bytes, StandardCharsets.UTF_8);
    }

    /** What the call has to throw. */
    RuntimeException cause(SafetensorsException error) {
        return failure == null ? error : Callbacks.thrown(failure, error.status(), error.getMessage());
    }
}
