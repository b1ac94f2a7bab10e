// SPDX-License-Identifier: Apache-2.0
// The JNI shim: the native methods of org.safetensors.Native over the C
// functions, and nothing more. Java has checked the arguments; a pointer
// crosses as a jlong.
//
// After every JNI call that can fail its result is checked, and a function
// returns at once while a Java exception is pending. Callbacks of Java's never
// throw: they are bridges, which catch everything and say so by their result.

#ifndef SAFETENSORS_JNI_SHIM_H
#define SAFETENSORS_JNI_SHIM_H

#include <jni.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <safetensors.h>

static inline void *pointer_of(jlong value)
{
    return (void *)(uintptr_t)value;
}

static inline jlong value_of(const void *pointer)
{
    return (jlong)(uintptr_t)pointer;
}

// The bridges' methods and fields, found once by initialize.
typedef struct bridges {
    jmethodID source_read_at, source_release, resolver_open, progress_report, load_chunk, load_await, report_problem;
    jfieldID source_size, source_preferred_read, source_max_parallel, resolver_failure;
} bridges;
extern bridges bridge;

// This thread's environment. A thread of the library's is attached to the JVM
// for as long as it lives. NULL where that fails.
JNIEnv *environment(void);

// Throws a SafetensorsException.
void throw_error(JNIEnv *env, const st_error *error);
void throw_out_of_memory(JNIEnv *env, const char *what);

// What a callback reports after its bridge has failed. NULL is fine for error.
st_status callback_failed(st_error *error, st_status code, int32_t os_errno, const char *message);

// Clears an exception that came out of a bridge (its first line ran out of
// stack or memory), and says whether there was one.
bool exception_cleared(JNIEnv *env);

// A byte[] as a NUL-terminated copy, to be freed; NULL: an exception is pending.
char *text_of(JNIEnv *env, jbyteArray bytes);

// A long[] of a few values; NULL: an exception is pending.
jlongArray longs_of(JNIEnv *env, const jlong *values, size_t count);

// st_load_options.progress and its like: user_data is a ProgressBridge.
int32_t progress_report(void *user_data, uint64_t done, uint64_t total);

// What Packer.java packs, read word by word.
typedef struct words {
    const jlong *next;
} words;

static inline jlong next_word(words *from)
{
    return *from->next++;
}

static inline const char *next_text(words *from, size_t *length)
{
    *length = (size_t)next_word(from);
    const char *text = (const char *)from->next;
    from->next += *length / 8 + 1;
    return text;
}

#endif
