// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** Loading into memory of the caller's. */
@Timeout(60)
class LoadTest {
    private static final int SIZE = 40 << 20;

    @TempDir
    Path folder;

    private Checkpoint checkpoint;
    private Tensor large;
    private Tensor matrix;
    private byte[] data;

    @BeforeEach
    void open() throws IOException {
        ByteBuffer all = ByteBuffer.allocate(24 + SIZE).order(ByteOrder.LITTLE_ENDIAN);
        for (int i = 0; i < 12; i++) {
            all.putShort((short) (Float.floatToRawIntBits(i - 2.5f) >> 16)); // BF16
        }
        data = Support.pattern(SIZE);
        all.put(data);
        String header = "{\"m\":{\"dtype\":\"BF16\",\"shape\":[3,4],\"data_offsets\":[0,24]},\"w\":{\"dtype\":\"U8\",\"shape\":["
                + SIZE + "],\"data_offsets\":[24," + (24 + SIZE) + "]}}";
        Path path = Files.write(folder.resolve("model.safetensors"), Support.file(header, all.array()));
        checkpoint = Checkpoint.open(path);
        large = checkpoint.get("w");
        matrix = checkpoint.get("m");
    }

    @AfterEach
    void close() {
        checkpoint.close();
    }

    @ParameterizedTest
    @EnumSource
    void allAndPartsAndConverted(LoadOptions.Io io) {
        ByteBuffer whole = Safetensors.allocate(SIZE);
        ByteBuffer part = ByteBuffer.allocateDirect(100).position(10);
        ByteBuffer floats = ByteBuffer.allocateDirect(48).order(ByteOrder.LITTLE_ENDIAN);
        ByteBuffer turned = ByteBuffer.allocateDirect(24).order(ByteOrder.LITTLE_ENDIAN);
        List<LoadItem> items = List.of(
                LoadItem.of(large, whole),
                LoadItem.of(large, part).ranges(Range.of(1000, 1020, 2)),
                LoadItem.of(matrix, floats).dtype(Dtype.F32),
                LoadItem.of(matrix, turned).strides(2, 6));
        List<Long> seen = new ArrayList<>();
        Thread caller = Thread.currentThread();
        LoadOptions options = new LoadOptions().io(io).threads(3).stagingBytes(1 << 20).dropCache(io != LoadOptions.Io.CACHED)
                .progress((done, total) -> {
                    assertSame(caller, Thread.currentThread());
                    assertEquals(SIZE + 10 + 48 + 24, total);
                    return seen.add(done);
                });
        LoadPlan plan = checkpoint.plan(items, options);
        assertEquals(SIZE + 10 + 48 + 24, plan.bytes());
        assertEquals(1, plan.shards());
        assertTrue(plan.threads() >= 1 && plan.threads() <= 3 && plan.requests() > 0 && plan.readBytes() >= SIZE);
        checkpoint.load(items, options);
        assertEquals(ByteBuffer.wrap(data), whole);
        assertEquals(10, part.position());
        for (int i = 0; i < 10; i++) {
            assertEquals(data[1000 + 2 * i], part.get(10 + i));
        }
        assertEquals(0, part.get(20));
        for (int i = 0; i < 12; i++) {
            assertEquals(i - 2.5f, floats.getFloat(4 * i));
            float value = Float.intBitsToFloat(turned.getShort(2 * (i / 4) + 6 * (i % 4)) << 16);
            assertEquals(i - 2.5f, value, "transposed");
        }
        assertEquals(SIZE + 10 + 48 + 24, seen.get(seen.size() - 1));
        assertEquals(seen.stream().sorted().toList(), seen);
    }

    @Test
    void progressCancels() {
        LoadItem item = LoadItem.of(large, ByteBuffer.allocateDirect(SIZE));
        Support.assertStatus(Status.CANCELLED, () ->
                checkpoint.load(List.of(item), new LoadOptions().progress((done, total) -> false)));
        RuntimeException mine = new RuntimeException("mine");
        assertSame(mine, assertThrows(RuntimeException.class, () ->
                checkpoint.load(List.of(item), new LoadOptions().progress((done, total) -> {
                    throw mine;
                }))));
        checkpoint.load(List.of(item));
    }

