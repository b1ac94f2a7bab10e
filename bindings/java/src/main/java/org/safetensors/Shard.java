// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

/**
 * One file of a checkpoint. With its path, and a tensor's {@link Tensor#offset()} and {@link Tensor#size()}, a program
 * that has I/O of its own needs no more.
 *
 * @param path its path as text (bytes that are no UTF-8 show as U+FFFD), or the resolver's name for it; null for memory
 *     and a lone {@link Source}
 * @param size bytes in the file
 * @param dataOffset where the data section begins
 * @param dataSize bytes that the tensors in the file take
 * @param access what was chosen: {@link Access#MAP}, {@code READ}, {@code MEMORY} or {@code CALLBACK}
 * @param reason why it was chosen, for people
 */
public record Shard(String path, long size, long dataOffset, long dataSize, Access access, String reason) {}
