// SPDX-License-Identifier: Apache-2.0
// What all of the shim needs: classes, threads, exceptions, memory.

#define _POSIX_C_SOURCE 200809L
#include "shim.h"

#include <pthread.h>
#include <stdio.h>
#include <sys/resource.h>

bridges bridge;
static JavaVM *vm;
static jclass exception_class;
static jmethodID exception_new;
static pthread_key_t attached;

// ------------------------------------------------------------------- threads

static void detach(void *unused)
{
    (void)unused;
    (*vm)->DetachCurrentThread(vm);
}

JNIEXPORT jint JNICALL JNI_OnLoad(JavaVM *loading, void *reserved)
{
    (void)reserved;
    vm = loading;
    return pthread_key_create(&attached, detach) == 0 ? JNI_VERSION_10 : JNI_ERR;
}

JNIEXPORT void JNICALL JNI_OnUnload(JavaVM *unloading, void *reserved)
{
    (void)reserved;
    JNIEnv *env = NULL;
    pthread_key_delete(attached);
    if (exception_class != NULL && (*unloading)->GetEnv(unloading, (void **)&env, JNI_VERSION_10) == JNI_OK) {
        (*env)->DeleteGlobalRef(env, exception_class);
    }
}

JNIEnv *environment(void)
{
    JNIEnv *env = NULL;
    if ((*vm)->GetEnv(vm, (void **)&env, JNI_VERSION_10) == JNI_OK) {
        return env;
    }
    char name[] = "safetensors";
    JavaVMAttachArgs how = {JNI_VERSION_10, name, NULL};
    if ((*vm)->AttachCurrentThreadAsDaemon(vm, (void **)&env, &how) != JNI_OK) {
        return NULL;
    }
    // Any value but NULL: detach is called when the thread ends.
    pthread_setspecific(attached, vm);
    return env;
}

// --------------------------------------------------------------- exceptions

void throw_error(JNIEnv *env, const st_error *error)
{
    jsize length = (jsize)strlen(error->message);
    jbyteArray message = (*env)->NewByteArray(env, length);
    if (message == NULL) {
        return;
    }
    (*env)->SetByteArrayRegion(env, message, 0, length, (const jbyte *)error->message);
    jobject thrown = (*env)->NewObject(env, exception_class, exception_new, error->code, error->os_errno, message);
    if (thrown != NULL) {
        (*env)->Throw(env, thrown);
    }
}

void throw_out_of_memory(JNIEnv *env, const char *what)
{
    st_error error = {ST_ERROR_OUT_OF_MEMORY, 0, ""};
    snprintf(error.message, sizeof error.message, "no memory for %s", what);
    throw_error(env, &error);
}

st_status callback_failed(st_error *error, st_status code, int32_t os_errno, const char *message)
{
    if (error != NULL) {
        error->code = code;
        error->os_errno = os_errno;
        snprintf(error->message, sizeof error->message, "%s", message);
    }
    return code;
}

bool exception_cleared(JNIEnv *env)
{
    if (!(*env)->ExceptionCheck(env)) {
        return false;
    }
    (*env)->ExceptionClear(env);
    return true;
}

// ------------------------------------------------------------------- arrays

char *text_of(JNIEnv *env, jbyteArray bytes)
{
    jsize length = (*env)->GetArrayLength(env, bytes);
    char *text = malloc((size_t)length + 1);
    if (text == NULL) {
        throw_out_of_memory(env, "a path");
        return NULL;
    }
    (*env)->GetByteArrayRegion(env, bytes, 0, length, (jbyte *)text);
    text[length] = 0;
    return text;
}

jlongArray longs_of(JNIEnv *env, const jlong *values, size_t count)
{
    jlongArray array = (*env)->NewLongArray(env, (jsize)count);
    if (array != NULL) {
        (*env)->SetLongArrayRegion(env, array, 0, (jsize)count, values);
    }
    return array;
}

