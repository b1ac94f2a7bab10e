# SPDX-License-Identifier: Apache-2.0
#
# What is installed where. The result may be moved: the CMake package and the
# pkg-config file find the rest from their own place, but for folders that were
# given as absolute paths.

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(FILES include/safetensors.h include/safetensors_model.h bindings/cpp/include/safetensors.hpp
  DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(PROGRAMS "${lib}/${safetensors_file}" DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(FILES "${lib}/${safetensors_soname}" "${lib}/${safetensors_link}" "${lib}/${safetensors_archive}"
  DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(FILES LICENSE DESTINATION "${CMAKE_INSTALL_DOCDIR}")

# find_package. Before 1.0 each minor version may break what used the last.
set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/safetensors")
set(compatibility SameMajorVersion)
if(PROJECT_VERSION_MAJOR EQUAL 0)
  set(compatibility SameMinorVersion)
endif()
write_basic_package_version_file(safetensors-config-version.cmake COMPATIBILITY ${compatibility})
configure_package_config_file(cmake/safetensors-config.cmake.in safetensors-config.cmake
  INSTALL_DESTINATION "${package_dir}" PATH_VARS CMAKE_INSTALL_LIBDIR CMAKE_INSTALL_INCLUDEDIR)
install(FILES
  "${PROJECT_BINARY_DIR}/safetensors-config.cmake"
  "${PROJECT_BINARY_DIR}/safetensors-config-version.cmake"
  "${PROJECT_BINARY_DIR}/safetensors-targets.cmake"
  DESTINATION "${package_dir}")

# pkg-config: safetensors is the shared library, safetensors-static the archive.
set(pc_libdir "\${prefix}/${CMAKE_INSTALL_LIBDIR}")
set(pc_includedir "\${prefix}/${CMAKE_INSTALL_INCLUDEDIR}")
file(RELATIVE_PATH pc_prefix "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
string(REGEX REPLACE "/$" "" pc_prefix "\${pcfiledir}/${pc_prefix}")
if(IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}")
  set(pc_libdir "${CMAKE_INSTALL_LIBDIR}")
  set(pc_prefix "${CMAKE_INSTALL_PREFIX}")
endif()
if(IS_ABSOLUTE "${CMAKE_INSTALL_INCLUDEDIR}")
  set(pc_includedir "${CMAKE_INSTALL_INCLUDEDIR}")
endif()
list(TRANSFORM safetensors_private_libs PREPEND "-l" OUTPUT_VARIABLE pc_private_libs)
list(JOIN pc_private_libs " " pc_private_libs)
configure_file(cmake/safetensors.pc.in safetensors.pc @ONLY)
configure_file(cmake/safetensors-static.pc.in safetensors-static.pc @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/safetensors.pc" "${PROJECT_BINARY_DIR}/safetensors-static.pc"
  DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
