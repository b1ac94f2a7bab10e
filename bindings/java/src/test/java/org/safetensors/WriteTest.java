// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** Writing, held against bytes put together by hand. */
@Timeout(60)
class WriteTest {
    private static final int EEXIST = 17;

    @TempDir
    Path folder;

    private Path path() {
        return folder.resolve("out.safetensors");
    }

    /** The file for a header, padded with spaces to a multiple of 8, and data. */
    private static byte[] padded(String header, byte[] data) {
        int length = header.getBytes(StandardCharsets.UTF_8).length;
        return Support.file(header + " ".repeat((8 - length % 8) % 8), data);
    }

    @Test
    void bytesAreTheReferences() throws IOException {
        List<TensorSpec> tensors = List.of(
                TensorSpec.of("b", new int[] {1, -2}, 2),
                TensorSpec.of("c", Dtype.U8, 3).data(ByteBuffer.wrap(new byte[] {9, 8, 7, 6, 5}, 1, 3)),
                TensorSpec.of("a", new float[] {1.5f}, 1, 1));
        String header = "{\"__metadata__\":{\"k\":\"v\"},\"a\":{\"dtype\":\"F32\",\"shape\":[1,1],\"data_offsets\":[0,4]},"
                + "\"b\":{\"dtype\":\"I32\",\"shape\":[2],\"data_offsets\":[4,12]},"
                + "\"c\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[12,15]}}";
        byte[] wanted = padded(header, new byte[] {0, 0, (byte) 0xc0, 0x3f, 1, 0, 0, 0, -2, -1, -1, -1, 8, 7, 6});
        Safetensors.save(path(), tensors, Map.of("k", "v"));
        assertArrayEquals(wanted, Files.readAllBytes(path()));
        ByteBuffer serialized = Safetensors.serialize(tensors, Map.of("k", "v"));
        assertArrayEquals(wanted, Support.bytes(serialized));
        assertEquals(ByteOrder.LITTLE_ENDIAN, serialized.order());
        try (Checkpoint checkpoint = Checkpoint.open(serialized)) {
            assertEquals(1.5f, checkpoint.get("a").floatBuffer().get());
        }
    }

    @Test
    void everyTextSurvives() {
        List<String> texts = List.of("", "a\0b", "\0", "\ud83d\ude00", "\u00e9\u4e2d", "\"\\\n\u001b", "x".repeat(5000), "12345678", "1234567");
        List<TensorSpec> tensors = texts.stream().map(name -> TensorSpec.of(name, new long[] {name.length()}, 1)).toList();
        Map<String, String> metadata = new LinkedHashMap<>();
        texts.forEach(text -> metadata.put(text, text));
        Safetensors.save(path(), tensors, metadata);
        try (Checkpoint checkpoint = Checkpoint.open(path())) {
            assertEquals(metadata, checkpoint.metadata());
            assertEquals(texts.size(), checkpoint.tensors().size());
            for (String text : texts) {
                assertEquals(text.length(), checkpoint.get(text).longBuffer().get());
            }
        }
        assertThrows(IllegalArgumentException.class, () ->
                Safetensors.save(path(), List.of(TensorSpec.of("\ud83d", new float[1], 1))));
        assertThrows(IllegalArgumentException.class, () -> Safetensors.save(path(), List.of(), Map.of("a", "\ude00")));
    }

    @Test
    void everyDtypeAndShape() {
        List<TensorSpec> tensors = new ArrayList<>();
        for (Dtype dtype : Dtype.values()) {
            if (dtype.bits() > 0) {
                tensors.add(TensorSpec.of(dtype.name(), dtype, 2, 1, 4).data(ByteBuffer.wrap(Support.pattern(dtype.bits()))));
            }
        }
        tensors.add(TensorSpec.of("scalar", new double[] {Math.E}));
        tensors.add(TensorSpec.of("empty", Dtype.F32, 3, 0).data(ByteBuffer.allocate(0)));
        Safetensors.save(path(), tensors);
        try (Checkpoint checkpoint = Checkpoint.open(path())) {
            assertFalse(checkpoint.hasMetadata());
            for (TensorSpec spec : tensors) {
                Tensor tensor = checkpoint.get(spec.name());
                assertEquals(spec.dtype(), tensor.dtype());
                assertArrayEquals(spec.shape(), tensor.shape());
                if (tensor.rank() == 3) {
                    assertArrayEquals(Support.pattern(spec.dtype().bits()), Support.bytes(tensor.buffer()));
                }
            }
            assertEquals(Math.E, checkpoint.get("scalar").doubleBuffer().get());
        }
    }

