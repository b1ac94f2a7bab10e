# SPDX-License-Identifier: Apache-2.0
# Libraries, headers, a CMake package and a pkg-config file. llama.cpp is the user's own and is not
# installed; the package finds it as this build did, or by the target `llama`.
install(TARGETS safetensors-llama-shared safetensors-llama-static
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET st-llama)
    install(TARGETS st-llama RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
install(FILES include/st_gguf.h include/st_llama.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
set(package ${CMAKE_INSTALL_LIBDIR}/cmake/safetensors-llama)
configure_package_config_file(cmake/safetensors-llamaConfig.cmake.in safetensors-llamaConfig.cmake
    INSTALL_DESTINATION ${package} PATH_VARS CMAKE_INSTALL_LIBDIR CMAKE_INSTALL_INCLUDEDIR)
write_basic_package_version_file(safetensors-llamaConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/safetensors-llamaConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/safetensors-llamaConfigVersion.cmake
    cmake/LlamaFromSource.cmake DESTINATION ${package})
configure_file(cmake/safetensors-llama.pc.in safetensors-llama.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/safetensors-llama.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
