// SPDX-License-Identifier: Apache-2.0
/**
 * Reads and writes safetensors checkpoints, over the native library. Begin with
 * {@link org.safetensors.Checkpoint#open(java.nio.file.Path)}.
 *
 * <p>No method moves the position or limit of a buffer that it is given. Misuse is an {@link IllegalArgumentException},
 * {@link NullPointerException}, {@link IndexOutOfBoundsException} or (after closing) {@link IllegalStateException};
 * everything else that goes wrong is a {@link org.safetensors.SafetensorsException} with its
 * {@link org.safetensors.Status}.
 *
 * <p>While a load or a read fills direct buffers over arenas of {@code java.lang.foreign}, these can't be closed: their
 * {@code close} throws {@link IllegalStateException} (of one call, 512 arenas are held). A buffer that is read from must not
 * lose its memory while a call uses it, nor while a checkpoint is open that was opened from it.
 */
package org.safetensors;
