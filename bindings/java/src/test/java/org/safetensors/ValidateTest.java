// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** All that is wrong, where opening stops at the first. */
class ValidateTest {
    private static final String TWO = "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]},"
            + "\"\\u0000b\":{\"dtype\":\"F99\",\"shape\":[1],\"data_offsets\":[4,8]}}";

    @TempDir
    Path folder;

    private Path write(String header, int data) throws IOException {
        return Files.write(folder.resolve("x.safetensors"), Support.file(header, new byte[data]));
    }

    @Test
    void nothingIsWrongWithAGoodFile() throws IOException {
        Path good = write(Support.header("w", "U8", "[4]", 4), 4);
        assertEquals(List.of(), Safetensors.validate(good));
        Safetensors.validate(good, new OpenOptions(), problem -> {
            throw new AssertionError(problem);
        });
    }

    @Test
    void everyBrokenRuleIsReported() throws IOException {
        Path path = write(TWO, 9);
        List<Problem> all = Safetensors.validate(path);
        assertEquals(List.of(Status.SIZE_MISMATCH, Status.DTYPE, Status.DATA_NOT_COVERED), all.stream().map(Problem::status).sorted(
                (a, b) -> List.of(Status.SIZE_MISMATCH, Status.DTYPE, Status.DATA_NOT_COVERED).indexOf(a)
                        - List.of(Status.SIZE_MISMATCH, Status.DTYPE, Status.DATA_NOT_COVERED).indexOf(b)).toList());
        for (Problem problem : all) {
            assertEquals(path.toString(), problem.file());
            assertTrue(problem.fatal() && !problem.text().isEmpty(), problem.toString());
            switch (problem.status()) {
                case SIZE_MISMATCH -> assertEquals("a", problem.tensor());
                case DTYPE -> {
                    assertEquals("\0b", problem.tensor());
                    assertTrue(!problem.fatalTolerated(), "unknown dtypes can be tolerated");
                }
                default -> assertNull(problem.tensor());
            }
        }
    }

    @Test
    void theErrorIsThatOfOpening() throws IOException {
        Path path = write(TWO, 9);
        SafetensorsException opened = assertThrows(SafetensorsException.class, () -> Checkpoint.open(path));
        List<Problem> seen = new ArrayList<>();
        SafetensorsException thrown =
                assertThrows(SafetensorsException.class, () -> Safetensors.validate(path, new OpenOptions(), seen::add));
        assertEquals(opened.status(), thrown.status());
        assertEquals(opened.getMessage(), thrown.getMessage());
        assertEquals(3, seen.size());
        assertEquals(List.of(Status.IO),
                Safetensors.validate(folder.resolve("none.safetensors")).stream().map(Problem::status).toList());
    }

    @Test
    void aReportEndsIt() throws IOException {
        Path path = write(TWO, 9);
        List<Problem> seen = new ArrayList<>();
        Support.assertStatus(Status.CANCELLED, () -> Safetensors.validate(path, new OpenOptions(), problem -> {
            seen.add(problem);
            return false;
        }));
        assertEquals(1, seen.size());
        IllegalStateException mine = new IllegalStateException("mine");
        assertSame(mine, assertThrows(IllegalStateException.class, () -> Safetensors.validate(path, new OpenOptions(), problem -> {
            throw mine;
        })));
    }
}
