// SPDX-License-Identifier: Apache-2.0
//
// A program that uses the library. Each consumer beside it builds it in its own way.

#include <safetensors.h>
#include <safetensors_model.h>

#include <stdio.h>
#include <string.h>

int main(void) {
    static const char header[] = "{\"x\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}";
    unsigned char file[8 + sizeof header - 1 + 3] = {sizeof header - 1};
    memcpy(file + 8, header, sizeof header - 1);

    st_error error;
    st_checkpoint *checkpoint = st_open_memory(file, sizeof file, NULL, &error);
    const st_tensor *x = checkpoint ? st_get_tensor(checkpoint, "x", &error) : NULL;
    if (x == NULL) {
        fprintf(stderr, "%s: %s\n", st_status_name(error.code), error.message);
        return 1;
    }
    printf("libsafetensors %s: %s is %s of %d\n", st_version(), x->name, x->dtype_name, (int)x->shape[0]);
    st_free(checkpoint);
    return 0;
}