    @Test
    void anInterruptCancels() {
        LoadItem item = LoadItem.of(large, ByteBuffer.allocateDirect(SIZE));
        LoadOptions options = new LoadOptions().stagingBytes(1 << 16).progress((done, total) -> {
            Thread.currentThread().interrupt();
            return true;
        });
        Support.assertStatus(Status.CANCELLED, () -> checkpoint.load(List.of(item), options));
        assertTrue(Thread.interrupted(), "stays set");
        Thread.currentThread().interrupt();
        Support.assertStatus(Status.CANCELLED, () -> checkpoint.load(List.of(item)));
        assertTrue(Thread.interrupted());
        checkpoint.load(List.of(item));
    }

    @Test
    void sink() {
        byte[] got = new byte[SIZE];
        byte[] small = new byte[48];
        List<ByteBuffer> staging = List.of(ByteBuffer.allocateDirect(1 << 20), ByteBuffer.allocateDirect(1 << 20));
        List<Integer> waited = new ArrayList<>();
        List<Integer> taken = new ArrayList<>();
        Sink sink = new Sink() {
            @Override
            public void chunk(ByteBuffer piece, int buffer, int item, long offset) {
                assertTrue(piece.isReadOnly());
                taken.add(buffer);
                piece.get(item == 0 ? got : small, (int) offset, piece.remaining());
            }

            @Override
            public void await(int buffer) {
                waited.add(buffer);
            }
        };
        checkpoint.load(List.of(LoadItem.of(large), LoadItem.of(matrix).dtype(Dtype.F32)), new LoadOptions().sink(staging, sink));
        assertArrayEquals(data, got);
        assertEquals(8.5f, ByteBuffer.wrap(small).order(ByteOrder.LITTLE_ENDIAN).getFloat(44));
        assertEquals(taken.stream().sorted().toList(), waited.stream().sorted().toList());
    }

    @Test
    void aSinkThatThrows() {
        IllegalStateException mine = new IllegalStateException("mine");
        List<ByteBuffer> staging = List.of(ByteBuffer.allocateDirect(1 << 20));
        assertSame(mine, assertThrows(IllegalStateException.class, () ->
                checkpoint.load(List.of(LoadItem.of(large)), new LoadOptions().sink(staging, (piece, buffer, item, offset) -> {
                    throw mine;
                }))));
        Sink waiting = new Sink() {
            @Override
            public void chunk(ByteBuffer piece, int buffer, int item, long offset) {}

            @Override
            public void await(int buffer) {
                throw mine;
            }
        };
        assertSame(mine, assertThrows(IllegalStateException.class, () ->
                checkpoint.load(List.of(LoadItem.of(large)), new LoadOptions().sink(staging, waiting))));
    }

    /** A tensor of over 2 GiB goes to a sink, or in parts; here the parts. */
    @Test
    void parts() {
        ByteBuffer first = ByteBuffer.allocateDirect(SIZE / 2);
        ByteBuffer second = ByteBuffer.allocateDirect(SIZE / 2);
        checkpoint.load(List.of(
                LoadItem.of(large, second).ranges(Range.of(SIZE / 2, Range.END)),
                LoadItem.of(large, first).ranges(Range.of(0, SIZE / 2))));
        assertEquals(ByteBuffer.wrap(data, 0, SIZE / 2), first);
        assertEquals(ByteBuffer.wrap(data, SIZE / 2, SIZE / 2), second);
    }

    @Test
    void manyItems() {
        ByteBuffer arena = ByteBuffer.allocateDirect(100_000);
        List<LoadItem> items = new ArrayList<>();
        for (int i = 0; i < 100_000; i++) {
            items.add(LoadItem.of(large, arena.position(99_999 - i)).ranges(Range.at(i)));
        }
        checkpoint.load(items);
        for (int i = 0; i < 100_000; i++) {
            assertEquals(data[i], arena.get(99_999 - i));
        }
    }

    @Test
    void prefetch() {
        checkpoint.prefetch();
        checkpoint.prefetch(List.of());
        checkpoint.prefetch(List.of(large, matrix));
        checkpoint.load(List.of());
        assertEquals(0, checkpoint.plan(List.of(), new LoadOptions()).bytes());
    }
}
