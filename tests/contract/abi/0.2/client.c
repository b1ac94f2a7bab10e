// SPDX-License-Identifier: Apache-2.0
//
// A program of version 0.2: compiled with the headers beside it, run with the
// library of today. It calls every function that is new in 0.2.

#include <safetensors_model.h>

#include <string.h>

#include "../check.h"

static void check_rank_plans(const st_checkpoint *checkpoint)
{
    static const char rules[] = "{\"format\":1,\"rules\":[{\"match\":\"x\",\"axis\":\"tp\",\"cut\":0}]}";
    st_error error;
    size_t count = 7;
    CHECK(st_rank_plan_builtin("no such model", &count) == NULL && count == 0);

    const st_text text = {rules, sizeof rules - 1};
    st_rank_plan_options options = ST_RANK_PLAN_OPTIONS_INIT;
    options.plans = &text;
    options.plan_count = 1;
    st_rank_plan *plan = st_rank_plan_open(checkpoint, &options, &error);
    const st_axis axes[1] = {{"tp", 2, 3, {0, 0}}};
    const st_part *parts = st_rank_plan_parts(plan, axes, 1, &count, &error);
    (void)parts;
    st_rank_plan_free(plan);
}

int main(void)
{
    st_checkpoint *checkpoint = st_open_memory(file, file_size, NULL, NULL);
    CHECK(checkpoint != NULL);
    check_rank_plans(checkpoint);
    st_free(checkpoint);
    return 0;
}
