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

# The compiler is given what it is given by CMake, wherever it is called.
separate_arguments(driver_flags UNIX_COMMAND "${CMAKE_C_COMPILER_ARG1}")
foreach(option IN ITEMS SYSROOT TARGET EXTERNAL_TOOLCHAIN)
  set(value "${CMAKE_C_COMPILER_${option}}")
  if(option STREQUAL "SYSROOT")
    set(value "${CMAKE_SYSROOT}")
  endif()
  if(value AND CMAKE_C_COMPILE_OPTIONS_${option})
    list(APPEND driver_flags "${CMAKE_C_COMPILE_OPTIONS_${option}}${value}")
  endif()
endforeach()

# The compiler's processor and C library, in Rust's words.
function(safetensors_target_of_compiler result)
  separate_arguments(flags UNIX_COMMAND "${CMAKE_C_FLAGS}")
  execute_process(COMMAND "${CMAKE_C_COMPILER}" ${driver_flags} ${flags} -E -x c "${PROJECT_SOURCE_DIR}/cmake/target.h"
    OUTPUT_VARIABLE said ERROR_VARIABLE error)
  string(REGEX MATCH "processor ([a-z0-9_]+)[ \n]+library ([a-z]+)" found "${said}")
  if(NOT found)
    message(FATAL_ERROR "Which Rust target ${CMAKE_C_COMPILER} builds for is not known here: name it with "
      "-DSAFETENSORS_RUST_TARGET=...; rustc --print target-list has them all.\n${error}")
  endif()
  set(processor "${CMAKE_MATCH_1}")
  set(library "${CMAKE_MATCH_2}")
  if(CMAKE_CROSSCOMPILING AND CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|aarch64|riscv64|s390x|loongarch64)$"
      AND NOT processor MATCHES "^${CMAKE_SYSTEM_PROCESSOR}")
    message(FATAL_ERROR "The toolchain file names ${CMAKE_SYSTEM_PROCESSOR}, and ${CMAKE_C_COMPILER} builds for "
      "${processor}: name the compiler too, with set(CMAKE_C_COMPILER ...).")
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
    # A sysroot of this very machine's kind is another C library all the same.
    set(safetensors_target "")
    if(driver_flags)
      set(safetensors_target "${rust_host}")
    endif()
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
  set(why "${CMAKE_C_COMPILER} builds for ${safetensors_target}")
  if(SAFETENSORS_RUST_TARGET)
    set(why "SAFETENSORS_RUST_TARGET is ${SAFETENSORS_RUST_TARGET}")
  endif()
  if(NOT target_libdir)
    message(FATAL_ERROR "${why}, which ${SAFETENSORS_RUSTC} does not know. Name the one you mean with "
      "-DSAFETENSORS_RUST_TARGET=...; rustc --print target-list has them all.")
  elseif(NOT target_std)
    message(FATAL_ERROR "${why}, and this Rust has no standard library for that.\n"
      "With rustup: rustup target add ${safetensors_target}\n"
      "On Debian: libstd-rust-dev (or libstd-rust-web-dev) of that architecture.\n"
      "If that is not the target you mean, name it with -DSAFETENSORS_RUST_TARGET=...; rustc --print target-list "
      "has them all.")
  endif()
  # The linker is the C compiler, with what its toolchain file gives it.
  string(TOUPPER "${safetensors_target}" variable)
  string(REPLACE "-" "_" variable "${variable}")
  list(APPEND cargo_environment "CARGO_TARGET_${variable}_LINKER=${CMAKE_C_COMPILER}")
  foreach(flag IN LISTS driver_flags)
    list(APPEND rustc_target_flags -C "link-arg=${flag}")
  endforeach()
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
