// SPDX-License-Identifier: Apache-2.0
// Saving, serializing, streaming, and changing metadata.

#include "shim.h"

// What Given.java packed, unpacked. The long[] stays pinned, or copied, until
// given_free: names and shapes point into it.
typedef struct given {
    jlong *packed;
    st_save_options options;
    st_tensor *tensors;
    size_t count;
    st_metadata *metadata; // NULL: none, which differs from no entries
    size_t metadata_count;
} given;

static void given_free(JNIEnv *env, given *this, jlongArray packed)
{
    if (this->packed != NULL) {
        (*env)->ReleaseLongArrayElements(env, packed, this->packed, JNI_ABORT);
    }
    free(this->tensors);
    free(this->metadata);
}

static bool read_metadata(given *this, words *from)
{
    jlong count = next_word(from);
    if (count < 0) {
        return true;
    }
    this->metadata_count = (size_t)count;
    this->metadata = calloc(this->metadata_count + 1, sizeof *this->metadata);
    if (this->metadata == NULL) {
        return false;
    }
    for (size_t i = 0; i < this->metadata_count; i++) {
        st_metadata *entry = &this->metadata[i];
        entry->key = next_text(from, &entry->key_len);
        entry->value = next_text(from, &entry->value_len);
    }
    return true;
}

static bool read_tensors(given *this, words *from, const st_checkpoint *source)
{
    const st_tensor *sources = st_tensors(source, NULL);
    this->count = (size_t)next_word(from);
    this->tensors = calloc(this->count + 1, sizeof *this->tensors);
    if (this->tensors == NULL) {
        return false;
    }
    for (st_tensor *tensor = this->tensors; tensor != this->tensors + this->count; tensor++) {
        tensor->name = next_text(from, &tensor->name_len);
        tensor->dtype = (int32_t)next_word(from);
        tensor->rank = (size_t)next_word(from);
        tensor->shape = (const int64_t *)from->next;
        from->next += tensor->rank;
        tensor->data = pointer_of(next_word(from));
        tensor->size = (uint64_t)next_word(from);
        jlong copied = next_word(from);
        if (copied >= 0) {
            tensor->shard = sources[copied].shard;
            tensor->offset = sources[copied].offset;
        }
    }
    return true;
}

static bool read_given(given *this, const st_checkpoint *source)
{
    words from = {this->packed};
    this->options = (st_save_options)ST_SAVE_OPTIONS_INIT;
    this->options.order = (int32_t)next_word(&from);
    this->options.alignment = (uint32_t)next_word(&from);
    this->options.max_shard_size = (uint64_t)next_word(&from);
    this->options.sync = (int32_t)next_word(&from);
    this->options.overwrite = (int32_t)next_word(&from);
    this->options.header_reserve = (uint64_t)next_word(&from);
    this->options.source = source;
    return read_tensors(this, &from, source) && read_metadata(this, &from);
}

// False: an exception is pending. given_free is due either way.
static bool given_read(JNIEnv *env, given *this, jlongArray packed, jlong source)
{
    *this = (given){0};
    this->packed = (*env)->GetLongArrayElements(env, packed, NULL);
    if (this->packed == NULL) {
        return false;
    }
    if (!read_given(this, pointer_of(source))) {
        throw_out_of_memory(env, "what is to be written");
        return false;
    }
    return true;
}

JNIEXPORT void JNICALL Java_org_safetensors_Native_save(JNIEnv *env, jclass class, jbyteArray path, jlongArray packed,
                                                       jlong source, jobject progress)
{
    (void)class;
    st_error error;
    given what;
    st_status status = ST_OK;
    char *text = text_of(env, path);
    if (text == NULL) {
        return;
    }
    // Progress may be reported on other threads, where local references mean nothing.
    jobject reported = (*env)->NewGlobalRef(env, progress);
    if (reported == NULL) {
        throw_out_of_memory(env, "a reference to the progress");
    } else {
        if (given_read(env, &what, packed, source)) {
            what.options.progress = progress_report;
            what.options.user_data = reported;
            status = st_save(text, what.tensors, what.count, what.metadata, what.metadata_count, &what.options, &error);
        }
        given_free(env, &what, packed);
        (*env)->DeleteGlobalRef(env, reported);
    }
    free(text);
    if (status != ST_OK) {
        throw_error(env, &error);
    }
}

