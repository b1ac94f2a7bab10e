// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.ReadOnlyBufferException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** What views show, however the bytes are had. */
class ViewTest {
    @TempDir
    Path folder;

    private Path write(String header, byte[] data) throws IOException {
        return Files.write(folder.resolve("model.safetensors"), Support.file(header, data));
    }

    private static OpenOptions with(Access access) {
        return new OpenOptions().access(access);
    }

    @ParameterizedTest
    @EnumSource(names = {"MAP", "READ"})
    void bytesAreThoseOfTheFile(Access access) throws IOException {
        byte[] data = Support.pattern(1000);
        Path path = write(Support.header("w", "U8", "[10,100]", 1000), data);
        try (Checkpoint checkpoint = Checkpoint.open(path, with(access))) {
            Tensor tensor = checkpoint.get("w");
            assertEquals(access == Access.MAP, tensor.isMapped());
            assertEquals(access, tensor.shard().access());
            ByteBuffer view = tensor.buffer();
            assertTrue(view.isDirect());
            assertTrue(view.isReadOnly());
            assertEquals(ByteOrder.LITTLE_ENDIAN, view.order());
            assertThrows(ReadOnlyBufferException.class, () -> view.put(0, (byte) 1));
            assertArrayEquals(data, Support.bytes(view));
            ByteBuffer window = tensor.window(990, 10);
            assertEquals(ByteOrder.LITTLE_ENDIAN, window.order());
            assertTrue(window.isReadOnly());
            assertEquals(view.slice(990, 10), window);
            assertEquals(0, tensor.window(1000, 0).capacity());
            assertThrows(IndexOutOfBoundsException.class, () -> tensor.window(991, 10));
            assertThrows(IndexOutOfBoundsException.class, () -> tensor.window(-1, 10));
            assertThrows(IndexOutOfBoundsException.class, () -> tensor.window(0, -1));
            assertThrows(IndexOutOfBoundsException.class, () -> tensor.window(Long.MAX_VALUE, 10));
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"MAP", "READ"})
    void typesAreReadLittleEndianAtAnyAlignment(Access access) throws IOException {
        for (int shift = 0; shift < 8; shift++) {
            // The U8 before the others, and the header's length, move them to every place.
            String header = "{\"a\":{\"dtype\":\"U8\",\"shape\":[" + shift + "],\"data_offsets\":[0," + shift + "]},"
                    + tensor("f", "F32", shift) + "," + tensor("d", "F64", shift + 16) + "," + tensor("l", "I64", shift + 32)
                    + "," + tensor("i", "U32", shift + 48) + "," + tensor("s", "BF16", shift + 64) + "}";
            ByteBuffer data = ByteBuffer.allocate(shift + 80).order(ByteOrder.LITTLE_ENDIAN).position(shift);
            data.putFloat(1.5f).putFloat(-0f).putFloat(Float.MIN_VALUE).putFloat(3e38f);
            data.putDouble(Math.PI).putDouble(-1e-300);
            data.putLong(Long.MIN_VALUE).putLong(0x0102030405060708L);
            data.putInt(1).putInt(-2).putInt(3).putInt(0x01020304);
            for (short s = -4; s < 4; s++) {
                data.putShort(s);
            }
            try (Checkpoint checkpoint = Checkpoint.open(write(header, data.array()), with(access))) {
                FloatBuffer floats = checkpoint.get("f").floatBuffer();
                assertTrue(floats.isReadOnly());
                assertEquals(FloatBuffer.wrap(new float[] {1.5f, -0f, Float.MIN_VALUE, 3e38f}), floats);
                assertEquals(-1e-300, checkpoint.get("d").doubleBuffer().get(1));
                assertEquals(0x0102030405060708L, checkpoint.get("l").longBuffer().get(1));
                assertEquals(0x01020304, checkpoint.get("i").intBuffer().get(3));
                assertEquals(-3, checkpoint.get("s").shortBuffer().get(1));
                SafetensorsException thrown =
                        Support.assertStatus(Status.UNSUPPORTED, () -> checkpoint.get("s").floatBuffer());
                assertEquals("tensor \"s\" is BF16 and not F32", thrown.getMessage());
            }
        }
    }

    private static String tensor(String name, String dtype, int begin) {
        int count = 128 / Dtype.valueOf(dtype).bits();
        return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":[" + count + "],\"data_offsets\":[" + begin + ","
                + (begin + 16) + "]}";
    }

