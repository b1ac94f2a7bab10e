# SPDX-License-Identifier: Apache-2.0
#
# Which Rust target the C compiler builds for. Sets safetensors_target, empty
# where it is what this machine's Rust builds anyway, and what cargo has to be
# given for it.

if(WIN32 OR APPLE)
  message(FATAL_ERROR "libsafetensors does not build for ${CMAKE_SYSTEM_NAME} yet: Linux only.")
elseif(NOT CMAKE_SYSTEM_NAME STREQUAL "Linux")
  message(WARNING "libsafetensors is tested on Linux only. On ${CMAKE_SYSTEM_NAME} files are mapped only where "
    "ST_ACCESS_MAP asks for it, saves don't clear what an interrupted one left, and nothing takes turns.")
endif()

set(SAFETENSORS_RUST_TARGET "" CACHE STRING "Rust target triple to build for; empty: what the C compiler builds for")
get_filename_component(cargo_folder "${SAFETENSORS_CARGO}" DIRECTORY)
find_program(SAFETENSORS_RUSTC rustc HINTS "${cargo_folder}" PATHS "$ENV{HOME}/.cargo/bin" DOC "rustc, of the same Rust")
mark_as_advanced(SAFETENSORS_RUSTC)

# rustc's word on itself: its version and the target that it builds for unless told otherwise.
execute_process(COMMAND "${SAFETENSORS_RUSTC}" -vV OUTPUT_VARIABLE rust_version ERROR_VARIABLE rust_version_error
  WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}")
string(REGEX MATCH "host: ([^\n]+)" rust_host "${rust_version}")
set(rust_host "${CMAKE_MATCH_1}")
string(REGEX MATCH "release: ([0-9.]+)" rust_release "${rust_version}")
set(rust_release "${CMAKE_MATCH_1}")
file(STRINGS "${PROJECT_SOURCE_DIR}/Cargo.toml" rust_needed REGEX "^rust-version = ")
string(REGEX MATCH "[0-9.]+" rust_needed "${rust_needed}")
if(NOT rust_host OR rust_release VERSION_LESS rust_needed)
  message(FATAL_ERROR "libsafetensors needs Rust ${rust_needed} or newer; ${SAFETENSORS_RUSTC} is "
    "${rust_release}${rust_version_error}. Get a newer one (https://rustup.rs, or your system's rustc-N package), "
    "and say where its cargo is with -DSAFETENSORS_CARGO=/path/to/cargo.")
endif()

# The compiler's processor and C library, in Rust's words.
function(safetensors_target_of_compiler result)
  set(processor "${CMAKE_SYSTEM_PROCESSOR}")
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|amd64|AMD64)$" OR CMAKE_SYSTEM_PROCESSOR MATCHES "^i[3-6]86$")
    set(processor x86_64)
    if(CMAKE_SIZEOF_VOID_P EQUAL 4)
      set(processor i686)
    endif()
  elseif(processor MATCHES "^(aarch64|arm64)$")
    set(processor aarch64)
  elseif(processor STREQUAL "riscv64")
    set(processor riscv64gc)
  elseif(processor MATCHES "^(ppc64le|powerpc64le)$")
    set(processor powerpc64le)
  elseif(processor MATCHES "^arm")
    set(processor armv7)
  endif()
  include(CheckCSourceCompiles)
  set(CMAKE_REQUIRED_QUIET ON)
  check_c_source_compiles("#include <features.h>\n#ifndef __GLIBC__\n#error\n#endif\nint main(void) { return 0; }"
    SAFETENSORS_C_LIBRARY_IS_GLIBC)
  set(library musl)
  if(SAFETENSORS_C_LIBRARY_IS_GLIBC)
    set(library gnu)
  endif()
  if(processor STREQUAL "armv7")
    set(library "${library}eabihf")
  endif()
  set(${result} "${processor}-unknown-linux-${library}" PARENT_SCOPE)
endfunction()

