// SPDX-License-Identifier: Apache-2.0
// Loading into the caller's memory. All callbacks come on the calling thread.

#include "shim.h"

static st_status sink_chunk(void *user_data, size_t buffer, size_t item, uint64_t item_offset, size_t size,
                            st_error *error)
{
    JNIEnv *env = environment();
    jboolean taken = (*env)->CallBooleanMethod(env, user_data, bridge.load_chunk, (jlong)buffer, (jlong)item,
                                               (jlong)item_offset, (jlong)size);
    if (exception_cleared(env) || !taken) {
        return callback_failed(error, ST_ERROR_CANCELLED, 0, "the sink threw an exception");
    }
    return ST_OK;
}

static st_status sink_wait(void *user_data, size_t buffer, st_error *error)
{
    JNIEnv *env = environment();
    jboolean waited = (*env)->CallBooleanMethod(env, user_data, bridge.load_await, (jlong)buffer);
    if (exception_cleared(env) || !waited) {
        return callback_failed(error, ST_ERROR_CANCELLED, 0, "the sink threw an exception");
    }
    return ST_OK;
}

// What LoadItem.java and LoadOptions.java packed, unpacked. The long[]s stay
// pinned, or copied, until load_free: ranges and strides point into them.
typedef struct load {
    jlong *packed_items, *packed_options;
    st_load_item *items;
    st_buffer *buffers;
    st_sink sink;
    st_load_options options;
} load;

static void load_free(JNIEnv *env, load *this, jlongArray items, jlongArray options)
{
    if (this->packed_items != NULL) {
        (*env)->ReleaseLongArrayElements(env, items, this->packed_items, JNI_ABORT);
    }
    if (this->packed_options != NULL) {
        (*env)->ReleaseLongArrayElements(env, options, this->packed_options, JNI_ABORT);
    }
    free(this->items);
    free(this->buffers);
}

static void read_items(load *this, const st_tensor *tensors, size_t count)
{
    words from = {this->packed_items};
    for (st_load_item *item = this->items; item != this->items + count; item++) {
        item->tensor = tensors + next_word(&from);
        item->dtype = (int32_t)next_word(&from);
        item->dst = pointer_of(next_word(&from));
        item->dst_size = (size_t)next_word(&from);
        item->range_count = (size_t)next_word(&from);
        item->ranges = item->range_count == 0 ? NULL : (const st_range *)from.next;
        from.next += 3 * item->range_count;
        size_t strides = (size_t)next_word(&from);
        item->dst_strides = strides == 0 ? NULL : (const int64_t *)from.next;
        from.next += strides;
    }
}

static bool read_options(load *this)
{
    words from = {this->packed_options};
    this->options = (st_load_options)ST_LOAD_OPTIONS_INIT;
    this->options.threads = (uint32_t)next_word(&from);
    this->options.io = (int32_t)next_word(&from);
    this->options.staging_bytes = (uint64_t)next_word(&from);
    this->options.drop_cache = (uint32_t)next_word(&from);
    bool has_sink = next_word(&from) != 0;
    this->sink = (st_sink)ST_SINK_INIT;
    this->sink.buffer_count = (size_t)next_word(&from);
    this->buffers = calloc(this->sink.buffer_count + 1, sizeof *this->buffers);
    if (this->buffers == NULL) {
        return false;
    }
    for (size_t i = 0; i < this->sink.buffer_count; i++) {
        this->buffers[i].data = pointer_of(next_word(&from));
        this->buffers[i].size = (size_t)next_word(&from);
    }
    this->sink.buffers = this->buffers;
    this->sink.chunk = sink_chunk;
    this->sink.wait = sink_wait;
    this->options.sink = has_sink ? &this->sink : NULL;
    return true;
}

// False: an exception is pending. load_free is due either way.
static bool load_read(JNIEnv *env, load *this, jlong checkpoint, jlongArray items, jint count, jlongArray options)
{
    *this = (load){0};
    this->packed_items = (*env)->GetLongArrayElements(env, items, NULL);
    if (this->packed_items == NULL) {
        return false;
    }
    this->packed_options = (*env)->GetLongArrayElements(env, options, NULL);
    if (this->packed_options == NULL) {
        return false;
    }
    this->items = calloc((size_t)count + 1, sizeof *this->items);
    if (this->items == NULL || !read_options(this)) {
        throw_out_of_memory(env, "what is to be loaded");
        return false;
    }
    read_items(this, st_tensors(pointer_of(checkpoint), NULL), (size_t)count);
    return true;
}

JNIEXPORT void JNICALL Java_org_safetensors_Native_load(JNIEnv *env, jclass class, jlong checkpoint, jlongArray items,
                                                       jint count, jlongArray options, jobject bridge_object,
                                                       jlong cancel)
{
    (void)class;
    st_error error;
    load this;
    st_status status = ST_OK;
    if (load_read(env, &this, checkpoint, items, count, options)) {
        this.options.progress = progress_report;
        this.options.user_data = bridge_object;
        this.options.cancel = pointer_of(cancel);
        this.sink.user_data = bridge_object;
        status = st_load(pointer_of(checkpoint), this.items, (size_t)count, &this.options, &error);
    }
    load_free(env, &this, items, options);
    if (status != ST_OK) {
        throw_error(env, &error);
    }
}

JNIEXPORT jlongArray JNICALL Java_org_safetensors_Native_plan(JNIEnv *env, jclass class, jlong checkpoint,
                                                             jlongArray items, jint count, jlongArray options)
{
    (void)class;
    st_error error;
    load this;
    st_plan plan = {0};
    st_status status = ST_OK;
    bool good = load_read(env, &this, checkpoint, items, count, options);
    if (good) {
        status = st_load_plan(pointer_of(checkpoint), this.items, (size_t)count, &this.options, &plan, &error);
    }
    load_free(env, &this, items, options);
    if (status != ST_OK) {
        throw_error(env, &error);
        return NULL;
    }
    jlong values[] = {(jlong)plan.bytes,    (jlong)plan.read_bytes,    (jlong)plan.over_read_bytes,
                      (jlong)plan.requests, (jlong)plan.staging_bytes, plan.threads,
                      plan.shards};
    return good ? longs_of(env, values, sizeof values / sizeof *values) : NULL;
}

JNIEXPORT void JNICALL Java_org_safetensors_Native_prefetch(JNIEnv *env, jclass class, jlong checkpoint,
                                                           jintArray numbers)
{
    (void)class;
    st_error error;
    size_t count = 0;
    const st_tensor **wanted = NULL;
    if (numbers != NULL) {
        count = (size_t)(*env)->GetArrayLength(env, numbers);
        const st_tensor *tensors = st_tensors(pointer_of(checkpoint), NULL);
        wanted = calloc(count + 1, sizeof *wanted);
        jint *indexes = (*env)->GetIntArrayElements(env, numbers, NULL);
        if (wanted == NULL || indexes == NULL) {
            free(wanted);
            if (indexes != NULL) {
                (*env)->ReleaseIntArrayElements(env, numbers, indexes, JNI_ABORT);
                throw_out_of_memory(env, "what is to be read ahead");
            }
            return;
        }
        for (size_t i = 0; i < count; i++) {
            wanted[i] = tensors + indexes[i];
        }
        (*env)->ReleaseIntArrayElements(env, numbers, indexes, JNI_ABORT);
    }
    st_status status = st_prefetch(pointer_of(checkpoint), wanted, count, &error);
    free(wanted);
    if (status != ST_OK) {
        throw_error(env, &error);
    }
}
