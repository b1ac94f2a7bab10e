// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.TreeMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;

/** Names and numbers are those of the C header and of Cargo.toml. */
class NumbersTest {
    /** What the first release has; a newer library may have more of each. */
    private static Map<String, Integer> defines(String prefix) throws IOException {
        Map<String, Integer> first = defines(prefix, "tests/contract/abi/0.1/safetensors.h");
        Map<String, Integer> now = defines(prefix, "include/safetensors.h");
        first.forEach((name, number) -> assertEquals(number, now.get(name), prefix + name));
        return first;
    }

    private static Map<String, Integer> defines(String prefix, String path) throws IOException {
        String header = Files.readString(Support.REPOSITORY.resolve(path));
        Map<String, Integer> found = new TreeMap<>();
        Matcher match = Pattern.compile("#define " + prefix + "(\\w+) (\\d+)\n").matcher(header);
        while (match.find()) {
            found.put(match.group(1), Integer.parseInt(match.group(2)));
        }
        return found;
    }

    /** All of the first release is here, and what is here has the header's number. */
    private static void assertAgree(String prefix, Map<String, Integer> here) throws IOException {
        assertTrue(here.entrySet().containsAll(defines(prefix).entrySet()), here.toString());
        assertTrue(defines(prefix, "include/safetensors.h").entrySet().containsAll(here.entrySet()), here.toString());
    }

    @Test
    void statuses() throws IOException {
        Map<String, Integer> here = new TreeMap<>();
        for (Status status : Status.values()) {
            here.put(status.name(), status.code());
            assertEquals(status, Status.of(status.code()));
        }
        assertEquals(-1, here.remove("UNRECOGNIZED"));
        assertAgree("ST_ERROR_", here);
    }

    @Test
    void dtypes() throws IOException {
        Map<String, Integer> here = new TreeMap<>(Map.of("AS_STORED", 0));
        for (Dtype dtype : Dtype.values()) {
            here.put(dtype.name(), dtype.number());
            assertEquals(dtype, Dtype.of(dtype.number()));
            Matcher bits = Pattern.compile("[A-Z]+(\\d+).*").matcher(dtype.name());
            if (bits.matches()) {
                assertEquals(Integer.parseInt(bits.group(1)), dtype.bits(), dtype.name());
            }
        }
        assertEquals(-1, here.remove("UNRECOGNIZED"));
        assertAgree("ST_DTYPE_", here);
    }

    @Test
    void whatANewerLibraryHasIsAValueOfItsOwn() {
        for (int number : new int[] {-1, 23, 254, 256, Integer.MAX_VALUE, Integer.MIN_VALUE}) {
            assertEquals(Dtype.UNRECOGNIZED, Dtype.of(number));
        }
        for (int number : new int[] {-1, 5, 99}) {
            assertEquals(Access.UNRECOGNIZED, Access.of(number));
        }
        for (int code : new int[] {0, -1, 1000}) {
            assertEquals(Status.UNRECOGNIZED, Status.of(code));
        }
        assertEquals(0, Dtype.UNRECOGNIZED.bits());
        assertThrows(IllegalArgumentException.class, () -> new OpenOptions().access(Access.UNRECOGNIZED));
    }

    /** A block as the shim of a newer library would fill it. */
    @Test
    void aTensorOfAnUnrecognizedDtypeHasItsSpelling() {
        byte[] texts = "weightF2".getBytes(StandardCharsets.UTF_8);
        int rows = 4 + (4 + 1 + 24 + 4 + 4) + 4 + 4;
        ByteBuffer block = ByteBuffer.allocate(rows + 44 + texts.length).order(ByteOrder.nativeOrder());
        block.putInt(1).putInt(1).put((byte) 'f').putLong(100).putLong(8).putLong(92).putInt(9).putInt(0);
        block.putInt(-1).putInt(1);
        assertEquals(rows, block.position());
        block.putLong(8).putLong(92).putInt(rows + 44).putInt(6).putInt(0).putInt(77).putInt(0);
        block.putInt(2).putInt(1).put(texts);
        Tensor tensor = new Records(block.array(), null).tensors().get(0);
        assertEquals(Dtype.UNRECOGNIZED, tensor.dtype());
        assertEquals("F2", tensor.dtypeName());
        assertEquals("weight", tensor.name());
        assertEquals(Access.UNRECOGNIZED, tensor.shard().access());
        assertTrue(assertThrows(SafetensorsException.class, tensor::floatBuffer).getMessage().contains("is F2 and not F32"));
    }

    @Test
    void options() throws IOException {
        Map<String, Integer> access = defines("ST_ACCESS_");
        assertEquals(access.size(), Access.values().length - 1);
        for (Access one : Access.values()) {
            assertEquals(one == Access.UNRECOGNIZED ? 5 : access.get(one.name()), one.number());
        }
        Map<String, Integer> prefetch = defines("ST_PREFETCH_");
        for (OpenOptions.Prefetch one : OpenOptions.Prefetch.values()) {
            assertEquals(prefetch.get(one.name()), one.ordinal());
        }
        Map<String, Integer> order = defines("ST_ORDER_");
        for (SaveOptions.Order one : SaveOptions.Order.values()) {
            assertEquals(order.get(one.name()), one.ordinal());
        }
        Map<String, Integer> io = defines("ST_IO_");
        for (LoadOptions.Io one : LoadOptions.Io.values()) {
            assertEquals(io.get(one.name()), one.ordinal());
        }
        assertEquals(Map.of("TRAILING_BYTES", 1, "UNKNOWN_DTYPE", 2), defines("ST_TOLERATE_"));
        assertEquals(Map.of("FULL", 0, "NONE", 1), defines("ST_SYNC_"));
        assertEquals(Map.of("REPLACE", 0, "REFUSE", 1), defines("ST_OVERWRITE_"));
    }

    @Test
    void versions() throws IOException {
        assertEquals(NativeLibrary.VERSION, Safetensors.version());
        Path pom = Support.REPOSITORY.resolve("bindings/java/pom.xml");
        assertTrue(Files.readString(pom).contains("<artifactId>safetensors</artifactId>\n  <version>" + NativeLibrary.VERSION + "<"));
        Path cargo = Support.REPOSITORY.resolve("Cargo.toml");
        assertTrue(Files.readString(cargo).contains("\nversion = \"" + NativeLibrary.VERSION + "\"\n"));
    }
}
