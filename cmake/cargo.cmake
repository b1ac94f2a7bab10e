# SPDX-License-Identifier: Apache-2.0
#
# Builds the library with cargo, puts it into lib/ of the build tree under its
# installed names, and defines the targets.

find_program(SAFETENSORS_CARGO cargo PATHS "$ENV{HOME}/.cargo/bin" DOC "cargo, Rust's build tool")
if(NOT EXISTS "${SAFETENSORS_CARGO}")
  file(STRINGS "${PROJECT_SOURCE_DIR}/Cargo.toml" rust_needed REGEX "^rust-version = ")
  string(REGEX MATCH "[0-9.]+" rust_needed "${rust_needed}")
  if(SAFETENSORS_CARGO)
    message(FATAL_ERROR "SAFETENSORS_CARGO is ${SAFETENSORS_CARGO}, and there is no such file.")
  endif()
  message(FATAL_ERROR "libsafetensors is written in Rust, and cargo was not found. Install Rust ${rust_needed} "
    "or newer (https://rustup.rs), or say where cargo is with -DSAFETENSORS_CARGO=/path/to/cargo.")
endif()
set(SAFETENSORS_CARGO_TARGET_DIR "${PROJECT_BINARY_DIR}/cargo" CACHE PATH "Where cargo builds")
include(cmake/target.cmake)

# Without the rlib, which only Rust programs want and which keeps the compiler
# from optimising across crates: 100 kB of the shared library.
set(cargo_flags --release --lib --locked --crate-type cdylib,staticlib
  --manifest-path "${PROJECT_SOURCE_DIR}/Cargo.toml" --target-dir "${SAFETENSORS_CARGO_TARGET_DIR}")
# Half of LLVM's usual threshold: 45 kB less, and as fast. Frame pointers shorten what unwinders
# are told by 35 kB, and let profilers see through the library.
set(rustc_flags -C llvm-args=-inline-threshold=120 -C force-frame-pointers=yes ${rustc_target_flags})
set(cargo_out "${SAFETENSORS_CARGO_TARGET_DIR}/release")
if(safetensors_target)
  list(APPEND cargo_flags --target "${safetensors_target}")
  set(cargo_out "${SAFETENSORS_CARGO_TARGET_DIR}/${safetensors_target}/release")
endif()

# The file, what programs record (its SONAME), and what linkers look for.
set(soversion ${PROJECT_VERSION_MAJOR})
set(safetensors_file libsafetensors.so.${PROJECT_VERSION})
set(safetensors_soname libsafetensors.so.${soversion})
set(safetensors_link libsafetensors.so)
set(safetensors_archive libsafetensors.a)
set(lib "${PROJECT_BINARY_DIR}/lib")
file(MAKE_DIRECTORY "${lib}")

# Cargo knows best whether there is something to do, so it is asked each time.
# (A make's job server is not handed on, and cargo warns where it finds none;
# CARGO_BUILD_TARGET would move the output.)
add_custom_target(safetensors_cargo
  COMMAND "${CMAKE_COMMAND}" -E env ${cargo_environment} "RUSTC=${SAFETENSORS_RUSTC}"
    "${SAFETENSORS_CARGO}" rustc ${cargo_flags} -- ${rustc_flags}
  BYPRODUCTS "${cargo_out}/${safetensors_link}" "${cargo_out}/${safetensors_archive}"
  COMMENT "Building libsafetensors ${PROJECT_VERSION} with cargo"
  USES_TERMINAL VERBATIM)

add_custom_command(
  OUTPUT "${lib}/${safetensors_file}" "${lib}/${safetensors_soname}" "${lib}/${safetensors_link}"
  DEPENDS safetensors_cargo "${cargo_out}/${safetensors_link}"
  COMMAND "${CMAKE_COMMAND}" -E copy "${cargo_out}/${safetensors_link}" "${safetensors_file}"
  COMMAND "${CMAKE_COMMAND}" -E create_symlink "${safetensors_file}" "${safetensors_soname}"
  COMMAND "${CMAKE_COMMAND}" -E create_symlink "${safetensors_soname}" "${safetensors_link}"
  WORKING_DIRECTORY "${lib}" COMMENT "" VERBATIM)

# Cargo's archive has Rust's standard library in it, whose symbols another
# Rust archive has too, and no program could be linked with both. So what the
# library uses becomes one object, of which nothing but st_* is to be seen.
# (Groups of sections that are the same in both would be taken for one. What
# goes besides is compiler bitcode and debug information, 20 of 24 MB.)
set(object "${PROJECT_BINARY_DIR}/safetensors.o")
add_custom_command(
  OUTPUT "${lib}/${safetensors_archive}"
  DEPENDS safetensors_cargo "${cargo_out}/${safetensors_archive}"
  COMMAND "${CMAKE_C_COMPILER}" ${driver_flags} -r -nostdlib -Wl,--force-group-allocation -Wl,-u,st_abi_version
    -o "${object}" "${cargo_out}/${safetensors_archive}" ${safetensors_unwinder}
  COMMAND "${CMAKE_OBJCOPY}" --wildcard "--keep-global-symbol=st_*" --strip-debug
    --remove-section=.llvmbc --remove-section=.llvmcmd "${object}"
  COMMAND "${CMAKE_COMMAND}" -E remove -f "${lib}/${safetensors_archive}"
  COMMAND "${CMAKE_AR}" rcs "${lib}/${safetensors_archive}" "${object}"
  BYPRODUCTS "${object}" COMMENT "" VERBATIM)

add_custom_target(safetensors_libraries ALL
  DEPENDS "${lib}/${safetensors_file}" "${lib}/${safetensors_archive}")

# What `rustc --print native-static-libs` lists. libgcc_s is in the list too;
# every compiler driver adds it, or for -static its archive, on its own.
set(safetensors_private_libs pthread m)
if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
  list(APPEND safetensors_private_libs dl rt util)
endif()

configure_file(cmake/safetensors-targets.cmake.in safetensors-targets.cmake @ONLY)
set(safetensors_lib_dir "${lib}")
set(safetensors_include_dir "${PROJECT_SOURCE_DIR}/include" "${PROJECT_SOURCE_DIR}/bindings/cpp/include")
set(safetensors_scope GLOBAL)
include("${PROJECT_BINARY_DIR}/safetensors-targets.cmake")
add_dependencies(safetensors::safetensors safetensors_libraries)
add_dependencies(safetensors::static safetensors_libraries)