JNIEXPORT jlongArray JNICALL Java_org_safetensors_Native_serialize(JNIEnv *env, jclass class, jlongArray packed,
                                                                  jlong source, jobject progress)
{
    (void)class;
    st_error error;
    given what;
    st_buffer out = {NULL, 0};
    st_status status = ST_OK;
    jobject reported = (*env)->NewGlobalRef(env, progress);
    if (reported == NULL) {
        throw_out_of_memory(env, "a reference to the progress");
        return NULL;
    }
    bool good = given_read(env, &what, packed, source);
    if (good) {
        what.options.progress = progress_report;
        what.options.user_data = reported;
        status = st_serialize(what.tensors, what.count, what.metadata, what.metadata_count, &what.options, &out, &error);
    }
    given_free(env, &what, packed);
    (*env)->DeleteGlobalRef(env, reported);
    if (status != ST_OK) {
        throw_error(env, &error);
        return NULL;
    }
    jlong values[] = {value_of(out.data), (jlong)out.size};
    jlongArray result = good ? longs_of(env, values, 2) : NULL;
    if (result == NULL) {
        st_buffer_free(&out);
    }
    return result;
}

JNIEXPORT jlong JNICALL Java_org_safetensors_Native_openWriter(JNIEnv *env, jclass class, jbyteArray path,
                                                              jlongArray packed)
{
    (void)class;
    st_error error;
    given what;
    st_writer *writer = NULL;
    char *text = text_of(env, path);
    if (text == NULL) {
        return 0;
    }
    bool good = given_read(env, &what, packed, 0);
    if (good) {
        writer = st_writer_open(text, what.tensors, what.count, what.metadata, what.metadata_count, &what.options, &error);
    }
    given_free(env, &what, packed);
    free(text);
    if (good && writer == NULL) {
        throw_error(env, &error);
    }
    return value_of(writer);
}

JNIEXPORT void JNICALL Java_org_safetensors_Native_write(JNIEnv *env, jclass class, jlong writer, jint tensor,
                                                        jlong offset, jlong address, jlong size)
{
    (void)class;
    st_error error;
    if (st_writer_write(pointer_of(writer), (size_t)tensor, (uint64_t)offset, pointer_of(address), (size_t)size,
                        &error) != ST_OK) {
        throw_error(env, &error);
    }
}

JNIEXPORT void JNICALL Java_org_safetensors_Native_finish(JNIEnv *env, jclass class, jlong writer)
{
    (void)class;
    st_error error;
    if (st_writer_finish(pointer_of(writer), &error) != ST_OK) {
        throw_error(env, &error);
    }
}

JNIEXPORT void JNICALL Java_org_safetensors_Native_freeWriter(JNIEnv *env, jclass class, jlong writer)
{
    (void)env, (void)class;
    st_writer_free(pointer_of(writer));
}

JNIEXPORT void JNICALL Java_org_safetensors_Native_setMetadata(JNIEnv *env, jclass class, jbyteArray path,
                                                              jlongArray packed, jboolean in_place, jboolean sync)
{
    (void)class;
    st_error error;
    given what = {0};
    st_metadata_options options = ST_METADATA_OPTIONS_INIT;
    options.in_place = in_place;
    options.sync = sync ? ST_SYNC_FULL : ST_SYNC_NONE;
    char *text = text_of(env, path);
    if (text == NULL) {
        return;
    }
    st_status status = ST_OK;
    what.packed = (*env)->GetLongArrayElements(env, packed, NULL);
    if (what.packed != NULL) {
        words from = {what.packed};
        if (read_metadata(&what, &from)) {
            status = st_set_metadata(text, what.metadata, what.metadata_count, &options, &error);
        } else {
            throw_out_of_memory(env, "metadata");
        }
    }
    given_free(env, &what, packed);
    free(text);
    if (status != ST_OK) {
        throw_error(env, &error);
    }
}
