// SPDX-License-Identifier: Apache-2.0
//
// The headers by themselves, and twice, before anything else. Compiled as each
// standard of C and C++, into two objects that are linked to one program: with
// UNIT as `other`, and as `main`. Uses every initialiser.

#include <safetensors.h>
#include <safetensors.h>
#include <safetensors_model.h>

int UNIT(void);

int UNIT(void) {
    static const st_open_options fixed = ST_OPEN_OPTIONS_INIT;
    st_open_options options = ST_OPEN_OPTIONS_INIT;
    st_io io = ST_IO_INIT;
    st_resolver resolver = ST_RESOLVER_INIT;
    st_save_options save = ST_SAVE_OPTIONS_INIT;
    st_load_item item = ST_LOAD_ITEM_INIT;
    st_transform transform = ST_TRANSFORM_INIT;
    st_sink sink = ST_SINK_INIT;
    st_load_options load = ST_LOAD_OPTIONS_INIT;
    st_metadata_options metadata = ST_METADATA_OPTIONS_INIT;
    st_output output = ST_OUTPUT_INIT;
    st_rank_plan_options plan = ST_RANK_PLAN_OPTIONS_INIT;
    st_groups_options groups = ST_GROUPS_OPTIONS_INIT;
    static const st_range ranges[2] = {ST_RANGE_ALL, ST_RANGE_ALL};
    return !(fixed.struct_size == sizeof fixed && options.struct_size == sizeof options &&
             io.struct_size == sizeof io && resolver.struct_size == sizeof resolver &&
             save.struct_size == sizeof save && sink.struct_size == sizeof sink &&
             load.struct_size == sizeof load && item.tensor == NULL && item.reserved[2] == 0 &&
             transform.struct_size == sizeof transform && item.transform == NULL && sink.pieces == NULL &&
             metadata.struct_size == sizeof metadata && output.struct_size == sizeof output &&
             plan.struct_size == sizeof plan &&
             groups.struct_size == sizeof groups && groups.config.data == NULL &&
             ranges[1].start == 0 && ranges[1].stop == INT64_MAX && ranges[1].step == 1);
}
