// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** Memory segments where there are any: on Java 22 and newer, from the jar. By reflection, as this is Java 17. */
@Timeout(60)
class SegmentTest {
    @TempDir
    Path folder;

    private static boolean expected() {
        String place = Safetensors.class.getProtectionDomain().getCodeSource().getLocation().getPath();
        return Runtime.version().feature() >= 22 && place.endsWith(".jar")
                && Safetensors.class.getResource("/META-INF/versions/22/org/safetensors/Segments.class") != null;
    }

    private static Object call(Object segment, String method, Object... arguments) throws ReflectiveOperationException {
        Class<?>[] types = new Class<?>[arguments.length];
        for (int i = 0; i < types.length; i++) {
            types[i] = long.class;
        }
        return Class.forName("java.lang.foreign.MemorySegment").getMethod(method, types).invoke(segment, arguments);
    }

    private Object segmentOfClosed(Path path) throws ReflectiveOperationException {
        try (Checkpoint checkpoint = Checkpoint.open(path, new OpenOptions().access(Access.MAP))) {
            assertThrows(IllegalArgumentException.class, () -> checkpoint.get("w").segment(String.class));
            return checkpoint.get("w").segment(Class.forName("java.lang.foreign.MemorySegment"));
        }
    }

    @Test
    void segments() throws Exception {
        long size = (3L << 30) + 5;
        Path path = folder.resolve("large.safetensors");
        byte[] header = Support.file(Support.header("w", "U8", "[" + size + "]", size), new byte[0]);
        try (RandomAccessFile file = new RandomAccessFile(path.toFile(), "rw")) {
            file.write(header);
            file.setLength(header.length + size); // sparse
            file.seek(header.length + size - 1);
            file.write(77);
        }
        if (!expected()) {
            try (Checkpoint checkpoint = Checkpoint.open(path)) {
                assertThrows(UnsupportedOperationException.class, () -> checkpoint.get("w").segment(Object.class));
            }
            return;
        }
        Object[] segment = {segmentOfClosed(path)};
        System.gc();
        assertEquals(size, call(segment[0], "byteSize"));
        assertEquals(true, call(segment[0], "isReadOnly"));
        segment[0] = call(segment[0], "asSlice", size - 4);
        System.gc();
        assertTrue(Support.isMapped(path), "a slice keeps it");
        assertEquals(77, ((ByteBuffer) call(segment[0], "asByteBuffer")).get(3));
        segment[0] = null;
        Support.collectUntil(() -> !Support.isMapped(path));
    }

    @Test
    void emptySegments() throws Exception {
        Path path = Files.write(folder.resolve("empty.safetensors"), Support.file(Support.header("w", "U8", "[0]", 0), new byte[0]));
        if (expected()) {
            assertEquals(0L, call(segmentOfClosed(path), "byteSize"));
        }
    }

    @Test
    void closedIsClosed() throws Exception {
        Path path = Files.write(folder.resolve("one.safetensors"), Support.file(Support.header("w", "U8", "[1]", 1), new byte[1]));
        Checkpoint checkpoint = Checkpoint.open(path);
        Tensor tensor = checkpoint.get("w");
        checkpoint.close();
        Class<?> type = expected() ? Class.forName("java.lang.foreign.MemorySegment") : Object.class;
        RuntimeException thrown = assertThrows(RuntimeException.class, () -> tensor.segment(type));
        assertEquals(expected() ? IllegalStateException.class : UnsupportedOperationException.class, thrown.getClass());
        assertFalse(Support.isMapped(path));
    }

    /** A buffer over an arena, and what closes that; by plain reflection, as the arena's class is not ours to see. */
    private static ByteBuffer inArena(long size, AutoCloseable[] arena) throws ReflectiveOperationException {
        Class<?> type = Class.forName("java.lang.foreign.Arena");
        arena[0] = (AutoCloseable) type.getMethod("ofShared").invoke(null);
        Object segment = type.getMethod("allocate", long.class, long.class).invoke(arena[0], size, 64L);
        return (ByteBuffer) call(segment, "asByteBuffer");
    }

    @Test
    void anArenaIsNotClosedWhileItsMemoryIsFilled() throws Exception {
        if (!expected()) {
            return;
        }
        byte[] data = {1, 2, 3, 4, 5, 6, 7, 8};
        AutoCloseable[] arena = new AutoCloseable[1];
        Throwable[] thrown = new Throwable[1];
        byte[] file = Support.file(Support.header("w", "U8", "[8]", 8), data);
        ArraySource source = new ArraySource(file) {
            @Override
            public int readAt(long offset, ByteBuffer dst) {
                if (arena[0] != null) {
                    thrown[0] = assertThrows(Exception.class, () -> arena[0].close());
                }
                return super.readAt(offset, dst);
            }
        };
        try (Checkpoint checkpoint = Checkpoint.open(source)) {
            Tensor tensor = checkpoint.get("w");
            for (int way = 0; way < 3; way++) {
                ByteBuffer memory = inArena(4096, arena);
                thrown[0] = null;
                switch (way) {
                    case 0 -> checkpoint.load(List.of(LoadItem.of(tensor, memory.slice(64, 8)), LoadItem.of(tensor, memory.slice(0, 8))));
                    case 1 -> tensor.read(memory);
                    default -> checkpoint.load(List.of(LoadItem.of(tensor)), new LoadOptions().sink(List.of(memory), (bytes, buffer, item, offset) -> {}));
                }
                assertEquals(IllegalStateException.class, thrown[0] == null ? null : thrown[0].getClass(), "way " + way);
                assertEquals(8, memory.get(7));
                arena[0].close();
                RuntimeException late = assertThrows(RuntimeException.class, () -> tensor.read(memory));
                assertEquals(IllegalStateException.class, late.getClass());
                arena[0] = null;
            }
        }
    }
}
