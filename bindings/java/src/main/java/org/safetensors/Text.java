// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.nio.ByteBuffer;
import java.nio.CharBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileSystems;
import java.nio.file.Path;
import java.util.Arrays;

/** Text on its way to native code: real UTF-8, where JNI's own strings would be a changed one. */
final class Text {
    private Text() {}

    /** Refuses half of a surrogate pair, for which UTF-8 has no bytes. */
    static byte[] utf8(String text, String what) {
        try {
            ByteBuffer bytes = StandardCharsets.UTF_8.newEncoder().encode(CharBuffer.wrap(text));
            return Arrays.copyOf(bytes.array(), bytes.limit());
        } catch (CharacterCodingException e) {
            throw new IllegalArgumentException(what + " is not Unicode text: " + quoted(text), e);
        }
    }

    /** UTF-8 for a name to look up; null for half of a surrogate pair, which no file has. */
    static byte[] utf8OrNull(String text) {
        byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
        for (byte one : bytes) {
            // Half of a pair becomes one.
            if (one == '?') {
                return new String(bytes, StandardCharsets.UTF_8).equals(text) ? bytes : null;
            }
        }
        return bytes;
    }

    /** UTF-8 for a C string. */
    static byte[] utf8WithoutNul(String text, String what) {
        if (text.indexOf(0) >= 0) {
            throw new IllegalArgumentException(what + " contains NUL: " + quoted(text));
        }
        return utf8(text, what);
    }

    /** The system's bytes for a path. */
    static byte[] path(Path path) {
        if (path.getFileSystem() != FileSystems.getDefault()) {
            throw new IllegalArgumentException("not a path of the default file system: " + path);
        }
        String text = path.toString();
        if (text.chars().allMatch(c -> c < 0x80)) {
            return text.getBytes(StandardCharsets.US_ASCII);
        }
        // Path.toString() loses bytes that the locale has no character for; the URI has them all, percent-encoded.
        String encoded = path.toUri().getRawPath();
        byte[] bytes = new byte[encoded.length()];
        int length = 0;
        for (int i = 0; i < encoded.length(); i++) {
            char c = encoded.charAt(i);
            if (c == '%') {
                c = (char) Integer.parseInt(encoded, i + 1, i + 3, 16);
                i += 2;
            }
            bytes[length++] = (byte) c;
        }
        return Arrays.copyOf(bytes, length);
    }

    /** As "name", with everything a terminal might obey made visible. */
    static String quoted(String text) {
        StringBuilder out = new StringBuilder("\"");
        text.codePoints().limit(96).forEach(c -> {
            if (c == '"' || c == '\\') {
                out.append('\\').append((char) c);
            } else if (isPlain(c)) {
                out.appendCodePoint(c);
            } else {
                out.append("\\u{").append(Integer.toHexString(c)).append('}');
            }
        });
        return out.append(text.codePointCount(0, text.length()) > 96 ? "\"..." : "\"").toString();
    }

    private static boolean isPlain(int c) {
        return switch (Character.getType(c)) {
            case Character.CONTROL, Character.FORMAT, Character.SURROGATE, Character.UNASSIGNED, Character.PRIVATE_USE,
                    Character.LINE_SEPARATOR, Character.PARAGRAPH_SEPARATOR -> false;
            default -> true;
        };
    }
}
