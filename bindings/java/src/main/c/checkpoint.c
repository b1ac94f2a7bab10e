// SPDX-License-Identifier: Apache-2.0
// Opening, listing and reading.

#include "shim.h"

#include <stdio.h>

// ------------------------------------------------------------------ callbacks

static st_status source_read_at(void *user_data, uint64_t offset, void *dst, size_t len, size_t *done, st_error *error)
{
    JNIEnv *env = environment();
    if (env == NULL) {
        return callback_failed(error, ST_ERROR_INTERNAL, 0, "a thread can't be attached to the JVM");
    }
    jint result = (*env)->CallIntMethod(env, user_data, bridge.source_read_at, (jlong)offset, value_of(dst), (jlong)len);
    if (exception_cleared(env)) {
        return callback_failed(error, ST_ERROR_INTERNAL, 0, "no stack or memory for a callback");
    }
    if (result < 0) {
        // The number by which Callbacks.java finds what was thrown.
        return callback_failed(error, ST_ERROR_IO, result, "the source threw an exception");
    }
    *done = (size_t)result;
    return ST_OK;
}

static void source_release(void *user_data)
{
    JNIEnv *env = environment();
    if (env != NULL) {
        (*env)->CallVoidMethod(env, user_data, bridge.source_release);
        exception_cleared(env);
        (*env)->DeleteGlobalRef(env, user_data);
    }
}

// An st_io for a SourceBridge. False: an exception is pending.
static bool io_of(JNIEnv *env, jobject source, st_io *io)
{
    io->size = (uint64_t)(*env)->GetLongField(env, source, bridge.source_size);
    io->preferred_read = (size_t)(*env)->GetLongField(env, source, bridge.source_preferred_read);
    io->max_parallel = (size_t)(*env)->GetLongField(env, source, bridge.source_max_parallel);
    io->read_at = source_read_at;
    io->release = source_release;
    io->user_data = (*env)->NewGlobalRef(env, source);
    if (io->user_data == NULL) {
        throw_out_of_memory(env, "a reference to a source");
        return false;
    }
    return true;
}

static st_status resolver_open(void *user_data, const char *name, st_io *out, st_error *error)
{
    JNIEnv *env = environment();
    if (env == NULL) {
        return callback_failed(error, ST_ERROR_INTERNAL, 0, "a thread can't be attached to the JVM");
    }
    jsize length = (jsize)strlen(name);
    jbyteArray bytes = (*env)->NewByteArray(env, length);
    if (bytes == NULL) {
        exception_cleared(env);
        return callback_failed(error, ST_ERROR_OUT_OF_MEMORY, 0, "no memory for a file's name");
    }
    (*env)->SetByteArrayRegion(env, bytes, 0, length, (const jbyte *)name);
    jobject source = (*env)->CallObjectMethod(env, user_data, bridge.resolver_open, bytes);
    bool thrown = exception_cleared(env);
    (*env)->DeleteLocalRef(env, bytes);
    if (thrown) {
        return callback_failed(error, ST_ERROR_INTERNAL, 0, "no stack or memory for a callback");
    }
    if (source == NULL) {
        jint failure = (*env)->GetIntField(env, user_data, bridge.resolver_failure);
        return callback_failed(error, ST_ERROR_IO, failure, "the resolver threw an exception");
    }
    bool made = io_of(env, source, out);
    exception_cleared(env);
    (*env)->DeleteLocalRef(env, source);
    return made ? ST_OK : callback_failed(error, ST_ERROR_OUT_OF_MEMORY, 0, "no memory for a reference to a source");
}

// ------------------------------------------------------------------------ open

// What OpenOptions.java packed, unpacked. The long[] stays pinned, or copied,
// until opening_free: the variant points into it.
typedef struct opening {
    jlong *words;
    st_open_options options;
} opening;

// False: an exception is pending.
static bool opening_read(JNIEnv *env, opening *this, jlongArray packed)
{
    this->words = (*env)->GetLongArrayElements(env, packed, NULL);
    if (this->words == NULL) {
        return false;
    }
    words from = {this->words};
    size_t length;
    this->options = (st_open_options)ST_OPEN_OPTIONS_INIT;
    this->options.access = (int32_t)next_word(&from);
    this->options.tolerate = (uint32_t)next_word(&from);
    this->options.prefetch = (int32_t)next_word(&from);
    this->options.max_header_size = (uint64_t)next_word(&from);
    this->options.max_tensors = (uint64_t)next_word(&from);
    this->options.max_rank = (uint64_t)next_word(&from);
    this->options.max_name_length = (uint64_t)next_word(&from);
    this->options.max_set_bytes = (uint64_t)next_word(&from);
    this->options.variant = next_text(&from, &length);
    return true;
}

