// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

/**
 * What a slice takes from one dimension: the elements start, start + step, … before stop.
 *
 * <p>Negative bounds count from the end. Nothing is clamped: bounds lie within the dimension and start is not over
 * stop; start equal to stop picks nothing. What breaks that is refused when the range is used.
 *
 * @param start first element; negative: from the end
 * @param stop the element after the last; negative: from the end; {@link #END}: the end
 * @param step distance from one to the next, at least 1
 */
public record Range(long start, long stop, long step) {
    /** As a stop: the end of the dimension. */
    public static final long END = Long.MAX_VALUE;

    /** A whole dimension. */
    public static final Range ALL = new Range(0, END, 1);

    /**
     * A range with the step 1.
     *
     * @param start first element
     * @param stop the element after the last
     * @return the range
     */
    public static Range of(long start, long stop) {
        return new Range(start, stop, 1);
    }

    /**
     * A range with a step.
     *
     * @param start first element
     * @param stop the element after the last
     * @param step distance from one to the next
     * @return the range
     */
    public static Range of(long start, long stop, long step) {
        return new Range(start, stop, step);
    }

    /**
     * One element of a dimension, which stays as a dimension of size 1.
     *
     * @param index which; negative: from the end
     * @return the range
     */
    public static Range at(long index) {
        return new Range(index, index == -1 ? END : Math.addExact(index, 1), 1);
    }
}
