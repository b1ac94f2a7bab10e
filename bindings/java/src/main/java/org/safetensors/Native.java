// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.nio.ByteBuffer;

/**
 * The JNI shim's functions, in src/main/c. Pointers cross as long. Who calls has checked the arguments, holds the
 * handle in use, and keeps every buffer reachable whose address it hands over.
 */
final class Native {
    static {
        NativeLibrary.load();
        Classes.load();
    }

    private Native() {}

    /** The library's version. */
    static String version() {
        return NativeLibrary.libraryVersion();
    }

    // Checkpoints. Options are as OpenOptions packs them.

    static native long open(byte[] path, long[] options);

    static native long openMemory(long address, long size, long[] options);

    static native long openSource(SourceBridge source, long[] options);

    static native long openResolved(ResolverBridge resolver, byte[] name, long[] options);

    static native void retain(long checkpoint);

    static native void free(long checkpoint);

    /** Everything about a checkpoint but its bytes, as {@link Records} reads it. */
    static native byte[] records(long checkpoint);

    /** The number of the tensor of this name, in UTF-8; -1: there is none. */
    static native int find(long checkpoint, byte[] name);

    /** Where a tensor's bytes are; reads them first if nothing is mapped. */
    static native long data(long checkpoint, int tensor);

    static native void read(long checkpoint, int tensor, long address, long size);

    /** Ranges are flat: start, stop, step of each. */
    static native void readSlice(long checkpoint, int tensor, long[] ranges, long address, long size);

    /** The shape, and after it the size in bytes. */
    static native long[] sliceShape(long checkpoint, int tensor, long[] ranges);

    /** Items and options are as LoadItem and LoadOptions pack them. */
    static native void load(long checkpoint, long[] items, int count, long[] options, LoadBridge bridge, long cancel);

    static native long[] plan(long checkpoint, long[] items, int count, long[] options);

    static native void prefetch(long checkpoint, int[] tensors);

    static native void validate(byte[] path, long[] options, ReportBridge report);

    // Writing. What is given is as SaveOptions packs it; source may be 0.

    static native void save(byte[] path, long[] given, long source, ProgressBridge bridge);

    /** Address and size of memory for {@link #freeBuffer}. */
    static native long[] serialize(long[] given, long source, ProgressBridge bridge);

    static native long openWriter(byte[] path, long[] given);

    static native void write(long writer, int tensor, long offset, long address, long size);

    static native void finish(long writer);

    static native void freeWriter(long writer);

    static native void setMetadata(byte[] path, long[] given, boolean inPlace, boolean sync);

    // Memory, and what the process may have.

    /** Most open files. */
    static native long descriptorLimit();

    /** Most mappings. */
    static native long mappingLimit();

    /** Aligned to 64 bytes, for {@link #release}. */
    static native long allocate(long size);

    static native void release(long address);

    static native void convert(int from, long source, int to, long target, long count);

    static native void freeBuffer(long address, long size);

    static native ByteBuffer buffer(long address, long size);

    static native long address(ByteBuffer buffer);

    /** The address of a function that calls the first of its nine arguments, for {@link Segments}. */
    static native long caller();

    static native void copy(ByteBuffer from, int size, long to);
}