// ----------------------------------------------------------------- progress

int32_t progress_report(void *user_data, uint64_t done, uint64_t total)
{
    JNIEnv *env = environment();
    if (env == NULL) {
        return 1;
    }
    jboolean goes_on = (*env)->CallBooleanMethod(env, user_data, bridge.progress_report, (jlong)done, (jlong)total);
    return exception_cleared(env) || !goes_on;
}

// ------------------------------------------------- methods of NativeLibrary

#define STRING_OF(number) #number
#define VERSION(major, minor, patch) STRING_OF(major) "." STRING_OF(minor) "." STRING_OF(patch)

JNIEXPORT jstring JNICALL Java_org_safetensors_NativeLibrary_shimVersion(JNIEnv *env, jclass class)
{
    (void)class;
    return (*env)->NewStringUTF(
        env, VERSION(SAFETENSORS_VERSION_MAJOR, SAFETENSORS_VERSION_MINOR, SAFETENSORS_VERSION_PATCH));
}

JNIEXPORT jint JNICALL Java_org_safetensors_NativeLibrary_shimAbiVersion(JNIEnv *env, jclass class)
{
    (void)env, (void)class;
    return SAFETENSORS_ABI_VERSION;
}

JNIEXPORT jstring JNICALL Java_org_safetensors_NativeLibrary_libraryVersion(JNIEnv *env, jclass class)
{
    (void)class;
    return (*env)->NewStringUTF(env, st_version());
}

JNIEXPORT jint JNICALL Java_org_safetensors_NativeLibrary_abiVersion(JNIEnv *env, jclass class)
{
    (void)env, (void)class;
    return (jint)st_abi_version();
}

static jmethodID method_of(JNIEnv *env, const char *class_name, const char *name, const char *signature)
{
    jclass class = (*env)->FindClass(env, class_name);
    if (class == NULL) {
        return NULL;
    }
    jmethodID method = (*env)->GetMethodID(env, class, name, signature);
    (*env)->DeleteLocalRef(env, class);
    return method;
}

static jfieldID field_of(JNIEnv *env, const char *class_name, const char *name, const char *signature)
{
    jclass class = (*env)->FindClass(env, class_name);
    if (class == NULL) {
        return NULL;
    }
    jfieldID field = (*env)->GetFieldID(env, class, name, signature);
    (*env)->DeleteLocalRef(env, class);
    return field;
}

#define PACKAGE "org/safetensors/"
#define SOURCE PACKAGE "SourceBridge"
#define RESOLVER PACKAGE "ResolverBridge"

// Leaves an exception pending where something is missing.
static bool found_bridges(JNIEnv *env)
{
    return (bridge.source_read_at = method_of(env, SOURCE, "readAt", "(JJJ)I")) != NULL &&
           (bridge.source_release = method_of(env, SOURCE, "release", "()V")) != NULL &&
           (bridge.source_size = field_of(env, SOURCE, "size", "J")) != NULL &&
           (bridge.source_preferred_read = field_of(env, SOURCE, "preferredRead", "J")) != NULL &&
           (bridge.source_max_parallel = field_of(env, SOURCE, "maxParallel", "J")) != NULL &&
           (bridge.resolver_open = method_of(env, RESOLVER, "open", "([B)L" SOURCE ";")) != NULL &&
           (bridge.resolver_failure = field_of(env, RESOLVER, "failure", "I")) != NULL &&
           (bridge.progress_report = method_of(env, PACKAGE "ProgressBridge", "report", "(JJ)Z")) != NULL &&
           (bridge.report_problem = method_of(env, PACKAGE "ReportBridge", "problem", "(IIJ[B[B[B)Z")) != NULL &&
           (bridge.load_chunk = method_of(env, PACKAGE "LoadBridge", "chunk", "(JJJJ)Z")) != NULL &&
           (bridge.load_await = method_of(env, PACKAGE "LoadBridge", "await", "(J)Z")) != NULL;
}

