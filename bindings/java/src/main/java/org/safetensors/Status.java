// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

/**
 * What went wrong: the rule that was broken. The names are those of the C header without their {@code ST_ERROR_}.
 */
public enum Status {
    /** An argument breaks the rules. */
    INVALID_ARGUMENT(1),
    /** There is no memory; the message says for what and how much. */
    OUT_OF_MEMORY(2),
    /** A system call failed ({@link SafetensorsException#errno()} has its number), or a file ended within a read. */
    IO(3),
    /** No tensor has this name. */
    NOT_FOUND(4),
    /** A destination is too small. */
    BUFFER_SIZE(5),
    /** A callback asked to stop, or the thread was interrupted. */
    CANCELLED(6),
    /** Not possible in this version, or not for this combination. */
    UNSUPPORTED(7),
    /** A fault of the library itself: please report it. */
    INTERNAL(8),
    /** The file ends before its header's length, or before its last tensor. */
    TRUNCATED(9),
    /** The header is longer than the limit, or has more tensors or longer names than the limits allow. */
    HEADER_TOO_LARGE(10),
    /** The header is longer than the file. */
    HEADER_LENGTH(11),
    /** The header does not begin with <code>{</code>. */
    HEADER_START(12),
    /** The header is not UTF-8. */
    HEADER_UTF8(13),
    /** The header is not JSON of the format's form. */
    HEADER_JSON(14),
    /** A tensor, metadata key or field appears twice. */
    DUPLICATE_KEY(15),
    /** The metadata is not a map of strings. */
    METADATA(16),
    /** A dtype is not one of the format's. */
    DTYPE(17),
    /** A shape is not a list of sizes, too large for 64 bits, or of more dimensions than the limit. */
    SHAPE(18),
    /** Data offsets are malformed, or leave a hole or an overlap. */
    OFFSETS(19),
    /** Data offsets hold more or fewer bytes than dtype and shape need. */
    SIZE_MISMATCH(20),
    /** Bytes after the last tensor belong to none; or a writer is to be finished that lacks some. */
    DATA_NOT_COVERED(21),
    /** A tensor of sub-byte elements does not fill whole bytes. */
    SUB_BYTE(22),
    /** The index file is malformed, or a folder has several. */
    INDEX(23),
    /** A shard is missing, or lacks a tensor that the index maps to it. */
    SHARD(24),
    /** A rank plan is wrong, or does not fit the checkpoint. */
    PLAN(25),
    /** A quantised group contradicts itself. */
    GROUP(26),
    /** A config.json can't be read. */
    CONFIG(27),
    /** A code of a newer native library, which this jar does not know; the message says what it is. */
    UNRECOGNIZED(-1);

    private static final Status[] BY_CODE = new Status[28];

    static {
        for (Status status : values()) {
            if (status.code >= 0) {
                BY_CODE[status.code] = status;
            }
        }
    }

    private final int code;

    Status(int code) {
        this.code = code;
    }

    /** {@return the number that C has for it; numbers never change; -1 for {@link #UNRECOGNIZED}} */
    public int code() {
        return code;
    }

    static Status of(int code) {
        return code > 0 && code < BY_CODE.length ? BY_CODE[code] : UNRECOGNIZED;
    }
}
