// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.nio.charset.StandardCharsets;

/**
 * What the library refuses, with the rule that was broken. The message names the file, the tensor and the numbers;
 * text from files comes escaped, so it is safe to print.
 */
public final class SafetensorsException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    /** Which rule was broken. */
    private final Status status;

    /** The operating system's error number, or 0. */
    private final int errno;

    /** From the JNI shim: the fields of an {@code st_error}. */
    SafetensorsException(int code, int errno, byte[] message) {
        this(Status.of(code), errno, new String(message, StandardCharsets.UTF_8), null);
    }

    SafetensorsException(Status status, String message) {
        this(status, 0, message, null);
    }

    SafetensorsException(Status status, int errno, String message, Throwable cause) {
        super(message, cause);
        this.status = status;
        this.errno = errno;
    }

    /** {@return which rule was broken} */
    public Status status() {
        return status;
    }

    /** {@return the operating system's error number, or 0 where it had none} */
    public int errno() {
        return errno;
    }

    @Override
    public String toString() {
        return getClass().getName() + ": " + status + ": " + getMessage();
    }
}