JNIEXPORT void JNICALL Java_org_safetensors_NativeLibrary_initialize(JNIEnv *env, jclass class)
{
    (void)class;
    if (!found_bridges(env)) {
        return;
    }
    jclass local = (*env)->FindClass(env, PACKAGE "SafetensorsException");
    if (local == NULL || (exception_new = (*env)->GetMethodID(env, local, "<init>", "(II[B)V")) == NULL) {
        return;
    }
    exception_class = (*env)->NewGlobalRef(env, local);
    (*env)->DeleteLocalRef(env, local);
}

// -------------------------------------------------------- methods of Native

JNIEXPORT void JNICALL Java_org_safetensors_Native_freeBuffer(JNIEnv *env, jclass class, jlong address, jlong size)
{
    (void)env, (void)class;
    st_buffer buffer = {pointer_of(address), (size_t)size};
    st_buffer_free(&buffer);
}

JNIEXPORT jlong JNICALL Java_org_safetensors_Native_descriptorLimit(JNIEnv *env, jclass class)
{
    (void)env, (void)class;
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur > INT32_MAX) {
        return INT32_MAX;
    }
    return (jlong)limit.rlim_cur;
}

JNIEXPORT jlong JNICALL Java_org_safetensors_Native_mappingLimit(JNIEnv *env, jclass class)
{
    (void)env, (void)class;
    long limit = 65530; // Linux's own default, and not far off elsewhere
    FILE *file = fopen("/proc/sys/vm/max_map_count", "r");
    if (file != NULL) {
        if (fscanf(file, "%ld", &limit) != 1) {
            limit = 65530;
        }
        fclose(file);
    }
    return limit;
}

JNIEXPORT jlong JNICALL Java_org_safetensors_Native_allocate(JNIEnv *env, jclass class, jlong size)
{
    (void)class;
    void *memory = NULL;
    if (posix_memalign(&memory, 64, size == 0 ? 64 : (size_t)size) != 0) {
        throw_out_of_memory(env, "a copy of the file");
        return 0;
    }
    return value_of(memory);
}

JNIEXPORT void JNICALL Java_org_safetensors_Native_release(JNIEnv *env, jclass class, jlong address)
{
    (void)env, (void)class;
    free(pointer_of(address));
}

JNIEXPORT jobject JNICALL Java_org_safetensors_Native_buffer(JNIEnv *env, jclass class, jlong address, jlong size)
{
    (void)class;
    return (*env)->NewDirectByteBuffer(env, pointer_of(address), size);
}

JNIEXPORT jlong JNICALL Java_org_safetensors_Native_address(JNIEnv *env, jclass class, jobject buffer)
{
    (void)class;
    return value_of((*env)->GetDirectBufferAddress(env, buffer));
}

// Has the others as arguments while the first runs: Java lets nobody close their arenas meanwhile.
static void call_with(void (*call)(void), void *a, void *b, void *c, void *d, void *e, void *f, void *g, void *h)
{
    (void)a, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
    call();
}

JNIEXPORT jlong JNICALL Java_org_safetensors_Native_caller(JNIEnv *env, jclass class)
{
    (void)env;
    (void)class;
    return (jlong)(intptr_t)call_with;
}

JNIEXPORT void JNICALL Java_org_safetensors_Native_copy(JNIEnv *env, jclass class, jobject from, jint size, jlong to)
{
    (void)class;
    memcpy(pointer_of(to), (*env)->GetDirectBufferAddress(env, from), (size_t)size);
}

JNIEXPORT void JNICALL Java_org_safetensors_Native_convert(JNIEnv *env, jclass class, jint from, jlong source, jint to,
                                                          jlong target, jlong count)
{
    (void)class;
    st_error error;
    if (st_convert(from, pointer_of(source), to, pointer_of(target), (size_t)count, &error) != ST_OK) {
        throw_error(env, &error);
    }
}
