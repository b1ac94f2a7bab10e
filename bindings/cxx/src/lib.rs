// SPDX-License-Identifier: Apache-2.0
//! libsafetensors inside a C++ program that is built with Cargo: the Rust core
//! through cxx, without a shared library and without the C functions between.
//!
//! An error is a C++ exception (`rust::Error`), bytes are a `rust::Slice` that
//! leads into the mapping. What is here changes with the core from one commit to
//! the next; README.md says when to take safetensors.hpp instead.

use std::ffi::OsStr;

pub use safetensors;

#[cxx::bridge(namespace = "safetensors::embedded")]
#[allow(unreachable_pub, reason = "cxx makes what C++ sees public")]
mod bridge {
    /// One tensor. The text and numbers are borrowed from the checkpoint.
    struct Tensor<'a> {
        name: &'a str,
        /// As the file spells it.
        dtype: &'a str,
        shape: &'a [i64],
        /// Which file, and where in it.
        shard: usize,
        offset: u64,
        /// In bytes.
        size: u64,
    }

    extern "Rust" {
        /// One opened set of named tensors: a file, an index, a folder.
        type Checkpoint;

        /// Opens what a path leads to.
        fn open(path: &str) -> Result<Box<Checkpoint>>;

        /// Opens it without mapping: a failing disk is an exception, never a SIGBUS.
        fn open_unmapped(path: &str) -> Result<Box<Checkpoint>>;

        /// How many tensors there are.
        fn len(self: &Checkpoint) -> usize;

        /// The tensor of a number, by shard and offset. Throws past the end.
        unsafe fn at<'a>(self: &'a Checkpoint, number: usize) -> Result<Tensor<'a>>;

        /// The bytes of a tensor where they lie in memory: in the mapping, or
        /// read once and kept. Valid as long as the checkpoint. Throws where no
        /// tensor has the name, and where it can't be read.
        unsafe fn bytes<'a>(self: &'a Checkpoint, name: &str) -> Result<&'a [u8]>;

        /// The value of a metadata key; empty where there is none.
        unsafe fn metadata<'a>(self: &'a Checkpoint, key: &str) -> &'a str;
    }
}

use bridge::Tensor;

/// What a C++ program holds as `rust::Box<Checkpoint>`.
pub struct Checkpoint(safetensors::Checkpoint);

fn open(path: &str) -> safetensors::Result<Box<Checkpoint>> {
    open_with(path, safetensors::Access::Auto)
}

fn open_unmapped(path: &str) -> safetensors::Result<Box<Checkpoint>> {
    open_with(path, safetensors::Access::Read)
}

fn open_with(path: &str, access: safetensors::Access) -> safetensors::Result<Box<Checkpoint>> {
    let options = safetensors::OpenOptions { access, ..Default::default() };
    Ok(Box::new(Checkpoint(safetensors::Checkpoint::open(OsStr::new(path), &options)?)))
}

impl Checkpoint {
    fn len(&self) -> usize {
        self.0.tensors().len()
    }

    fn at(&self, number: usize) -> safetensors::Result<Tensor<'_>> {
        let tensor = self.0.tensors().get(number).ok_or_else(|| {
            let text = format!("there is no tensor {number} among {}", self.len());
            safetensors::Error::new(safetensors::ErrorKind::InvalidArgument, text)
        })?;
        Ok(Tensor {
            name: text(tensor.name()),
            dtype: text(tensor.dtype_name()),
            shape: tensor.shape(),
            shard: tensor.shard(),
            offset: tensor.offset(),
            size: tensor.size(),
        })
    }

    fn bytes(&self, name: &str) -> safetensors::Result<&[u8]> {
        Ok(self.0.get(name.as_bytes())?.data().unwrap_or_default())
    }

    fn metadata(&self, key: &str) -> &str {
        let entries = self.0.metadata().unwrap_or_default();
        entries.iter().find(|entry| entry.key() == key.as_bytes()).map_or("", |entry| text(entry.value()))
    }
}

/// A header that is not UTF-8 is refused on opening.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}
