// SPDX-License-Identifier: Apache-2.0
//
// Uses the library and another Rust library, each from its archive.

#include <safetensors.h>

#include <stdio.h>

unsigned long long other_sum(unsigned long long n);

int main(void) {
    st_error error;
    st_checkpoint *checkpoint = st_open_memory("", 0, NULL, &error);
    if (checkpoint != NULL)
        return 1;
    printf("%s, %llu, %llu\n", st_status_name(error.code), other_sum(4), other_sum(0));
    return 0;
}
