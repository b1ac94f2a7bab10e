// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.TreeMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;

/** Names and numbers are those of the C header and of Cargo.toml. */
class NumbersTest {
    private static Map<String, Integer> defines(String prefix) throws IOException {
        String header = Files.readString(Support.REPOSITORY.resolve("include/safetensors.h"));
        Map<String, Integer> found = new TreeMap<>();
        Matcher match = Pattern.compile("#define " + prefix + "(\\w+) (\\d+)\n").matcher(header);
        while (match.find()) {
            found.put(match.group(1), Integer.parseInt(match.group(2)));
        }
        return found;
    }

    @Test
    void statuses() throws IOException {
        Map<String, Integer> here = new TreeMap<>();
        for (Status status : Status.values()) {
            here.put(status.name(), status.code());
            assertEquals(status, Status.of(status.code()));
        }
        assertEquals(defines("ST_ERROR_"), here);
    }

    @Test
    void dtypes() throws IOException {
        Map<String, Integer> wanted = defines("ST_DTYPE_");
        assertEquals(0, wanted.remove("AS_STORED"));
        Map<String, Integer> here = new TreeMap<>();
        for (Dtype dtype : Dtype.values()) {
            here.put(dtype.name(), dtype.number());
            assertEquals(dtype, Dtype.of(dtype.number()));
            Matcher bits = Pattern.compile("[A-Z]+(\\d+).*").matcher(dtype.name());
            if (bits.matches()) {
                assertEquals(Integer.parseInt(bits.group(1)), dtype.bits(), dtype.name());
            }
        }
        assertEquals(wanted, here);
    }

    @Test
    void options() throws IOException {
        Map<String, Integer> access = defines("ST_ACCESS_");
        assertEquals(access.size(), Access.values().length);
        for (Access one : Access.values()) {
            assertEquals(access.get(one.name()), one.number());
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
