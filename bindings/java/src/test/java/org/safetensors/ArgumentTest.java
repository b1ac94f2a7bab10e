// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ReadOnlyBufferException;
import java.nio.file.FileSystem;
import java.nio.file.FileSystems;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.function.Executable;
import org.junit.jupiter.api.io.TempDir;

/** Arguments that make no sense are refused before they reach anything native. */
class ArgumentTest {
    private static final byte[] FILE = Support.file(Support.header("w", "F32", "[4]", 16), new byte[16]);

    @TempDir
    Path folder;

    @Test
    void nullIsRefusedEverywhere() {
        try (Checkpoint checkpoint = Checkpoint.open(ByteBuffer.wrap(FILE))) {
            Tensor tensor = checkpoint.get("w");
            LoadItem item = LoadItem.of(tensor);
            for (Executable call : List.<Executable>of(
                    () -> Checkpoint.open((Path) null), () -> Checkpoint.open((ByteBuffer) null),
                    () -> Checkpoint.open((Source) null), () -> Checkpoint.open(null, "x"),
                    () -> Checkpoint.open(name -> null, (String) null), () -> Checkpoint.open(folder, null),
                    () -> checkpoint.get(null), () -> checkpoint.find(null), () -> checkpoint.load(null),
                    () -> checkpoint.load(List.of(), null), () -> checkpoint.load(Arrays.asList((LoadItem) null)),
                    () -> checkpoint.prefetch(null), () -> checkpoint.prefetch(Arrays.asList((Tensor) null)),
                    () -> checkpoint.plan(null, new LoadOptions()), () -> tensor.read(null), () -> tensor.readSlice(null),
                    () -> tensor.readSlice(ByteBuffer.allocate(16), (Range[]) null),
                    () -> tensor.readSlice(ByteBuffer.allocate(16), (Range) null), () -> tensor.sliceShape((Range) null),
                    () -> LoadItem.of(null), () -> LoadItem.of(tensor, null), () -> item.dtype(null),
                    () -> item.ranges((Range[]) null), () -> checkpoint.load(List.of(item.ranges((Range) null))),
                    () -> item.strides((long[]) null), () -> new LoadOptions().sink(null, null), () -> new LoadOptions().io(null),
                    () -> new OpenOptions().access(null), () -> new OpenOptions().prefetch(null),
                    () -> new SaveOptions().order(null), () -> TensorSpec.of(null, Dtype.F32), () -> TensorSpec.of("a", (Dtype) null),
                    () -> TensorSpec.of((Tensor) null), () -> TensorSpec.of("a", Dtype.F32).data(null),
                    () -> Safetensors.save(null, List.of()), () -> Safetensors.save(folder, null),
                    () -> Safetensors.save(folder, Arrays.asList((TensorSpec) null)), () -> Safetensors.setMetadata(null, Map.of()),
                    () -> Safetensors.serialize(List.of(), null, null), () -> Writer.open(folder, null),
                    () -> Safetensors.convert(null, ByteBuffer.allocate(4), Dtype.F32, ByteBuffer.allocate(4)),
                    () -> Safetensors.convert(Dtype.F32, null, Dtype.F32, ByteBuffer.allocate(4)),
                    () -> Safetensors.convert(Dtype.F32, ByteBuffer.allocate(4), Dtype.F32, null))) {
                assertThrows(NullPointerException.class, call);
            }
        }
    }

