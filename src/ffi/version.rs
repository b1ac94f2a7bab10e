// SPDX-License-Identifier: Apache-2.0
//! Versions: of the header when it is compiled, of the library when it is asked.

/// Major version of this header.
pub const SAFETENSORS_VERSION_MAJOR: i32 = 0;
/// Minor version of this header.
pub const SAFETENSORS_VERSION_MINOR: i32 = 1;
/// Patch version of this header.
pub const SAFETENSORS_VERSION_PATCH: i32 = 0;
/// This header's version as one number to compare: major * 1000000 + minor * 1000 + patch.
pub const SAFETENSORS_VERSION: i32 = 1000;
/// What st_abi_version returns for a library that fits this header.
pub const SAFETENSORS_ABI_VERSION: u32 = 1;