static void opening_free(JNIEnv *env, opening *this, jlongArray packed)
{
    (*env)->ReleaseLongArrayElements(env, packed, this->words, JNI_ABORT);
}

static jlong opened(JNIEnv *env, st_checkpoint *checkpoint, const st_error *error)
{
    if (checkpoint == NULL) {
        throw_error(env, error);
    }
    return value_of(checkpoint);
}

JNIEXPORT jlong JNICALL Java_org_safetensors_Native_open(JNIEnv *env, jclass class, jbyteArray path, jlongArray packed)
{
    (void)class;
    st_error error;
    opening how;
    st_checkpoint *checkpoint = NULL;
    char *text = text_of(env, path);
    if (text == NULL) {
        return 0;
    }
    if (opening_read(env, &how, packed)) {
        checkpoint = st_open_with(text, &how.options, &error);
        opening_free(env, &how, packed);
        opened(env, checkpoint, &error);
    }
    free(text);
    return value_of(checkpoint);
}

JNIEXPORT jlong JNICALL Java_org_safetensors_Native_openMemory(JNIEnv *env, jclass class, jlong address, jlong size,
                                                              jlongArray packed)
{
    (void)class;
    st_error error;
    opening how;
    if (!opening_read(env, &how, packed)) {
        return 0;
    }
    st_checkpoint *checkpoint = st_open_memory(pointer_of(address), (size_t)size, &how.options, &error);
    opening_free(env, &how, packed);
    return opened(env, checkpoint, &error);
}

JNIEXPORT jlong JNICALL Java_org_safetensors_Native_openSource(JNIEnv *env, jclass class, jobject source,
                                                              jlongArray packed)
{
    (void)class;
    st_error error;
    st_io io = ST_IO_INIT;
    opening how;
    if (!opening_read(env, &how, packed)) {
        return 0;
    }
    bool good = io_of(env, source, &io);
    st_checkpoint *checkpoint = good ? st_open_io(&io, &how.options, &error) : NULL;
    opening_free(env, &how, packed);
    return good ? opened(env, checkpoint, &error) : 0;
}

JNIEXPORT jlong JNICALL Java_org_safetensors_Native_openResolved(JNIEnv *env, jclass class, jobject resolver,
                                                                jbyteArray name, jlongArray packed)
{
    (void)class;
    st_error error;
    st_resolver through = ST_RESOLVER_INIT;
    // Called on this thread and within this call only: the local reference does.
    through.open = resolver_open;
    through.user_data = resolver;
    opening how;
    st_checkpoint *checkpoint = NULL;
    char *text = text_of(env, name);
    if (text == NULL) {
        return 0;
    }
    if (opening_read(env, &how, packed)) {
        checkpoint = st_open_resolved(&through, text, &how.options, &error);
        opening_free(env, &how, packed);
        opened(env, checkpoint, &error);
    }
    free(text);
    return value_of(checkpoint);
}

JNIEXPORT void JNICALL Java_org_safetensors_Native_retain(JNIEnv *env, jclass class, jlong checkpoint)
{
    (void)env, (void)class;
    st_retain(pointer_of(checkpoint));
}

JNIEXPORT void JNICALL Java_org_safetensors_Native_free(JNIEnv *env, jclass class, jlong checkpoint)
{
    (void)env, (void)class;
    st_free(pointer_of(checkpoint));
}

// --------------------------------------------------------------------- records

// Writes the block that Records.java reads; while `at` is NULL it only counts.
typedef struct block {
    unsigned char *at;
    size_t size;
} block;

static void put(block *to, const void *bytes, size_t size)
{
    if (to->at != NULL && size != 0) {
        memcpy(to->at + to->size, bytes, size);
    }
    to->size += size;
}

static void put_int(block *to, size_t value)
{
    int32_t number = (int32_t)value;
    put(to, &number, sizeof number);
}

static void put_long(block *to, uint64_t value)
{
    put(to, &value, sizeof value);
}

// NULL is the length -1.
static void put_text(block *to, const char *text, size_t length)
{
    put_int(to, text == NULL ? (size_t)-1 : length);
    put(to, text, text == NULL ? 0 : length);
}

// A row's fields, as Records.java has them.
static void put_row(block *to, const st_tensor *tensor, size_t name_at)
{
    // Java knows the spelling of the dtypes that this file was compiled with.
    bool is_known = tensor->dtype >= ST_DTYPE_BOOL && tensor->dtype <= ST_DTYPE_U64;
    put_long(to, tensor->offset);
    put_long(to, tensor->size);
    put_int(to, name_at);
    put_int(to, tensor->name_len);
    put_int(to, tensor->rank);
    put_int(to, (size_t)tensor->dtype);
    put_int(to, tensor->shard);
    put_int(to, is_known ? (size_t)-1 : strlen(tensor->dtype_name));
    put_int(to, tensor->data != NULL);
}