    @Test
    void emptyTensorsAndScalars() throws IOException {
        String header = "{\"e\":{\"dtype\":\"F32\",\"shape\":[0,7],\"data_offsets\":[0,0]},"
                + "\"s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}";
        try (Checkpoint checkpoint = Checkpoint.open(write(header, new byte[] {0, 0, (byte) 0x80, 0x3f}))) {
            assertEquals(0, checkpoint.get("e").buffer().capacity());
            assertEquals(0, checkpoint.get("e").floatBuffer().capacity());
            assertArrayEquals(new long[] {0, 7}, checkpoint.get("e").shape());
            checkpoint.get("e").read(ByteBuffer.allocate(0));
            assertEquals(1f, checkpoint.get("s").floatBuffer().get());
            assertEquals(0, checkpoint.get("s").rank());
            assertEquals(1, checkpoint.get("s").elementCount());
        }
    }

    /** NewDirectByteBuffer would cut the length to 32 bits and say nothing. */
    @Test
    void overFourGibibytes() throws IOException {
        long size = (4L << 30) + 100;
        Path path = folder.resolve("large.safetensors");
        byte[] header = Support.file(Support.header("w", "U8", "[" + size + "]", size), new byte[0]);
        try (RandomAccessFile file = new RandomAccessFile(path.toFile(), "rw")) {
            file.write(header);
            file.setLength(header.length + size); // sparse
            file.seek(header.length + size - 3);
            file.write(new byte[] {1, 2, 3});
        }
        for (Access access : List.of(Access.MAP, Access.READ)) {
            try (Checkpoint checkpoint = Checkpoint.open(path, with(access))) {
                Tensor tensor = checkpoint.get("w");
                assertEquals(size, tensor.size());
                Support.assertStatus(Status.UNSUPPORTED, tensor::buffer);
                ByteBuffer part = ByteBuffer.allocate(4);
                tensor.readSlice(part, Range.of(-4, Range.END));
                assertArrayEquals(new byte[] {0, 1, 2, 3}, part.array());
                if (access == Access.MAP) {
                    assertArrayEquals(new byte[] {0, 1, 2, 3}, Support.bytes(tensor.window(size - 4, 4)));
                    ByteBuffer most = tensor.window(size - Integer.MAX_VALUE, Integer.MAX_VALUE);
                    assertEquals(3, most.get(Integer.MAX_VALUE - 1));
                }
            }
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"MAP", "READ"})
    void copiesAndSlices(Access access) throws IOException {
        byte[] data = Support.pattern(12);
        Path path = write(Support.header("w", "U8", "[3,4]", 12), data);
        try (Checkpoint checkpoint = Checkpoint.open(path, with(access))) {
            Tensor tensor = checkpoint.get("w");
            for (ByteBuffer dst : List.of(ByteBuffer.allocate(20), ByteBuffer.allocateDirect(20))) {
                dst.position(3);
                tensor.read(dst);
                assertEquals(3, dst.position());
                assertEquals(20, dst.limit());
                assertEquals(ByteBuffer.wrap(data), dst.slice(3, 12));
                assertEquals(0, dst.get(2));
                assertEquals(0, dst.get(15));
                dst.put(3, new byte[17]);
                tensor.readSlice(dst, Range.ALL, Range.of(1, 4, 2));
                assertEquals(ByteBuffer.wrap(new byte[] {1, 3, 5, 7, 9, 11, 0}), dst.slice(3, 7));
                dst.position(9);
                Support.assertStatus(Status.BUFFER_SIZE, () -> tensor.read(dst));
            }
            assertArrayEquals(new long[] {3, 2}, tensor.sliceShape(Range.ALL, Range.of(1, 4, 2)));
            assertEquals(6, tensor.sliceSize(Range.ALL, Range.of(1, 4, 2)));
            assertArrayEquals(new long[] {1, 4}, tensor.sliceShape(Range.at(-1)));
            assertArrayEquals(new long[] {3, 4}, tensor.sliceShape());
            for (Range[] bad : new Range[][] {
                {Range.of(0, 4)}, {Range.of(2, 1)}, {Range.of(0, 1, 0)}, {Range.ALL, Range.ALL, Range.ALL},
                {Range.of(Long.MIN_VALUE, 1)}, {Range.of(0, Long.MIN_VALUE)}, {Range.of(0, 1, -1)}
            }) {
                Support.assertStatus(Status.INVALID_ARGUMENT, () -> tensor.sliceShape(bad));
                Support.assertStatus(Status.INVALID_ARGUMENT, () -> tensor.readSlice(ByteBuffer.allocate(12), bad));
            }
        }
    }

