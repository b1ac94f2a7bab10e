// SPDX-License-Identifier: Apache-2.0
// What Go can't spell: function pointers, and numbers in the place of pointers.
#ifndef CST_GLUE_H
#define CST_GLUE_H

#include <safetensors.h>
#include <stdint.h>

#if SAFETENSORS_ABI_VERSION != 1 || SAFETENSORS_VERSION < 1000
#error "this Go package wants libsafetensors 0.1 or newer with ABI 1: the safetensors.h found is another"
#endif

// Arrays, NULL where they are empty: the library's pointer to nothing is none
// that Go may hold. *present tells no metadata from metadata without entries.
const st_tensor *cst_tensors(const st_checkpoint *checkpoint, size_t *count);
const st_metadata *cst_metadata(const st_checkpoint *checkpoint, size_t *count, int *present);

// Each user_data is a number that Go side looks up, never a Go pointer.
void cst_io_init(st_io *io, uintptr_t user);
void cst_resolver_init(st_resolver *resolver, uintptr_t user);
void cst_save_progress(st_save_options *options, uintptr_t user);
void cst_load_progress(st_load_options *options, uintptr_t user);
void cst_sink_init(st_sink *sink, uintptr_t user, int wait);
st_status cst_validate(const char *path, const st_open_options *options, uintptr_t user, st_error *error);

#endif
