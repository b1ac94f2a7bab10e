// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;

/** Packs arguments into words of 64 bits for one crossing; the shim's struct words reads them. */
final class Packer {
    private long[] words = new long[64];
    private int count;

    Packer put(long word) {
        room(1);
        words[count++] = word;
        return this;
    }

    Packer put(boolean word) {
        return put(word ? 1 : 0);
    }

    /** How many, then each. */
    Packer put(long[] many) {
        put(many.length);
        room(many.length);
        System.arraycopy(many, 0, words, count, many.length);
        count += many.length;
        return this;
    }

    /** How many, then three words for each. */
    Packer put(Range[] ranges) {
        put(ranges.length);
        for (Range range : ranges) {
            put(range.start()).put(range.stop()).put(range.step());
        }
        return this;
    }

    /** Its bytes, then they and a NUL, padded to whole words. */
    Packer put(byte[] text) {
        int needed = text.length / 8 + 1;
        put(text.length);
        room(needed);
        ByteBuffer padded = ByteBuffer.wrap(Arrays.copyOf(text, needed * 8)).order(ByteOrder.nativeOrder());
        padded.asLongBuffer().get(words, count, needed);
        count += needed;
        return this;
    }

    long[] words() {
        return Arrays.copyOf(words, count);
    }

    private void room(int needed) {
        if (words.length - count < needed) {
            words = Arrays.copyOf(words, Math.max(Math.addExact(count, needed), words.length + (words.length >> 1)));
        }
    }
}
