# SPDX-License-Identifier: Apache-2.0
# The target `llama` from llama.cpp's source in LLAMA_DIR and a build of it in LLAMA_BUILD_DIR.
if(NOT LLAMA_BUILD_DIR)
    set(LLAMA_BUILD_DIR ${LLAMA_DIR}/build)
endif()
function(st_llama_library name)
    find_library(ST_LLAMA_${name} ${name} PATHS ${LLAMA_BUILD_DIR} PATH_SUFFIXES bin lib src ggml/src NO_DEFAULT_PATH REQUIRED)
endfunction()
foreach(name llama ggml ggml-base)
    st_llama_library(${name})
endforeach()
find_library(ST_LLAMA_ggml-cpu ggml-cpu PATHS ${LLAMA_BUILD_DIR} PATH_SUFFIXES bin lib src ggml/src NO_DEFAULT_PATH)
add_library(llama INTERFACE IMPORTED)
set_target_properties(llama PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES "${LLAMA_DIR}/include;${LLAMA_DIR}/ggml/include"
    INTERFACE_LINK_LIBRARIES "${ST_LLAMA_llama};${ST_LLAMA_ggml};${ST_LLAMA_ggml-base}")
