// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

/**
 * One rule that a file breaks.
 *
 * @param status the rule
 * @param fatal whether {@code Checkpoint.open} refuses the file for it
 * @param fatalTolerated whether it does so also with everything tolerated that {@link OpenOptions} can
 * @param position the byte in the file where it shows
 * @param file the file's path
 * @param tensor the tensor it is about, a stranger's text; null where it is about none
 * @param text what is wrong, with the numbers; safe to print
 */
public record Problem(
        Status status, boolean fatal, boolean fatalTolerated, long position, String file, String tensor, String text) {}