set(safetensors_target "${SAFETENSORS_RUST_TARGET}")
if(NOT safetensors_target AND CMAKE_CROSSCOMPILING AND NOT CMAKE_SYSTEM_NAME STREQUAL "Linux")
  message(FATAL_ERROR "Name the Rust target for ${CMAKE_SYSTEM_NAME} with -DSAFETENSORS_RUST_TARGET=...; "
    "rustc --print target-list has them all.")
elseif(NOT safetensors_target AND CMAKE_SYSTEM_NAME STREQUAL "Linux")
  safetensors_target_of_compiler(safetensors_target)
  # Distributions that build Rust themselves name their own vendor.
  string(REPLACE "-unknown-" "-[a-z0-9_]+-" pattern "${safetensors_target}")
  if(rust_host MATCHES "^${pattern}$" AND NOT CMAKE_CROSSCOMPILING)
    set(safetensors_target "")
  endif()
endif()

set(cargo_environment --unset=MAKEFLAGS --unset=MFLAGS --unset=CARGO_BUILD_TARGET)
set(rustc_target_flags)
set(safetensors_unwinder)
set(safetensors_builds_for "${rust_host}")
if(safetensors_target)
  set(safetensors_builds_for "${safetensors_target}")
  execute_process(COMMAND "${SAFETENSORS_RUSTC}" --print target-libdir --target "${safetensors_target}"
    OUTPUT_VARIABLE target_libdir OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}")
  file(GLOB target_std "${target_libdir}/libstd-*")
  if(NOT target_libdir OR NOT target_std)
    message(FATAL_ERROR "The C compiler, ${CMAKE_C_COMPILER}, builds for ${safetensors_target}, and this Rust has no "
      "standard library for that.\n"
      "With rustup: rustup target add ${safetensors_target}\n"
      "On Debian: libstd-rust-dev (or libstd-rust-web-dev) of that architecture.\n"
      "If that is not the target you mean, name it with -DSAFETENSORS_RUST_TARGET=...; rustc --print target-list "
      "has them all.")
  endif()
  # The linker is the C compiler, with what its toolchain file gives it.
  string(TOUPPER "${safetensors_target}" variable)
  string(REPLACE "-" "_" variable "${variable}")
  list(APPEND cargo_environment "CARGO_TARGET_${variable}_LINKER=${CMAKE_C_COMPILER}")
  if(CMAKE_SYSROOT)
    list(APPEND rustc_target_flags -C "link-arg=--sysroot=${CMAKE_SYSROOT}")
  endif()
  if(CMAKE_C_COMPILER_TARGET)
    list(APPEND rustc_target_flags -C "link-arg=--target=${CMAKE_C_COMPILER_TARGET}")
  endif()
endif()
# Rust's targets for musl link it statically unless told otherwise, and make no
# shared library then. Cargo asks for that before it runs rustc.
if(safetensors_builds_for MATCHES "musl")
  list(APPEND cargo_environment "RUSTFLAGS=$ENV{RUSTFLAGS} -C target-feature=-crt-static")
  # musl-gcc is gcc without glibc's folders, and libgcc_s is in one of them: Rust brings another unwinder.
  include(CheckCSourceCompiles)
  set(CMAKE_REQUIRED_LIBRARIES gcc_s)
  check_c_source_compiles("int main(void) { return 0; }" SAFETENSORS_LINKS_LIBGCC_S)
  unset(CMAKE_REQUIRED_LIBRARIES)
  set(rust_unwinder "${target_libdir}/self-contained/libunwind.a")
  if(NOT SAFETENSORS_LINKS_LIBGCC_S AND EXISTS "${rust_unwinder}")
    set(safetensors_unwinder "${rust_unwinder}")
    file(WRITE "${PROJECT_BINARY_DIR}/libgcc/libgcc_s.so" "INPUT(${rust_unwinder})\n")
    list(APPEND rustc_target_flags -C "link-arg=-L${PROJECT_BINARY_DIR}/libgcc")
  endif()
endif()
message(STATUS "libsafetensors builds for ${safetensors_builds_for}")
