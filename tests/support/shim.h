/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A library to preload (shim.c) that has calls of the C library fail, or do
 * less, on demand; it also writes down who calls what, and counts blocks of
 * memory. A process is given rules as it starts, in the environment:
 *
 *     FAULTS='pread@m.safetensors:from=3:fails=5; fsync:nothing'
 *
 * or gives itself other ones with faults(), where each count begins anew. A
 * rule is calls, and words after colons:
 *
 *     calls    one of CALLS in shim.c or several, with commas, counted as one;
 *              pread is preadv as well
 *     @TEXT    only with this text in the path, or in that of the descriptor
 *     least=N  only for N bytes or more
 *     nth=N    of those the N-th alone; from=N: that and all later ones;
 *              one_in=N: any, at random. By default all
 *
 * and what is to happen, by default nothing but the line in the log:
 *
 *     fails=N  the call fails with this errno (close: after it has closed)
 *     nothing  it does nothing, and returns 0
 *     kill     the process ends before it
 *     half     it does half of what it is asked for; most=N: at most N bytes
 *     swap=A,B the file A is renamed to B before
 *     wait=N   it returns N microseconds later (open)
 *     type=N   the file system is said to be of this type (fstatfs)
 *     clone    blocks are copied where they can't be shared (ioctl)
 *
 * A call meets the rules in their order, up to one that fails it, has it do
 * nothing or kills. An unknown word ends the process.
 */
#ifndef SHIM_H
#define SHIM_H

/* From now on these rules, or none if NULL; how many times the earlier ones were met. */
long faults(const char *rules);

/*
 * What has met a rule since then, a line each: the call, the path, what else
 * there is to say (open: whether the file is created, and for whom; pread and
 * pwrite: "direct" past the page cache; fadvise: from and to where bytes are
 * dropped; rename and link: the other path), the words of the rule, the thread;
 * with tabs between. Forks share it. FAULTS_LOG names a file that has it
 * also after the process was killed, up to the first NUL.
 */
const char *faults_log(void);

/* Blocks of memory that are allocated now. */
long faults_blocks(void);

#endif
