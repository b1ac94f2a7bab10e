/* SPDX-License-Identifier: Apache-2.0 */
/* How a program talks to the shim (shim.c) that is preloaded into it. */
#ifndef FAULTS_SHIM_H
#define FAULTS_SHIM_H

/* Instead of an errno: the call does half of what it is asked for, or nothing. */
#define FAULT_SHORT (-1)
#define FAULT_ZERO (-2)

/* From now on the number-th call of this name fails with this errno. */
void faults_arm(const char *call, long number, int fault);
/* No call fails any more. Whether one has. */
int faults_disarm(void);
/* Blocks of memory that are allocated now. */
long faults_blocks(void);
/* The n-th call fails, for an n of its own for each call, at random: one in so many. */
void faults_storm(unsigned one_in);

#endif
