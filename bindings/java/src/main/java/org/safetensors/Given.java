// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.lang.ref.Reference;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** What the functions that write are given, packed for the shim, and the memory that it points into. */
final class Given {
    private final Packer packer = new Packer();
    private final List<Memory> memory = new ArrayList<>();
    private Checkpoint source;

    Given(List<TensorSpec> tensors, Map<String, String> metadata, SaveOptions options) {
        options.pack(packer);
        packer.put(tensors.size());
        for (TensorSpec tensor : tensors) {
            pack(tensor);
        }
        pack(packer, metadata);
    }

    private void pack(TensorSpec tensor) {
        packer.put(Text.utf8(tensor.name(), "a tensor's name")).put(tensor.dtype().number()).put(tensor.shape());
        Tensor copied = tensor.source();
        if (copied != null) {
            source = source == null ? copied.checkpoint() : source;
            packer.put(0).put(copied.size()).put(copied.indexIn(source));
            return;
        }
        Memory bytes = tensor.memory();
        if (bytes == null) {
            packer.put(0).put(0).put(-1);
            return;
        }
        memory.add(bytes);
        // C takes a size of 0 for "as dtype and shape say", and no bytes are none: data must not be there.
        packer.put(bytes.size() == 0 ? 0 : bytes.address()).put(bytes.size()).put(-1);
    }

    /** -1 for null, which is no metadata; else how many entries, and they. */
    static void pack(Packer packer, Map<String, String> metadata) {
        packer.put(metadata == null ? -1 : metadata.size());
        if (metadata != null) {
            metadata.forEach((key, value) -> {
                packer.put(Text.utf8(key, "a metadata key")).put(Text.utf8(value, "a metadata value"));
            });
        }
    }

    /** A native call with what is given, and the pointer of the checkpoint that tensors are copied from, or 0. */
    interface Call<T> {
        T with(long[] given, long source);
    }

    <T> T use(Call<T> call) {
        try {
            return source == null ? call.with(packer.words(), 0) : source.use(p -> call.with(packer.words(), p));
        } finally {
            Reference.reachabilityFence(memory);
        }
    }
}
