// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.util.List;

/**
 * The classes of this package, all loaded with the native library: one that is first needed to report an error, or to
 * wait for the collector, could not be read where the process has no descriptor left to open its file with.
 */
final class Classes {
    /** By their names in class files. A test compares them with the files. */
    static final List<String> NAMES = List.of(
            "Access", "Callbacks", "Callbacks$1", "Callbacks$Body", "Check", "Checkpoint", "Checkpoint$Call",
            "Checkpoint$View", "Classes", "Dtype", "Given", "Given$Call", "Handle", "Interrupts", "LoadBridge",
            "LoadItem", "LoadOptions", "LoadOptions$Io", "LoadPlan", "Memory", "Memory$Fill", "OpenOptions",
            "OpenOptions$Prefetch", "Ownership", "Packer", "Platform", "Platform$Task", "Problem", "Progress",
            "ProgressBridge", "Range", "Records", "Records$All", "ReportBridge", "Resolver", "ResolverBridge",
            "Safetensors", "Safetensors$Write", "SafetensorsException", "SaveOptions", "SaveOptions$Order", "Scarce",
            "Scarce$Wait", "Segments", "Shard", "Sink", "Source", "SourceBridge", "Status", "Tensor", "TensorSpec",
            "Text", "Writer", "Writer$Call");

    private Classes() {}

    static void load() {
        ClassLoader loader = Classes.class.getClassLoader();
        try {
            for (String name : NAMES) {
                // Initialised when they are used, which takes no files.
                Class.forName("org.safetensors." + name, false, loader);
            }
        } catch (ClassNotFoundException e) {
            // What is used shows itself then.
        }
    }
}
