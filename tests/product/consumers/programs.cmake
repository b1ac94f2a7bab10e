# SPDX-License-Identifier: Apache-2.0
#
# What every consumer makes of the targets that it found.

foreach(kind IN ITEMS shared static)
  add_executable(${kind} "${CMAKE_CURRENT_LIST_DIR}/main.c")
  set_target_properties(${kind} PROPERTIES C_STANDARD 99 C_EXTENSIONS OFF)
endforeach()
target_link_libraries(shared PRIVATE safetensors::safetensors)
target_link_libraries(static PRIVATE safetensors::static)
