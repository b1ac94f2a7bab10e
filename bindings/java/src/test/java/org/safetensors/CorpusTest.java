// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.DynamicTest.dynamicTest;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Supplier;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;

/**
 * The conformance table: every file and folder, opened in every way, gives the status and holds the contents that the
 * table says.
 */
class CorpusTest {
    private static final Path CORPUS = Support.REPOSITORY.resolve("tests/corpus");

    @TestFactory
    Stream<DynamicTest> cases() throws IOException {
        Map<String, List<String[]>> contents = rows("contents.tsv", 4).collect(Collectors.groupingBy(cells -> cells[0]));
        List<String[]> cases = rows("corpus.tsv", 7).toList();
        assertTrue(cases.size() > 400);
        return cases.stream().map(cells ->
                dynamicTest(cells[0] + ": " + cells[6], () -> check(cells, contents.getOrDefault(cells[0], List.of()))));
    }

    private static Stream<String[]> rows(String table, int least) throws IOException {
        return Files.readAllLines(CORPUS.resolve(table)).stream().filter(line -> !line.startsWith("#")).map(line -> {
            String[] cells = line.split("\t", -1);
            assertTrue(cells.length >= least, line);
            return cells;
        });
    }

    private static void check(String[] cells, List<String[]> contents) throws IOException {
        Path path = CORPUS.resolve(cells[1]);
        for (Access access : List.of(Access.AUTO, Access.MAP, Access.READ)) {
            check(cells, contents, () -> Checkpoint.open(path, options(cells[2]).access(access)));
        }
        if (cells[2].equals("-")) {
            check(cells, contents, () -> Checkpoint.open(path));
        }
        if (!cells[1].startsWith("files/")) {
            return;
        }
        byte[] file = Files.readAllBytes(path);
        check(cells, contents, () -> Checkpoint.open(ByteBuffer.wrap(file), options(cells[2])));
        for (int most : new int[] {Integer.MAX_VALUE, 9, 18}) {
            ArraySource source = new ArraySource(file, most);
            check(cells, contents, () -> Checkpoint.open(source, options(cells[2])));
            assertEquals(1, source.closed.get());
        }
    }

    private static OpenOptions options(String cell) {
        OpenOptions options = new OpenOptions();
        for (String option : cell.split(",")) {
            String[] parts = option.split("=");
            switch (parts[0]) {
                case "-" -> {}
                case "trailing_bytes" -> options.tolerateTrailingBytes(true);
                case "unknown_dtype" -> options.tolerateUnknownDtypes(true);
                case "max_header_size" -> options.maxHeaderSize(atMost(parts[1]));
                case "max_tensors" -> options.maxTensors(Long.parseLong(parts[1]));
                case "max_rank" -> options.maxRank(Long.parseLong(parts[1]));
                case "max_name_length" -> options.maxNameLength(Long.parseLong(parts[1]));
                case "max_set_bytes" -> options.maxSetBytes(Long.parseLong(parts[1]));
                case "variant" -> options.variant(parts[1]);
                default -> throw new AssertionError("no such option: " + option);
            }
        }
        return options;
    }

    /** No file has more bytes than a long can say. */
    private static long atMost(String unsigned) {
        long value = Long.parseUnsignedLong(unsigned);
        return value < 0 ? Long.MAX_VALUE : value;
    }

    private static void check(String[] cells, List<String[]> contents, Supplier<Checkpoint> open) {
        if (!cells[3].equals("ST_OK")) {
            Status status = Status.valueOf(cells[3].substring("ST_ERROR_".length()));
            SafetensorsException thrown = Support.assertStatus(status, open::get);
            assertTrue(thrown.getMessage().chars().noneMatch(Character::isISOControl), thrown.getMessage());
            return;
        }
        try (Checkpoint checkpoint = open.get()) {
            assertEquals(!cells[5].equals("-"), checkpoint.hasMetadata());
            Map<String, String> metadata = new LinkedHashMap<>();
            List<Tensor> tensors = new ArrayList<>();
            for (String[] row : contents) {
                if (row[1].equals("tensor")) {
                    tensors.add(check(checkpoint, row));
                } else {
                    metadata.put(decode(row[2]), decode(row[3]));
                }
            }
            assertEquals(List.copyOf(metadata.entrySet()), List.copyOf(checkpoint.metadata().entrySet()));
            assertEquals(new HashMap<>(byName(tensors)), byName(checkpoint.tensors()));
        }
    }

    private static Map<String, Tensor> byName(List<Tensor> tensors) {
        return tensors.stream().collect(Collectors.toMap(Tensor::name, tensor -> tensor));
    }

    private static Tensor check(Checkpoint checkpoint, String[] row) {
        Tensor tensor = checkpoint.get(decode(row[2]));
        assertEquals(decode(row[2]), tensor.name());
        assertEquals(decode(row[3]), tensor.dtypeName());
        assertEquals(tensor.dtype() == Dtype.UNKNOWN ? tensor.dtypeName() : tensor.dtype().name(), tensor.dtypeName());
        String shape = Arrays.stream(tensor.shape()).mapToObj(Long::toString).collect(Collectors.joining("x"));
        assertEquals(row[4], shape.isEmpty() ? "-" : shape);
        assertEquals(Arrays.stream(tensor.shape()).reduce(1, (a, b) -> a * b), tensor.elementCount());
        assertEquals(Integer.parseInt(row[5]), checkpoint.shards().indexOf(tensor.shard()));
        assertEquals(Long.parseLong(row[6]), tensor.offset());
        assertEquals(Long.parseLong(row[7]), tensor.size());
        ByteBuffer copy = ByteBuffer.allocate((int) tensor.size() + 1).limit((int) tensor.size());
        tensor.read(copy);
        assertEquals(Long.parseUnsignedLong(row[8], 16), fnv1a(Support.bytes(copy)));
        assertEquals(copy, tensor.buffer());
        return tensor;
    }

    private static long fnv1a(byte[] bytes) {
        long hash = 0xcbf29ce484222325L;
        for (byte one : bytes) {
            hash = (hash ^ (one & 0xff)) * 0x100000001b3L;
        }
        return hash;
    }

    /** Percent-encoded text; "-" is none. */
    private static String decode(String cell) {
        if (cell.equals("-")) {
            return "";
        }
        byte[] from = cell.getBytes(StandardCharsets.UTF_8);
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        for (int i = 0; i < from.length; i++) {
            if (from[i] == '%') {
                bytes.write(Integer.parseInt(cell, i + 1, i + 3, 16));
                i += 2;
            } else {
                bytes.write(from[i]);
            }
        }
        return bytes.toString(StandardCharsets.UTF_8);
    }
}
