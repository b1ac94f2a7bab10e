// SPDX-License-Identifier: Apache-2.0
//
// Where every public field stands, for systems with 64-bit pointers. Compiled
// only. What a released header has here never changes; structs that begin with
// struct_size may grow after their last field.

#include <safetensors_model.h>

#if !defined(__LP64__)
#error "these are the numbers for LP64"
#endif

#if defined(__cplusplus)
#define CHECK(what) static_assert(what, #what)
#elif __STDC_VERSION__ >= 201112L
#define CHECK(what) _Static_assert(what, #what)
#else
#define CHECK(what) extern char check[(what) ? 1 : -1]
#endif
#define SIZE(type, bytes) CHECK(sizeof(type) == bytes)
#define FIELD(type, field, at) CHECK(offsetof(type, field) == at)

SIZE(st_status, 4);
SIZE(st_dtype, 4);
CHECK((st_status)-1 < 0 && (st_dtype)-1 < 0);

SIZE(st_error, 512);
FIELD(st_error, code, 0);
FIELD(st_error, os_errno, 4);
FIELD(st_error, message, 8);

SIZE(st_tensor, 96);
FIELD(st_tensor, name, 0);
FIELD(st_tensor, name_len, 8);
FIELD(st_tensor, dtype, 16);
FIELD(st_tensor, shard, 20);
FIELD(st_tensor, rank, 24);
FIELD(st_tensor, shape, 32);
FIELD(st_tensor, element_count, 40);
FIELD(st_tensor, offset, 48);
FIELD(st_tensor, size, 56);
FIELD(st_tensor, data, 64);
FIELD(st_tensor, dtype_name, 72);
FIELD(st_tensor, source, 80);
FIELD(st_tensor, reserved, 88);

SIZE(st_metadata, 48);
FIELD(st_metadata, key, 0);
FIELD(st_metadata, key_len, 8);
FIELD(st_metadata, value, 16);
FIELD(st_metadata, value_len, 24);
FIELD(st_metadata, reserved, 32);

SIZE(st_shard, 72);
FIELD(st_shard, path, 0);
FIELD(st_shard, path_len, 8);
FIELD(st_shard, size, 16);
FIELD(st_shard, data_offset, 24);
FIELD(st_shard, data_size, 32);
FIELD(st_shard, access, 40);
FIELD(st_shard, reserved0, 44);
FIELD(st_shard, reason, 48);
FIELD(st_shard, reserved, 56);

SIZE(st_range, 24);
FIELD(st_range, start, 0);
FIELD(st_range, stop, 8);
FIELD(st_range, step, 16);

SIZE(st_open_options, 72);
FIELD(st_open_options, struct_size, 0);
FIELD(st_open_options, access, 8);
FIELD(st_open_options, tolerate, 12);
FIELD(st_open_options, prefetch, 16);
FIELD(st_open_options, reserved0, 20);
FIELD(st_open_options, max_header_size, 24);
FIELD(st_open_options, max_tensors, 32);
FIELD(st_open_options, max_rank, 40);
FIELD(st_open_options, max_name_length, 48);
FIELD(st_open_options, variant, 56);
FIELD(st_open_options, max_set_bytes, 64);

SIZE(st_io, 56);
FIELD(st_io, struct_size, 0);
FIELD(st_io, size, 8);
FIELD(st_io, read_at, 16);
FIELD(st_io, release, 24);
FIELD(st_io, user_data, 32);
FIELD(st_io, preferred_read, 40);
FIELD(st_io, max_parallel, 48);

SIZE(st_resolver, 32);
FIELD(st_resolver, struct_size, 0);
FIELD(st_resolver, open, 8);
FIELD(st_resolver, release, 16);
FIELD(st_resolver, user_data, 24);

SIZE(st_load_item, 112);
FIELD(st_load_item, tensor, 0);
FIELD(st_load_item, ranges, 8);
FIELD(st_load_item, range_count, 16);
FIELD(st_load_item, dtype, 24);
FIELD(st_load_item, reserved0, 28);
FIELD(st_load_item, dst, 32);
FIELD(st_load_item, dst_size, 40);
FIELD(st_load_item, dst_strides, 48);
FIELD(st_load_item, user_data, 56);
FIELD(st_load_item, part, 64);
FIELD(st_load_item, group, 72);
FIELD(st_load_item, transform, 80);
FIELD(st_load_item, reserved, 88);

SIZE(st_transform, 40);
FIELD(st_transform, struct_size, 0);
FIELD(st_transform, unit, 8);
FIELD(st_transform, unit_size, 16);
FIELD(st_transform, run, 24);
FIELD(st_transform, user_data, 32);

SIZE(st_piece, 48);
FIELD(st_piece, item, 0);
FIELD(st_piece, item_offset, 8);
FIELD(st_piece, buffer_offset, 16);
FIELD(st_piece, size, 24);
FIELD(st_piece, reserved, 32);

SIZE(st_sink, 56);
FIELD(st_sink, struct_size, 0);
FIELD(st_sink, buffers, 8);
FIELD(st_sink, buffer_count, 16);
FIELD(st_sink, chunk, 24);
FIELD(st_sink, wait, 32);
FIELD(st_sink, user_data, 40);
FIELD(st_sink, pieces, 48);

SIZE(st_load_options, 80);
FIELD(st_load_options, struct_size, 0);
FIELD(st_load_options, threads, 8);
FIELD(st_load_options, io, 12);
FIELD(st_load_options, staging_bytes, 16);
FIELD(st_load_options, drop_cache, 24);
FIELD(st_load_options, reserved0, 28);
FIELD(st_load_options, progress, 32);
FIELD(st_load_options, user_data, 40);
FIELD(st_load_options, sink, 48);
FIELD(st_load_options, item_done, 56);
FIELD(st_load_options, cancel, 64);
FIELD(st_load_options, max_gap, 72);

