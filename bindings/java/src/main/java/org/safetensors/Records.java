// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Everything about a checkpoint but its tensors' bytes.
 *
 * @param metadata null where there is none, which differs from one without entries
 */
record Records(List<Shard> shards, List<Tensor> tensors, Map<String, String> metadata) {
    /** From the one block that the shim fills in one crossing. */
    static Records of(byte[] bytes, Checkpoint checkpoint) {
        Reader in = new Reader(bytes);
        List<Shard> shards = in.shards();
        return new Records(shards, in.tensors(checkpoint, shards), in.metadata());
    }

    private static final class Reader {
        private final byte[] bytes;
        private final ByteBuffer in;

        Reader(byte[] bytes) {
            this.bytes = bytes;
            in = ByteBuffer.wrap(bytes).order(ByteOrder.nativeOrder());
        }

        List<Shard> shards() {
            int count = in.getInt();
            List<Shard> found = new ArrayList<>(count);
            for (int i = 0; i < count; i++) {
                found.add(new Shard(text(), in.getLong(), in.getLong(), in.getLong(), Access.of(in.getInt()), text()));
            }
            return Collections.unmodifiableList(found);
        }

        List<Tensor> tensors(Checkpoint checkpoint, List<Shard> shards) {
            int count = in.getInt();
            List<Tensor> found = new ArrayList<>(count);
            for (int i = 0; i < count; i++) {
                String name = text();
                Dtype dtype = Dtype.of(in.getInt());
                String unknown = text();
                boolean mapped = in.getInt() != 0;
                Shard shard = shards.get(in.getInt());
                long offset = in.getLong();
                long size = in.getLong();
                long elements = in.getLong();
                long[] shape = new long[in.getInt()];
                for (int d = 0; d < shape.length; d++) {
                    shape[d] = in.getLong();
                }
                String spelling = unknown == null ? dtype.name() : unknown;
                found.add(new Tensor(checkpoint, i, name, dtype, spelling, shape, elements, shard, offset, size, mapped));
            }
            return Collections.unmodifiableList(found);
        }

        Map<String, String> metadata() {
            int count = in.getInt();
            if (count < 0) {
                return null;
            }
            Map<String, String> found = new LinkedHashMap<>();
            for (int i = 0; i < count; i++) {
                found.put(text(), text());
            }
            return Collections.unmodifiableMap(found);
        }

        /** Null where C has NULL. */
        private String text() {
            int length = in.getInt();
            if (length < 0) {
                return null;
            }
            String text = new String(bytes, in.position(), length, StandardCharsets.UTF_8);
            in.position(in.position() + length);
            return text;
        }
    }
}
