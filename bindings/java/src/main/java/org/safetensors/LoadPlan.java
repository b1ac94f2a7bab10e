// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

/**
 * What a load would do.
 *
 * @param bytes bytes for destinations
 * @param readBytes bytes that will be read
 * @param overReadBytes of those, what nobody asked for
 * @param requests reads
 * @param stagingBytes native memory that staging will take at most
 * @param threads threads at work
 * @param shards files that will be read
 */
public record LoadPlan(
        long bytes, long readBytes, long overReadBytes, long requests, long stagingBytes, int threads, int shards) {}