    @Test
    void copiesOfACheckpoint() throws IOException {
        Safetensors.save(path(), List.of(TensorSpec.of("a", new float[] {1, 2}, 2), TensorSpec.of("e", Dtype.F32, 0)), Map.of());
        for (Access access : List.of(Access.MAP, Access.READ)) {
            try (Checkpoint checkpoint = Checkpoint.open(path(), new OpenOptions().access(access))) {
                assertTrue(checkpoint.hasMetadata());
                Path copy = folder.resolve("copy.safetensors");
                List<TensorSpec> all = checkpoint.tensors().stream().map(TensorSpec::of).toList();
                Safetensors.save(copy, all, checkpoint.metadata());
                assertArrayEquals(Files.readAllBytes(path()), Files.readAllBytes(copy));
                List<TensorSpec> mixed = List.of(
                        TensorSpec.of("x", checkpoint.get("a")), TensorSpec.of("y", new double[] {5}, 1));
                try (Checkpoint renamed = Checkpoint.open(Safetensors.serialize(mixed, null))) {
                    assertEquals(2, renamed.get("x").floatBuffer().get(1));
                    assertEquals(5, renamed.get("y").doubleBuffer().get(0));
                }
                try (Checkpoint other = Checkpoint.open(copy)) {
                    List<TensorSpec> two = List.of(TensorSpec.of("p", checkpoint.get("a")), TensorSpec.of("q", other.get("a")));
                    assertThrows(IllegalArgumentException.class, () -> Safetensors.serialize(two, null));
                }
            }
        }
    }

    @Test
    void optionsReachTheLibrary() throws IOException {
        List<TensorSpec> tensors = List.of(TensorSpec.of("b", new float[1024], 1024), TensorSpec.of("a", new float[1024], 1024));
        Safetensors.save(path(), tensors, null, new SaveOptions().order(SaveOptions.Order.GIVEN).alignment(4096).sync(false));
        try (Checkpoint checkpoint = Checkpoint.open(path())) {
            assertEquals(List.of("b", "a"), checkpoint.tensors().stream().map(Tensor::name).toList());
            assertEquals(4096, checkpoint.shards().get(0).dataOffset());
        }
        SafetensorsException thrown = Support.assertStatus(Status.IO, () ->
                Safetensors.save(path(), tensors, null, new SaveOptions().overwrite(false)));
        assertEquals(EEXIST, thrown.errno());
        Safetensors.save(folder.resolve("sharded.safetensors"), tensors, null, new SaveOptions().maxShardSize(4096));
        try (Checkpoint checkpoint = Checkpoint.open(folder.resolve("sharded.safetensors.index.json"))) {
            assertEquals(2, checkpoint.shards().size());
        }
        Support.assertStatus(Status.UNSUPPORTED, () -> Safetensors.serialize(tensors, null, new SaveOptions().maxShardSize(4096)));
        Support.assertStatus(Status.INVALID_ARGUMENT, () -> Safetensors.serialize(tensors, null, new SaveOptions().alignment(7)));
    }

    @Test
    void refusals() {
        float[] one = {1};
        Support.assertStatus(Status.DUPLICATE_KEY, () ->
                Safetensors.save(path(), List.of(TensorSpec.of("a", one, 1), TensorSpec.of("a", one, 1))));
        Support.assertStatus(Status.SIZE_MISMATCH, () -> Safetensors.save(path(), List.of(TensorSpec.of("a", one, 2))));
        Support.assertStatus(Status.INVALID_ARGUMENT, () -> Safetensors.save(path(), List.of(TensorSpec.of("a", Dtype.F32, 1))));
        Support.assertStatus(Status.INVALID_ARGUMENT, () -> Safetensors.save(path(), List.of(TensorSpec.of("__metadata__", one, 1))));
        Support.assertStatus(Status.INVALID_ARGUMENT, () ->
                Safetensors.save(path(), List.of(TensorSpec.of("a", Dtype.F32, 1).data(ByteBuffer.allocate(0)))));
        Support.assertStatus(Status.SHAPE, () -> Safetensors.save(path(), List.of(TensorSpec.of("a", Dtype.F32, -1))));
        Support.assertStatus(Status.IO, () -> Safetensors.save(folder.resolve("no/such.safetensors"), List.of()));
        assertFalse(Files.exists(path()));
    }

