// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;

/**
 * Finds and loads the native library: where the system property {@code org.safetensors.library} says, else in
 * {@code java.library.path}, else inside the jar, by operating system and architecture.
 */
final class NativeLibrary {
    /** This jar's version, which the shim must have too: what crosses between them is private to the two. */
    static final String VERSION = "0.1.0";

    private static final String NAME = System.mapLibraryName("safetensors_jni");

    private NativeLibrary() {}

    static void load() {
        String from = loadFrom();
        String shim = shimVersion();
        if (!VERSION.equals(shim)) {
            throw new UnsatisfiedLinkError(
                    from + " is of version " + shim + ", the safetensors jar of version " + VERSION + ": use both of one version");
        }
        int library = abiVersion();
        if (library != shimAbiVersion()) {
            throw new UnsatisfiedLinkError(
                    from + " was built for ABI " + shimAbiVersion() + " of libsafetensors, but runs with "
                            + libraryVersion() + ", which has ABI " + library);
        }
        initialize();
    }

    /** Loads it and says from where. */
    private static String loadFrom() {
        String given = System.getProperty("org.safetensors.library");
        if (given != null) {
            System.load(Path.of(given).toAbsolutePath().toString());
            return given;
        }
        // Not System.loadLibrary: a library that is there and can't be loaded must say why.
        for (String folder : System.getProperty("java.library.path", "").split(File.pathSeparator)) {
            Path file = Path.of(folder, NAME).toAbsolutePath();
            if (!folder.isEmpty() && Files.isRegularFile(file)) {
                System.load(file.toString());
                return file.toString();
            }
        }
        return loadFromJar(platform());
    }

    private static String loadFromJar(String platform) {
        String resource = "/org/safetensors/native/" + platform + "/" + NAME;
        Path folder = null;
        Path file = null;
        try (InputStream bytes = NativeLibrary.class.getResourceAsStream(resource)) {
            if (bytes == null) {
                throw new UnsatisfiedLinkError("this safetensors jar has no " + NAME + " for " + platform
                        + ". Build it for this platform (bindings/java/README.md says how), and name it with"
                        + " -Dorg.safetensors.library=FILE or put its folder into -Djava.library.path");
            }
            // A new folder that only this user can enter: nobody can put another file there.
            folder = Files.createTempDirectory("safetensors");
            file = folder.resolve(NAME);
            Files.copy(bytes, file);
            System.load(file.toString());
            return "jar:" + resource;
        } catch (IOException e) {
            throw linkError("can't unpack " + resource + " into " + System.getProperty("java.io.tmpdir"), e);
        } catch (UnsatisfiedLinkError e) {
            throw file == null ? e : linkError("can't load " + resource + " from " + file
                    + needs(platform) + " (where the folder forbids programs, choose another with -Djava.io.tmpdir): "
                    + e.getMessage(), e);
        } finally {
            // Loaded, it needs its name no more.
            delete(file);
            delete(folder);
        }
    }

    /** What the build has found out about the library in the jar. */
    private static String needs(String platform) {
        String resource = "/org/safetensors/native/" + platform + "/needs";
        try (InputStream bytes = NativeLibrary.class.getResourceAsStream(resource)) {
            String text = bytes == null ? "" : new String(bytes.readAllBytes(), StandardCharsets.UTF_8);
            return text.isEmpty() ? "" : ", which needs " + text;
        } catch (IOException e) {
            return "";
        }
    }

    private static UnsatisfiedLinkError linkError(String text, Throwable cause) {
        UnsatisfiedLinkError error = new UnsatisfiedLinkError(text);
        error.initCause(cause);
        return error;
    }

    private static void delete(Path path) {
        if (path != null && !path.toFile().delete()) {
            path.toFile().deleteOnExit();
        }
    }

    /** As "linux-x86_64". */
    private static String platform() {
        String os = System.getProperty("os.name").toLowerCase(Locale.ROOT);
        String arch = System.getProperty("os.arch").toLowerCase(Locale.ROOT);
        String system = os.startsWith("mac") ? "macos" : os.startsWith("windows") ? "windows" : os.replace(' ', '_');
        return system + "-" + switch (arch) {
            case "amd64", "x86_64" -> "x86_64";
            case "aarch64", "arm64" -> "aarch64";
            default -> arch;
        };
    }

    private static native String shimVersion();

    private static native int shimAbiVersion();

    static native String libraryVersion();

    private static native int abiVersion();

    private static native void initialize();
}
