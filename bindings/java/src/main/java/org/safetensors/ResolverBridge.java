// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.nio.charset.StandardCharsets;
import java.util.Objects;

/** A {@link Resolver} as the shim sees it: nothing is thrown through C. */
final class ResolverBridge {
    private final Resolver resolver;
    private final Callbacks failures;
    /** The number of what {@link #open} threw; read by the shim. */
    private int failure;

    ResolverBridge(Resolver resolver, Callbacks failures) {
        this.resolver = resolver;
        this.failures = failures;
    }

    /** Called by the shim. Null after a failure. */
    SourceBridge open(byte[] name) {
        try {
            String text = new String(name, StandardCharsets.UTF_8);
            Source source = Callbacks.run(() -> resolver.open(text));
            Objects.requireNonNull(source, "Resolver.open");
            return SourceBridge.of(source, failures);
        } catch (Throwable thrown) {
            failure = failures.keep(thrown);
            return null;
        }
    }
}
