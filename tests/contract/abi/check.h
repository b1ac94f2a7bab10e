// SPDX-License-Identifier: Apache-2.0
//
// For the programs in this folder: a check, and a checkpoint in memory.

#include <stdio.h>
#include <stdlib.h>

#define CHECK(what)                                                          \
    do {                                                                     \
        if (!(what)) {                                                       \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what); \
            exit(1);                                                         \
        }                                                                    \
    } while (0)

// A checkpoint: one tensor, "x", U8 [3] of 1, 2, 3; metadata "key": "value".
#define HEADER \
    "{\"__metadata__\":{\"key\":\"value\"},\"x\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}"
#define DATA_OFFSET (8 + sizeof HEADER - 1)
static const char file[] = "\x54\0\0\0\0\0\0\0" HEADER "\1\2\3";
static const size_t file_size = sizeof file - 1;