    @Test
    void progressAndCancelling() throws IOException {
        List<TensorSpec> tensors = IntStream.range(0, 8)
                .mapToObj(i -> TensorSpec.of("t" + i, Dtype.U8, 1 << 20).data(ByteBuffer.allocateDirect(1 << 20))).toList();
        List<Long> seen = new ArrayList<>();
        Safetensors.save(path(), tensors, null, new SaveOptions().progress((done, total) -> {
            assertEquals(8 << 20, total);
            return seen.add(done);
        }));
        assertEquals(8 << 20, seen.get(seen.size() - 1));
        byte[] before = Files.readAllBytes(path());
        RuntimeException mine = new RuntimeException("mine");
        Support.assertStatus(Status.CANCELLED, () ->
                Safetensors.save(path(), tensors, Map.of(), new SaveOptions().progress((done, total) -> false)));
        assertSame(mine, assertThrows(RuntimeException.class, () ->
                Safetensors.save(path(), tensors, Map.of(), new SaveOptions().progress((done, total) -> {
                    throw mine;
                }))));
        Thread.currentThread().interrupt();
        Support.assertStatus(Status.CANCELLED, () -> Safetensors.save(path(), tensors, Map.of()));
        assertTrue(Thread.interrupted());
        assertArrayEquals(before, Files.readAllBytes(path()));
        try (Stream<Path> left = Files.list(folder)) {
            assertEquals(List.of(path()), left.toList());
        }
    }

    @Test
    void writerInPiecesAndThreads() throws IOException {
        byte[] data = Support.pattern(300_000);
        List<TensorSpec> specs = IntStream.range(0, 4).mapToObj(i -> TensorSpec.of("t" + i, Dtype.U8, data.length)).toList();
        try (Writer writer = Writer.open(path(), specs, Map.of("k", "v"), new SaveOptions())) {
            writer.write(0, 0, ByteBuffer.wrap(data, 0, 100_000));
            SafetensorsException thrown = Support.assertStatus(Status.DATA_NOT_COVERED, writer::finish);
            assertTrue(thrown.getMessage().contains("t0"), thrown.getMessage());
            assertFalse(Files.exists(path()));
            Support.assertStatus(Status.INVALID_ARGUMENT, () -> writer.write(0, 0, ByteBuffer.wrap(data, 0, 1)));
            Support.assertStatus(Status.INVALID_ARGUMENT, () -> writer.write(4, 0, ByteBuffer.allocate(1)));
            Support.assertStatus(Status.INVALID_ARGUMENT, () -> writer.write(0, data.length, ByteBuffer.allocate(1)));
            Support.assertStatus(Status.NOT_FOUND, () -> writer.write("t9", 0, ByteBuffer.allocate(1)));
            assertThrows(IllegalArgumentException.class, () -> writer.write(-1, 0, ByteBuffer.allocate(1)));
            assertThrows(IllegalArgumentException.class, () -> writer.write(0, -1, ByteBuffer.allocate(1)));
            ByteBuffer direct = ByteBuffer.allocateDirect(data.length).put(data).flip();
            writer.write(0, 100_000, direct.slice(100_000, 200_000));
            IntStream.range(1, 4).parallel().forEach(i -> {
                for (int at = 0; at < data.length; at += 10_000) {
                    writer.write("t" + i, at, direct.slice(at, 10_000));
                }
            });
            writer.finish();
            Support.assertStatus(Status.INVALID_ARGUMENT, writer::finish);
        }
        try (Checkpoint checkpoint = Checkpoint.open(path())) {
            assertEquals(Map.of("k", "v"), checkpoint.metadata());
            checkpoint.tensors().forEach(tensor -> assertEquals(ByteBuffer.wrap(data), tensor.buffer()));
        }
    }