enum { ROW = 44 };

static void put_records(block *to, const st_checkpoint *checkpoint)
{
    size_t count;
    const st_shard *shards = st_shards(checkpoint, &count);
    put_int(to, count);
    for (const st_shard *shard = shards; shard != shards + count; shard++) {
        put_text(to, shard->path, shard->path_len);
        put_long(to, shard->size);
        put_long(to, shard->data_offset);
        put_long(to, shard->data_size);
        put_int(to, (size_t)shard->access);
        put_text(to, shard->reason, strlen(shard->reason));
    }
    const st_metadata *entries = st_metadata_entries(checkpoint, &count);
    put_int(to, entries == NULL ? (size_t)-1 : count);
    for (const st_metadata *entry = entries; entry != entries + count; entry++) {
        put_text(to, entry->key, entry->key_len);
        put_text(to, entry->value, entry->value_len);
    }
    const st_tensor *tensors = st_tensors(checkpoint, &count);
    put_int(to, count);
    // Rows of one length, and after them what has none: shape, name and spelling of each, in this order.
    block texts = {to->at, to->size + count * ROW};
    for (const st_tensor *tensor = tensors; tensor != tensors + count; tensor++) {
        put(&texts, tensor->shape, tensor->rank * sizeof *tensor->shape);
        size_t name_at = texts.size;
        put(&texts, tensor->name, tensor->name_len);
        if (tensor->dtype < ST_DTYPE_BOOL || tensor->dtype > ST_DTYPE_U64) {
            put(&texts, tensor->dtype_name, strlen(tensor->dtype_name));
        }
        put_row(to, tensor, name_at);
    }
    to->size = texts.size;
}

JNIEXPORT jbyteArray JNICALL Java_org_safetensors_Native_records(JNIEnv *env, jclass class, jlong checkpoint)
{
    (void)class;
    block records = {NULL, 0};
    put_records(&records, pointer_of(checkpoint));
    // A header would have to be of gigabytes; but the limit on it is the caller's.
    if (records.size > INT32_MAX) {
        throw_out_of_memory(env, "the list of tensors");
        return NULL;
    }
    jbyteArray array = (*env)->NewByteArray(env, (jsize)records.size);
    if (array == NULL) {
        return NULL;
    }
    // No copy of it, where the collector can do without one; nothing here waits.
    records.at = (*env)->GetPrimitiveArrayCritical(env, array, NULL);
    if (records.at == NULL) {
        throw_out_of_memory(env, "the list of tensors");
        return NULL;
    }
    records.size = 0;
    put_records(&records, pointer_of(checkpoint));
    (*env)->ReleasePrimitiveArrayCritical(env, array, records.at, 0);
    return array;
}

JNIEXPORT jint JNICALL Java_org_safetensors_Native_find(JNIEnv *env, jclass class, jlong checkpoint, jbyteArray name)
{
    (void)class;
    char usual[256];
    jsize length = (*env)->GetArrayLength(env, name);
    char *text = length <= (jsize)sizeof usual ? usual : malloc((size_t)length);
    if (text == NULL) {
        throw_out_of_memory(env, "a name");
        return -1;
    }
    (*env)->GetByteArrayRegion(env, name, 0, length, (jbyte *)text);
    const st_tensor *found = st_find_tensor_n(pointer_of(checkpoint), text, (size_t)length);
    if (text != usual) {
        free(text);
    }
    return found == NULL ? -1 : (jint)(found - st_tensors(pointer_of(checkpoint), NULL));
}

// -------------------------------------------------------------------- validate

typedef struct report {
    JNIEnv *env;
    jobject bridge;
} report;

// A byte[] of a text; NULL for NULL, and where there is no memory, with an exception pending.
static jbyteArray bytes_of(JNIEnv *env, const char *text, size_t length)
{
    jbyteArray bytes = text == NULL ? NULL : (*env)->NewByteArray(env, (jsize)length);
    if (bytes != NULL) {
        (*env)->SetByteArrayRegion(env, bytes, 0, (jsize)length, (const jbyte *)text);
    }
    return bytes;
}

// Called on the thread that validates.
static int32_t report_problem(void *user_data, const st_problem *problem)
{
    const report *to = user_data;
    JNIEnv *env = to->env;
    // There may be more problems than local references.
    if ((*env)->PushLocalFrame(env, 8) != JNI_OK) {
        exception_cleared(env);
        return 1;
    }
    jbyteArray file = bytes_of(env, problem->file, problem->file_len);
    jbyteArray tensor = (*env)->ExceptionCheck(env) ? NULL : bytes_of(env, problem->tensor, problem->tensor_len);
    jbyteArray text = (*env)->ExceptionCheck(env) ? NULL : bytes_of(env, problem->text, strlen(problem->text));
    jboolean goes_on = JNI_FALSE;
    if (!(*env)->ExceptionCheck(env)) {
        goes_on = (*env)->CallBooleanMethod(env, to->bridge, bridge.report_problem, (jint)problem->code,
                                            (jint)problem->fatal, (jlong)problem->position, file, tensor, text);
    }
    if (exception_cleared(env)) {
        goes_on = JNI_FALSE;
    }
    (*env)->PopLocalFrame(env, NULL);
    return goes_on ? 0 : 1;
}

