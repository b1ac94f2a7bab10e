// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.io.IOException;
import java.lang.ref.WeakReference;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.function.BooleanSupplier;
import org.junit.jupiter.api.function.Executable;

/** What the tests share. */
final class Support {
    static final Path REPOSITORY = Path.of(System.getProperty("safetensors.repository")).toAbsolutePath().normalize();

    /** Surefire starts with a jar of its own and keeps the real class path in a property. */
    static final String CLASS_PATH = System.getProperty("surefire.test.class.path", System.getProperty("java.class.path"));

    private Support() {}

    /** A file made by hand: the header as text, and data after it. */
    static byte[] file(String header, byte[] data) {
        byte[] text = header.getBytes(StandardCharsets.UTF_8);
        ByteBuffer file = ByteBuffer.allocate(8 + text.length + data.length).order(ByteOrder.LITTLE_ENDIAN);
        return file.putLong(text.length).put(text).put(data).array();
    }

    /** The header of one tensor. */
    static String header(String name, String dtype, String shape, long size) {
        return "{\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":[0," + size + "]}}";
    }

    /** 0, 1, 2, … modulo 251, which no power of two divides. */
    static byte[] pattern(int size) {
        byte[] bytes = new byte[size];
        for (int i = 0; i < size; i++) {
            bytes[i] = (byte) (i % 251);
        }
        return bytes;
    }

    static byte[] bytes(ByteBuffer buffer) {
        byte[] bytes = new byte[buffer.remaining()];
        buffer.duplicate().get(bytes);
        return bytes;
    }

    static SafetensorsException assertStatus(Status status, Executable call) {
        SafetensorsException thrown = assertThrows(SafetensorsException.class, call);
        assertEquals(status, thrown.status(), thrown.getMessage());
        return thrown;
    }

    /** Collects garbage until something is so; it fails by the test's time-out. */
    static void collectUntil(BooleanSupplier so) throws InterruptedException {
        while (!so.getAsBoolean()) {
            System.gc();
            Thread.sleep(10);
        }
    }

    static void collect(WeakReference<?> reference) throws InterruptedException {
        collectUntil(() -> reference.get() == null);
    }

    static boolean isMapped(Path file) {
        try {
            return Files.readString(Path.of("/proc/self/maps"), StandardCharsets.ISO_8859_1).contains(file.toString());
        } catch (IOException e) {
            throw new AssertionError(e);
        }
    }

    /** Runs a JVM like this one, with this class path, and gives what it prints. */
    static String java(List<String> flags, List<String> arguments, String... environment)
            throws IOException, InterruptedException {
        List<String> command = new ArrayList<>(flags);
        command.addAll(List.of("-Dsafetensors.repository=" + REPOSITORY, "-cp", CLASS_PATH));
        command.add(0, Path.of(System.getProperty("java.home"), "bin", "java").toString());
        if (Runtime.version().feature() >= 22) {
            command.add("--enable-native-access=ALL-UNNAMED");
        }
        command.addAll(arguments);
        return run(command, environment);
    }

    /** Runs a program and gives what it prints. */
    static String run(List<String> command, String... environment) throws IOException, InterruptedException {
        ProcessBuilder builder = new ProcessBuilder(command).redirectErrorStream(true);
        for (String variable : environment) {
            String[] parts = variable.split("=", 2);
            builder.environment().put(parts[0], parts[1]);
        }
        Process process = builder.start();
        process.getOutputStream().close();
        String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        process.waitFor();
        return output;
    }

    static String lastLine(String output) {
        String[] lines = output.strip().split("\n");
        return lines[lines.length - 1];
    }
}
