// SPDX-License-Identifier: Apache-2.0
//! How to load, and what that would do.
#![forbid(unsafe_code)]

/// Through the page cache or past it; the numbers are the C constants `ST_IO_*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(i32)]
pub enum Io {
    /// What is in the page cache from there, the rest past it.
    #[default]
    Auto = 0,
    /// Through the page cache.
    Cached = 1,
    /// Past it, where the file system can.
    Direct = 2,
    /// Out of the mapping, where there is one; else as `Auto`.
    Mapped = 3,
}

/// How to load. The default is what is best for most.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    /// Most threads at work, the calling one among them; 0: what is useful.
    pub threads: usize,
    /// Through the page cache or past it.
    pub io: Io,
    /// Most bytes of memory for staging; 0: 16 MiB.
    pub staging_bytes: u64,
    /// Whether what was read is dropped from the page cache.
    pub drop_cache: bool,
    /// Widest gap in bytes that is read over; 0: what suits the source.
    pub max_gap: u64,
}

/// What a load would do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Bytes of all results.
    pub bytes: u64,
    /// Bytes to be read.
    pub read_bytes: u64,
    /// Of these, bytes that belong to no item.
    pub over_read_bytes: u64,
    /// Reads.
    pub requests: u64,
    /// Most memory for staging.
    pub staging_bytes: u64,
    /// Most threads at work.
    pub threads: usize,
    /// Files read from.
    pub shards: usize,
}
