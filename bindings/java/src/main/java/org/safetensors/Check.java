// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

/** Arguments that can be judged before anything native is asked. */
final class Check {
    private Check() {}

    static long notNegative(long value, String what) {
        if (value < 0) {
            throw new IllegalArgumentException(what + " is negative: " + value);
        }
        return value;
    }
}
