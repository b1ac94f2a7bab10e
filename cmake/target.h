/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a C compiler builds for, in Rust's words: cmake/target.cmake has it
 * preprocess this, and reads processor and C library off the last two lines.
 * (gcc -dumpmachine says linux-gnu of musl-gcc, and of -m32 nothing.)
 */
#include <features.h>

#if defined(__x86_64__) && !defined(__ILP32__)
#define PROCESSOR x86_64
#elif defined(__i386__)
#define PROCESSOR i686
#elif defined(__aarch64__) && defined(__AARCH64EL__) && !defined(__ILP32__)
#define PROCESSOR aarch64
#elif defined(__arm__) && __ARM_ARCH >= 7 && defined(__ARM_PCS_VFP)
#define PROCESSOR armv7
#elif defined(__riscv) && __riscv_xlen == 64
#define PROCESSOR riscv64gc
#elif defined(__powerpc64__) && defined(__LITTLE_ENDIAN__)
#define PROCESSOR powerpc64le
#elif defined(__s390x__)
#define PROCESSOR s390x
#elif defined(__loongarch64)
#define PROCESSOR loongarch64
#endif

#ifdef __GLIBC__
#define LIBRARY gnu
#else
#define LIBRARY musl
#endif

processor PROCESSOR
library LIBRARY