SIZE(st_plan, 112);
FIELD(st_plan, bytes, 0);
FIELD(st_plan, read_bytes, 8);
FIELD(st_plan, over_read_bytes, 16);
FIELD(st_plan, requests, 24);
FIELD(st_plan, staging_bytes, 32);
FIELD(st_plan, threads, 40);
FIELD(st_plan, shards, 44);
FIELD(st_plan, reserved, 48);

SIZE(st_save_options, 80);
FIELD(st_save_options, struct_size, 0);
FIELD(st_save_options, order, 8);
FIELD(st_save_options, alignment, 12);
FIELD(st_save_options, max_shard_size, 16);
FIELD(st_save_options, sync, 24);
FIELD(st_save_options, overwrite, 28);
FIELD(st_save_options, header_reserve, 32);
FIELD(st_save_options, progress, 40);
FIELD(st_save_options, user_data, 48);
FIELD(st_save_options, source, 56);
FIELD(st_save_options, sources, 64);
FIELD(st_save_options, source_count, 72);

SIZE(st_output, 24);
FIELD(st_output, struct_size, 0);
FIELD(st_output, write, 8);
FIELD(st_output, user_data, 16);

SIZE(st_buffer, 16);
FIELD(st_buffer, data, 0);
FIELD(st_buffer, size, 8);

SIZE(st_problem, 88);
FIELD(st_problem, code, 0);
FIELD(st_problem, fatal, 4);
FIELD(st_problem, position, 8);
FIELD(st_problem, file, 16);
FIELD(st_problem, file_len, 24);
FIELD(st_problem, tensor, 32);
FIELD(st_problem, tensor_len, 40);
FIELD(st_problem, text, 48);
FIELD(st_problem, reserved, 56);

SIZE(st_metadata_options, 24);
FIELD(st_metadata_options, struct_size, 0);
FIELD(st_metadata_options, in_place, 8);
FIELD(st_metadata_options, sync, 12);
FIELD(st_metadata_options, merge, 16);
FIELD(st_metadata_options, reserved0, 20);

SIZE(st_interval, 32);
FIELD(st_interval, start, 0);
FIELD(st_interval, stop, 8);
FIELD(st_interval, zeros, 16);
FIELD(st_interval, skip, 24);

SIZE(st_part, 96);
FIELD(st_part, tensor, 0);
FIELD(st_part, group, 8);
FIELD(st_part, rank, 16);
FIELD(st_part, shape, 24);
FIELD(st_part, intervals, 32);
FIELD(st_part, interval_counts, 40);
FIELD(st_part, size, 48);
FIELD(st_part, read_size, 56);
FIELD(st_part, reserved, 64);

SIZE(st_axis, 40);
FIELD(st_axis, name, 0);
FIELD(st_axis, rank, 8);
FIELD(st_axis, size, 16);
FIELD(st_axis, reserved, 24);

SIZE(st_symbol, 32);
FIELD(st_symbol, name, 0);
FIELD(st_symbol, value, 8);
FIELD(st_symbol, reserved, 16);

SIZE(st_text, 16);
FIELD(st_text, data, 0);
FIELD(st_text, size, 8);

SIZE(st_rank_plan_options, 72);
FIELD(st_rank_plan_options, struct_size, 0);
FIELD(st_rank_plan_options, plans, 8);
FIELD(st_rank_plan_options, plan_count, 16);
FIELD(st_rank_plan_options, config, 24);
FIELD(st_rank_plan_options, symbols, 40);
FIELD(st_rank_plan_options, symbol_count, 48);
FIELD(st_rank_plan_options, groups, 56);
FIELD(st_rank_plan_options, strict, 64);

SIZE(st_member, 32);
FIELD(st_member, role, 0);
FIELD(st_member, tensor, 8);
FIELD(st_member, reserved, 16);

SIZE(st_recipe, 32);
FIELD(st_recipe, code, 0);
FIELD(st_recipe, packing, 4);
FIELD(st_recipe, scale_type, 8);
FIELD(st_recipe, scale_layout, 12);
FIELD(st_recipe, zero, 16);
FIELD(st_recipe, global, 20);
FIELD(st_recipe, order, 24);
FIELD(st_recipe, reserved0, 28);

SIZE(st_group, 168);
FIELD(st_group, name, 0);
FIELD(st_group, name_len, 8);
FIELD(st_group, kind, 16);
FIELD(st_group, layout, 24);
FIELD(st_group, status, 32);
FIELD(st_group, bits, 36);
FIELD(st_group, flags, 40);
FIELD(st_group, reserved0, 44);
FIELD(st_group, rank, 48);
FIELD(st_group, shape, 56);
FIELD(st_group, block, 64);
FIELD(st_group, step, 72);
FIELD(st_group, members, 80);
FIELD(st_group, member_count, 88);
FIELD(st_group, problem, 96);
FIELD(st_group, recipe, 104);
FIELD(st_group, reserved, 136);

SIZE(st_group_override, 48);
FIELD(st_group_override, module, 0);
FIELD(st_group_override, layout, 8);
FIELD(st_group_override, bits, 16);
FIELD(st_group_override, group_size, 24);
FIELD(st_group_override, reserved, 32);

SIZE(st_groups_options, 48);
FIELD(st_groups_options, struct_size, 0);
FIELD(st_groups_options, config, 8);
FIELD(st_groups_options, ignore_config, 24);
FIELD(st_groups_options, overrides, 32);
FIELD(st_groups_options, override_count, 40);