    @Test
    void buffersThatCannotBeFilled() {
        try (Checkpoint checkpoint = Checkpoint.open(ByteBuffer.wrap(FILE));
                Checkpoint other = Checkpoint.open(ByteBuffer.wrap(FILE))) {
            Tensor tensor = checkpoint.get("w");
            for (ByteBuffer readOnly : List.of(
                    ByteBuffer.allocate(16).asReadOnlyBuffer(), ByteBuffer.allocateDirect(16).asReadOnlyBuffer(), tensor.buffer())) {
                assertThrows(ReadOnlyBufferException.class, () -> tensor.read(readOnly));
                assertThrows(ReadOnlyBufferException.class, () -> tensor.readSlice(readOnly));
                assertThrows(ReadOnlyBufferException.class, () -> LoadItem.of(tensor, readOnly));
                assertThrows(ReadOnlyBufferException.class, () -> new LoadOptions().sink(List.of(readOnly), (a, b, c, d) -> {}));
                assertThrows(ReadOnlyBufferException.class, () ->
                        Safetensors.convert(Dtype.F32, ByteBuffer.allocate(16), Dtype.F32, readOnly));
            }
            assertThrows(IllegalArgumentException.class, () -> LoadItem.of(tensor, ByteBuffer.allocate(16)));
            ByteBuffer small = ByteBuffer.allocateDirect(16).limit(15);
            Support.assertStatus(Status.BUFFER_SIZE, () -> checkpoint.load(List.of(LoadItem.of(tensor, small))));
            Support.assertStatus(Status.BUFFER_SIZE, () -> tensor.read(small));
            assertThrows(IllegalArgumentException.class, () -> checkpoint.load(List.of(LoadItem.of(other.get("w"), ByteBuffer.allocateDirect(16)))));
            assertThrows(IllegalArgumentException.class, () -> checkpoint.prefetch(List.of(other.get("w"))));
            LoadItem item = LoadItem.of(tensor, ByteBuffer.allocateDirect(16));
            assertThrows(IllegalArgumentException.class, () -> item.strides(4, 4));
            for (long stride : new long[] {0, -4, 1, 8, Long.MIN_VALUE, Long.MAX_VALUE}) {
                assertThrows(SafetensorsException.class, () -> checkpoint.load(List.of(item.strides(stride))));
            }
            Support.assertStatus(Status.UNSUPPORTED, () -> checkpoint.load(List.of(item.dtype(Dtype.I8))));
            Support.assertStatus(Status.INVALID_ARGUMENT, () -> checkpoint.load(List.of(LoadItem.of(tensor))));
            for (List<ByteBuffer> staging : List.of(List.<ByteBuffer>of(), List.of(ByteBuffer.allocateDirect(10)))) {
                assertThrows(SafetensorsException.class, () ->
                        checkpoint.load(List.of(LoadItem.of(tensor)), new LoadOptions().sink(staging, (a, b, c, d) -> {})));
            }
        }
    }

    @Test
    void negativeNumbers() {
        for (Executable call : List.<Executable>of(
                () -> new OpenOptions().maxHeaderSize(-1), () -> new OpenOptions().maxTensors(-1), () -> new OpenOptions().maxRank(-1),
                () -> new OpenOptions().maxNameLength(-1), () -> new LoadOptions().threads(-1), () -> new LoadOptions().stagingBytes(-1),
                () -> new SaveOptions().alignment(-1), () -> new SaveOptions().maxShardSize(-1),
                () -> new SaveOptions().headerReserve(-1), () -> Safetensors.allocate(-1),
                () -> new OpenOptions().access(Access.MEMORY))) {
            assertThrows(IllegalArgumentException.class, call);
        }
    }

    @Test
    void paths() throws IOException {
        SafetensorsException thrown = Support.assertStatus(Status.IO, () -> Checkpoint.open(folder.resolve("none.safetensors")));
        assertEquals(2, thrown.errno(), "ENOENT");
        assertTrue(thrown.getMessage().contains("none.safetensors"));
        assertTrue(thrown.toString().contains("IO"), thrown.toString());
        Path zip = folder.resolve("a.zip");
        try (FileSystem system = FileSystems.newFileSystem(zip, Map.of("create", "true"))) {
            assertThrows(IllegalArgumentException.class, () -> Checkpoint.open(system.getPath("a")));
        }
        assertThrows(IllegalArgumentException.class, () -> Checkpoint.open(name -> new ArraySource(FILE), "a\0b"));
        Path odd = Files.createDirectories(folder.resolve("a%20b +\u00e9\u4e2d\ud83d\ude00"));
        Path file = Files.write(odd.resolve("model.safetensors"), FILE);
        for (Path path : List.of(file, odd, odd.resolve("./model.safetensors"))) {
            try (Checkpoint checkpoint = Checkpoint.open(path)) {
                assertEquals(file.toString(), Path.of(checkpoint.shards().get(0).path()).normalize().toString());
            }
        }
    }

    /** Opens what it finds in a folder. */
    static final class OpenFirst {
        public static void main(String[] arguments) throws IOException {
            try (Stream<Path> files = Files.list(Path.of(arguments[0]));
                    Checkpoint checkpoint = Checkpoint.open(files.findFirst().orElseThrow())) {
                System.out.println("opened " + checkpoint.get("w"));
            }
        }
    }

    @Test
    void pathsThatTheLocaleCannotSay() throws Exception {
        Path inner = Files.createDirectory(folder.resolve("inner"));
        Files.write(inner.resolve("\u00e9\u4e2d.safetensors"), FILE);
        String output = Support.java(List.of(), List.of(OpenFirst.class.getName(), inner.toString()), "LC_ALL=C");
        assertEquals("opened \"w\" F32 [4]", Support.lastLine(output));
    }

    /** The limits of memory are errors, and not the end. */
    @Test
    void allocation() {
        ByteBuffer memory = Safetensors.allocate(1000);
        assertEquals(1000, memory.capacity());
        assertEquals(0, memory.alignmentOffset(0, 64));
        for (int i = 0; i < 1000; i++) {
            assertEquals(0, memory.get(i));
        }
        assertEquals(0, Safetensors.allocate(0).capacity());
    }
}
