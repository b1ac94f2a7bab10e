// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

/** Told now and then how far a load or a save has come. */
@FunctionalInterface
public interface Progress {
    /**
     * Called by one thread at a time. What it throws ends the call, which then throws just that.
     *
     * @param done bytes done so far; a call that succeeds has reported {@code done == total}
     * @param total bytes in all
     * @return true to go on; false ends the call with {@link Status#CANCELLED}
     */
    boolean report(long done, long total);
}
