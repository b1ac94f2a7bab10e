// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Where the native library is looked for, and what is said where it does not fit: each in a JVM of its own. */
class NativeLibraryTest {
    private static final String NAME = System.mapLibraryName("safetensors_jni");

    @TempDir
    Path folder;

    private Path library;

    /** What each of the JVMs runs. */
    public static void main(String[] arguments) {
        System.out.println("runs " + Safetensors.version());
    }

    @BeforeEach
    void copyLibrary() throws IOException {
        String arch = System.getProperty("os.arch").equals("amd64") ? "x86_64" : System.getProperty("os.arch");
        library = folder.resolve("copy.so");
        try (InputStream in = Safetensors.class.getResourceAsStream("native/linux-" + arch + "/" + NAME)) {
            Files.copy(in, library);
        }
    }

    private String run(String... flags) throws Exception {
        return Support.java(List.of(flags), List.of("org.safetensors.NativeLibraryTest"));
    }

    private static void assertContains(String output, String wanted) {
        assertTrue(output.contains(wanted), output);
    }

    @Test
    void fromTheJar() throws Exception {
        Path temporary = Files.createDirectory(folder.resolve("tmp"));
        assertEquals("runs 0.1.0", Support.lastLine(run("-Djava.io.tmpdir=" + temporary)));
        try (Stream<Path> left = Files.list(temporary)) {
            assertEquals(0, left.filter(path -> path.toString().contains("safetensors")).count());
        }
    }

    @Test
    void byProperty() throws Exception {
        assertEquals("runs 0.1.0", Support.lastLine(run("-Dorg.safetensors.library=" + library, "-Djava.io.tmpdir=/nonexistent")));
        assertContains(run("-Dorg.safetensors.library=" + folder.resolve("none.so")), "none.so");
    }

    @Test
    void byLibraryPath() throws Exception {
        Path place = Files.createDirectory(folder.resolve("lib"));
        Files.copy(library, place.resolve(NAME));
        String path = "-Djava.library.path=" + folder + ":" + place;
        assertEquals("runs 0.1.0", Support.lastLine(run(path, "-Djava.io.tmpdir=/nonexistent")));
        Files.writeString(place.resolve(NAME), "no library");
        assertContains(run(path), "UnsatisfiedLinkError");
    }

    @Test
    void unsupportedPlatform() throws Exception {
        assertContains(run("-Dos.arch=s390x"), "has no " + NAME + " for linux-s390x. Build it for this platform");
    }

    @Test
    void noFolderToUnpackInto() throws Exception {
        assertContains(run("-Djava.io.tmpdir=/nonexistent"), "can't unpack");
    }

    @Test
    void whatItNeedsIsSaidWhereItDoesNotLoad() throws Exception {
        String arch = System.getProperty("os.arch").equals("amd64") ? "x86_64" : System.getProperty("os.arch");
        Path native1 = Files.createDirectories(folder.resolve("classes/org/safetensors/native/linux-" + arch));
        Files.writeString(native1.resolve(NAME), "no library");
        String java = Path.of(System.getProperty("java.home"), "bin", "java").toString();
        String output = Support.run(List.of(
                java, "-cp", folder.resolve("classes") + ":" + Support.CLASS_PATH, NativeLibraryTest.class.getName()));
        assertTrue(output.matches("(?s).*which needs (glibc 2\\.\\d+ or newer|musl) .*"), output);
    }

    @Test
    void anotherVersion() throws Exception {
        String bytes = new String(Files.readAllBytes(library), StandardCharsets.ISO_8859_1);
        assertContains(bytes, "0.1.0\0");
        Files.write(library, bytes.replace("0.1.0\0", "0.9.0\0").getBytes(StandardCharsets.ISO_8859_1));
        assertContains(run("-Dorg.safetensors.library=" + library),
                library + " is of version 0.9.0, the safetensors jar of version 0.1.0: use both of one version");
    }
}