JNIEXPORT void JNICALL Java_org_safetensors_Native_validate(JNIEnv *env, jclass class, jbyteArray path,
                                                           jlongArray packed, jobject bridge_object)
{
    (void)class;
    st_error error;
    opening how;
    report to = {env, bridge_object};
    st_status status = ST_OK;
    char *text = text_of(env, path);
    if (text == NULL) {
        return;
    }
    if (opening_read(env, &how, packed)) {
        status = st_validate(text, &how.options, report_problem, &to, &error);
        opening_free(env, &how, packed);
    }
    free(text);
    if (status != ST_OK) {
        throw_error(env, &error);
    }
}

// ------------------------------------------------------------------------ read

static const st_tensor *tensor_at(jlong checkpoint, jint index)
{
    return st_tensors(pointer_of(checkpoint), NULL) + index;
}

JNIEXPORT jlong JNICALL Java_org_safetensors_Native_data(JNIEnv *env, jclass class, jlong checkpoint, jint index)
{
    (void)class;
    st_error error;
    const st_tensor *tensor = tensor_at(checkpoint, index);
    if (tensor->data == NULL) {
        tensor = st_get_tensor_n(pointer_of(checkpoint), tensor->name, tensor->name_len, &error);
        if (tensor == NULL) {
            throw_error(env, &error);
            return 0;
        }
    }
    return value_of(tensor->data);
}

JNIEXPORT void JNICALL Java_org_safetensors_Native_read(JNIEnv *env, jclass class, jlong checkpoint, jint index,
                                                       jlong address, jlong size)
{
    (void)class;
    st_error error;
    if (st_read_tensor(pointer_of(checkpoint), tensor_at(checkpoint, index), pointer_of(address), (size_t)size,
                       &error) != ST_OK) {
        throw_error(env, &error);
    }
}

// An array's ranges; NULL: an exception is pending. Released with ranges_free.
static jlong *ranges_of(JNIEnv *env, jlongArray flat, size_t *count)
{
    *count = (size_t)(*env)->GetArrayLength(env, flat) / 3;
    return (*env)->GetLongArrayElements(env, flat, NULL);
}

static void ranges_free(JNIEnv *env, jlongArray flat, jlong *ranges)
{
    (*env)->ReleaseLongArrayElements(env, flat, ranges, JNI_ABORT);
}

_Static_assert(sizeof(st_range) == 3 * sizeof(jlong), "three words are a range");

JNIEXPORT void JNICALL Java_org_safetensors_Native_readSlice(JNIEnv *env, jclass class, jlong checkpoint, jint index,
                                                            jlongArray flat, jlong address, jlong size)
{
    (void)class;
    st_error error;
    size_t count;
    jlong *ranges = ranges_of(env, flat, &count);
    if (ranges == NULL) {
        return;
    }
    st_status status = st_read_slice(pointer_of(checkpoint), tensor_at(checkpoint, index), (const st_range *)ranges,
                                     count, pointer_of(address), (size_t)size, &error);
    ranges_free(env, flat, ranges);
    if (status != ST_OK) {
        throw_error(env, &error);
    }
}

JNIEXPORT jlongArray JNICALL Java_org_safetensors_Native_sliceShape(JNIEnv *env, jclass class, jlong checkpoint,
                                                                   jint index, jlongArray flat)
{
    (void)class;
    st_error error;
    size_t count;
    uint64_t size = 0;
    const st_tensor *tensor = tensor_at(checkpoint, index);
    int64_t *shape = calloc(tensor->rank + 1, sizeof *shape);
    if (shape == NULL) {
        throw_out_of_memory(env, "a shape");
        return NULL;
    }
    jlongArray result = NULL;
    jlong *ranges = ranges_of(env, flat, &count);
    if (ranges != NULL) {
        st_status status = st_slice_shape(tensor, (const st_range *)ranges, count, shape, &size, &error);
        ranges_free(env, flat, ranges);
        if (status == ST_OK) {
            shape[tensor->rank] = (int64_t)size;
            result = longs_of(env, (const jlong *)shape, tensor->rank + 1);
        } else {
            throw_error(env, &error);
        }
    }
    free(shape);
    return result;
}