    @Test
    void aWriterThatIsNotFinishedLeavesNothing() throws IOException {
        Writer writer = Writer.open(path(), List.of(TensorSpec.of("t", Dtype.U8, 4)));
        writer.write(0, 0, ByteBuffer.allocate(2));
        writer.close();
        writer.close();
        assertThrows(IllegalStateException.class, writer::finish);
        assertThrows(IllegalStateException.class, () -> writer.write(0, 2, ByteBuffer.allocate(2)));
        try (Stream<Path> left = Files.list(folder)) {
            assertEquals(0, left.count());
        }
    }

    @Test
    void metadata() {
        Safetensors.save(path(), List.of(TensorSpec.of("a", new float[] {7}, 1)), null, new SaveOptions().headerReserve(1000));
        for (Map<String, String> entries : List.of(Map.of("k\0", "\ud83d\ude00"), Map.<String, String>of())) {
            Safetensors.setMetadata(path(), entries, true, false);
            try (Checkpoint checkpoint = Checkpoint.open(path())) {
                assertTrue(checkpoint.hasMetadata());
                assertEquals(entries, checkpoint.metadata());
                assertEquals(7, checkpoint.get("a").floatBuffer().get());
            }
        }
        Safetensors.setMetadata(path(), null, true, true);
        try (Checkpoint checkpoint = Checkpoint.open(path())) {
            assertFalse(checkpoint.hasMetadata());
        }
        Support.assertStatus(Status.BUFFER_SIZE, () -> Safetensors.setMetadata(path(), Map.of("k", "v".repeat(5000)), true, false));
        Support.assertStatus(Status.IO, () -> Safetensors.setMetadata(folder.resolve("none.safetensors"), null));
    }

    @Test
    void conversion() {
        ByteBuffer floats = ByteBuffer.allocate(16).order(ByteOrder.LITTLE_ENDIAN);
        floats.putFloat(1).putFloat(-2.5f).putFloat(1e30f).putFloat(Float.NaN).flip();
        for (ByteBuffer target : List.of(ByteBuffer.allocate(10), ByteBuffer.allocateDirect(10))) {
            target.order(ByteOrder.LITTLE_ENDIAN).position(2);
            Safetensors.convert(Dtype.F32, floats, Dtype.F16, target);
            assertEquals(2, target.position());
            assertEquals(16, floats.remaining());
            assertEquals(0x3c00, target.getShort(2));
            assertEquals((short) 0xc100, target.getShort(4));
            assertEquals(0x7c00, target.getShort(6));
            assertEquals(0x7e00, target.getShort(8) & 0x7e00);
        }
        Support.assertStatus(Status.BUFFER_SIZE, () -> Safetensors.convert(Dtype.F32, floats, Dtype.F16, ByteBuffer.allocate(7)));
        Support.assertStatus(Status.UNSUPPORTED, () -> Safetensors.convert(Dtype.F32, floats, Dtype.I64, ByteBuffer.allocate(99)));
        Support.assertStatus(Status.UNSUPPORTED, () -> Safetensors.convert(Dtype.UNKNOWN, floats, Dtype.F32, ByteBuffer.allocate(99)));
        assertThrows(IllegalArgumentException.class, () ->
                Safetensors.convert(Dtype.F32, ByteBuffer.allocate(6), Dtype.F16, ByteBuffer.allocate(99)));
        Safetensors.convert(Dtype.F32, ByteBuffer.allocate(0), Dtype.F16, ByteBuffer.allocate(0));
        ByteBuffer shared = ByteBuffer.allocateDirect(64);
        Safetensors.convert(Dtype.F32, shared.slice(0, 16), Dtype.F32, shared.slice(16, 16));
        assertThrows(IllegalArgumentException.class, () ->
                Safetensors.convert(Dtype.F32, shared.slice(0, 16), Dtype.F32, shared.slice(15, 16)));
        assertThrows(IllegalArgumentException.class, () ->
                Safetensors.convert(Dtype.F32, shared.slice(16, 16), Dtype.F16, shared.slice(9, 8)));
    }
}
