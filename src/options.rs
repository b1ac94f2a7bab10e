// SPDX-License-Identifier: Apache-2.0
//! How a checkpoint is opened: access, limits, tolerance, prefetch.
#![forbid(unsafe_code)]

/// Where the bytes of tensors come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(i32)]
pub enum Access {
    /// Map where the file system is known to be local, read elsewhere.
    #[default]
    Auto = 0,
    /// Zero-copy: every record has its `data`.
    Map = 1,
    /// Nothing is mapped; a failing disk is an error code, never a signal.
    Read = 2,
}

/// What to do at open for tensors that will be wanted soon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(i32)]
pub enum Prefetch {
    /// Nothing.
    #[default]
    None = 0,
    /// Tell the kernel to read ahead; returns at once.
    Advise = 1,
    /// Read everything in before opening returns.
    Populate = 2,
}

/// Which files of a folder: `fp16` for `model.fp16.safetensors`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    bytes: [u8; 255],
    len: u8,
}

impl Variant {
    /// The variant of this name; `None` where it is empty. One longer than a file's
    /// name can be keeps its start, and is not there either.
    #[must_use]
    pub fn new(name: &[u8]) -> Option<Self> {
        let len = u8::try_from(name.len()).unwrap_or(u8::MAX);
        let mut bytes = [0; 255];
        bytes.iter_mut().zip(name).for_each(|(place, byte)| *place = *byte);
        (len > 0).then_some(Self { bytes, len })
    }

    /// Its name.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// Bounds on what a header may ask for. All but `set_bytes` hold for each file by itself.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a header, and of an index file.
    pub header_bytes: u64,
    /// Tensors in a header.
    pub tensors: u64,
    /// Dimensions of a tensor.
    pub rank: u64,
    /// Bytes of a tensor's name.
    pub name_bytes: u64,
    /// Bytes of all headers and the index together; `None`: 1,000,000,000 for
    /// several files, and no more than `header_bytes` for one.
    pub set_bytes: Option<u64>,
}

impl Limits {
    /// Bytes of the longest header that readers accept if nothing else is said, the
    /// reference among them.
    pub const HEADER_BYTES: u64 = 100_000_000;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: Self::HEADER_BYTES,
            tensors: u64::MAX,
            rank: u64::MAX,
            name_bytes: u64::MAX,
            set_bytes: None,
        }
    }
}

/// Rules of the format that may be broken without refusal.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tolerate {
    /// Bytes after the last tensor.
    pub trailing_bytes: bool,
    /// Dtypes this library does not know: kept as opaque bytes.
    pub unknown_dtype: bool,
}

/// All of it. The default is the strict and sensible choice everywhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions {
    /// Where the bytes of tensors come from.
    pub access: Access,
    /// Bounds on headers.
    pub limits: Limits,
    /// Rules that may be broken.
    pub tolerate: Tolerate,
    /// Reading ahead.
    pub prefetch: Prefetch,
    /// Of a folder, the files of this variant; `None`: those of none.
    pub variant: Option<Variant>,
}
