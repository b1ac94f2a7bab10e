# SPDX-License-Identifier: Apache-2.0
# llama.cpp has to be one with both ways in: a FILE, and tensors that a program supplies.
include(CheckCXXSourceCompiles)
get_target_property(st_llama_includes llama INTERFACE_INCLUDE_DIRECTORIES)
if(NOT st_llama_includes)
    set(st_llama_includes "")
endif()
# A target of an enclosing project may have generator expressions here.
string(GENEX_STRIP "${st_llama_includes}" st_llama_plain)
foreach(directory ${st_llama_includes})
    string(REGEX REPLACE "^\\$<BUILD_INTERFACE:(.*)>$" "\\1" directory "${directory}")
    list(APPEND st_llama_plain "${directory}")
endforeach()
if(TARGET ggml)
    get_target_property(ggml_includes ggml INTERFACE_INCLUDE_DIRECTORIES)
    foreach(directory ${ggml_includes})
        string(REGEX REPLACE "^\\$<BUILD_INTERFACE:(.*)>$" "\\1" directory "${directory}")
        list(APPEND st_llama_plain "${directory}")
    endforeach()
    get_target_property(ggml_source ggml SOURCE_DIR)
    if(ggml_source)
        list(APPEND st_llama_plain "${ggml_source}/../include")
    endif()
endif()
set(CMAKE_REQUIRED_INCLUDES ${st_llama_plain})
set(CMAKE_REQUIRED_FLAGS "-std=c++17 -c")
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
check_cxx_source_compiles("
    #include <llama.h>
    llama_model * (*stream)(FILE *, llama_model_params) = llama_model_load_from_file_ptr;
    llama_model * (*user)(gguf_context *, llama_model_set_tensor_data_t, void *, llama_model_params) = llama_model_init_from_user;
    llama_load_mode mode = LLAMA_LOAD_MODE_NONE;
    " ST_LLAMA_HAS_BOTH_WAYS)
unset(CMAKE_TRY_COMPILE_TARGET_TYPE)
unset(CMAKE_REQUIRED_FLAGS)
unset(CMAKE_REQUIRED_INCLUDES)
if(NOT ST_LLAMA_HAS_BOTH_WAYS)
    message(FATAL_ERROR "this llama.h lacks llama_model_load_from_file_ptr, llama_model_init_from_user or LLAMA_LOAD_MODE_NONE: a newer llama.cpp is needed (libllama 0.5.0)")
endif()