    @Test
    void aFileCutShortIsAnErrorInCopies() throws IOException {
        Path path = write(Support.header("w", "U8", "[100000]", 100000), Support.pattern(100000));
        for (Access access : List.of(Access.MAP, Access.READ)) {
            write(Support.header("w", "U8", "[100000]", 100000), Support.pattern(100000));
            try (Checkpoint checkpoint = Checkpoint.open(path, with(access))) {
                try (RandomAccessFile file = new RandomAccessFile(path.toFile(), "rw")) {
                    file.setLength(1000);
                }
                Support.assertStatus(Status.IO, () -> checkpoint.get("w").read(ByteBuffer.allocate(100000)));
                if (access == Access.READ) {
                    Support.assertStatus(Status.IO, () -> checkpoint.get("w").buffer());
                }
            }
        }
    }

    @Test
    void memory() {
        byte[] file = Support.file(Support.header("w", "U8", "[4]", 4), new byte[] {1, 2, 3, 4});
        ByteBuffer direct = ByteBuffer.allocateDirect(file.length + 5).position(5).put(file).position(5);
        try (Checkpoint checkpoint = Checkpoint.open(direct)) {
            assertEquals(5, direct.position());
            assertEquals(Access.MEMORY, checkpoint.shards().get(0).access());
            ByteBuffer view = checkpoint.get("w").buffer();
            direct.put(direct.limit() - 1, (byte) 9);
            assertEquals(9, view.get(3), "leads into the memory given");
        }
        try (Checkpoint checkpoint = Checkpoint.open(ByteBuffer.wrap(file))) {
            file[file.length - 1] = 7;
            assertEquals(4, checkpoint.get("w").buffer().get(3), "a copy");
        }
        Support.assertStatus(Status.TRUNCATED, () -> Checkpoint.open(ByteBuffer.allocate(0)));
        Support.assertStatus(Status.TRUNCATED, () -> Checkpoint.open(ByteBuffer.allocateDirect(0)));
    }

    @Test
    void listsAndLookups() throws IOException {
        // A NUL, a name beyond the 16 bits of a char, and one that JNI's own UTF-8 would write otherwise.
        String header = "{\"__metadata__\":{\"z\":\"\\u0000\",\"a\":\"\\ud83d\\ude00\"},"
                + "\"a\\u0000b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                + "\"\\ud83d\\ude00\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]},"
                + "\"\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[2,3]}}";
        try (Checkpoint checkpoint = Checkpoint.open(write(header, new byte[] {1, 2, 3}))) {
            List<String> names = checkpoint.tensors().stream().map(Tensor::name).toList();
            assertEquals(List.of("a\0b", "\ud83d\ude00", ""), names);
            for (Tensor tensor : checkpoint.tensors()) {
                assertEquals(tensor, checkpoint.get(tensor.name()));
                assertEquals(tensor, checkpoint.find(tensor.name()).orElseThrow());
                assertEquals(tensor.hashCode(), checkpoint.get(tensor.name()).hashCode());
            }
            assertEquals(3, Set.copyOf(checkpoint.tensors()).size());
            try (Checkpoint other = Checkpoint.open(write(header, new byte[] {1, 2, 3}))) {
                assertFalse(checkpoint.tensors().contains(other.tensors().get(0)));
            }
            assertEquals(2, checkpoint.get("\ud83d\ude00").buffer().get());
            assertEquals(List.of("z=\0", "a=\ud83d\ude00"),
                    checkpoint.metadata().entrySet().stream().map(Object::toString).toList());
            assertTrue(checkpoint.find("a").isEmpty());
            assertTrue(checkpoint.find("\ud83d").isEmpty());
            SafetensorsException thrown = Support.assertStatus(Status.NOT_FOUND, () -> checkpoint.get("\u001b[2J\u202e"));
            assertEquals("no tensor \"\\u{1b}[2J\\u{202e}\" among the 3 there are", thrown.getMessage());
            assertThrows(UnsupportedOperationException.class, () -> checkpoint.tensors().clear());
            assertThrows(UnsupportedOperationException.class, () -> checkpoint.metadata().clear());
            assertThrows(UnsupportedOperationException.class, () -> checkpoint.shards().clear());
            checkpoint.get("").shape()[0] = 5;
            assertArrayEquals(new long[] {1}, checkpoint.get("").shape());
            assertFalse(checkpoint.get("a\0b").toString().contains("\0"));
        }
    }
}
