// SPDX-License-Identifier: Apache-2.0
//! Everything that is wrong with a file, an index or a folder, where opening
//! says the first thing.
//!
//! It runs the checks of opening themselves, in their order, with another sink
//! for what they find: so the first problem that is fatal is the error that
//! opening gives.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::base::memory;
use crate::checkpoint::open::{self, Place};
use crate::checkpoint::{in_both, lacking, names_of};
use crate::error::{Error, ErrorKind, Result};
use crate::format::finding::Finding;
use crate::format::header::Header;
use crate::format::index::Index;
use crate::options::{Access, OpenOptions};
use crate::record::Tensor;
use crate::source::{self, Source};

/// A rule that is broken, and where.
pub struct Problem<'a> {
    /// The rule, and what opening says about it.
    pub error: &'a Error,
    /// Opening refuses for it also where all tolerance is asked for.
    pub intolerable: bool,
    /// The byte in the file where it shows.
    pub position: u64,
    /// The file's path.
    pub file: &'a [u8],
    /// The tensor's name, where it is about one.
    pub tensor: Option<&'a [u8]>,
}

/// Tells of every problem of what lies at the path. The first one that keeps
/// these options from opening it is the error.
///
/// # Errors
/// The one that opening would give; `Cancelled` where `report` returned false.
pub fn validate(path: &Path, options: &OpenOptions, report: &mut dyn FnMut(&Problem<'_>) -> bool) -> Result<()> {
    let mut inspector = Inspector { options, report, verdict: Ok(()) };
    inspector.place(path)?;
    inspector.verdict
}

struct Inspector<'a> {
    options: &'a OpenOptions,
    report: &'a mut dyn FnMut(&Problem<'_>) -> bool,
    verdict: Result<()>,
}

impl Inspector<'_> {
    fn place(&mut self, path: &Path) -> Result<()> {
        let bytes = path.as_os_str().as_bytes();
        match Place::of(path) {
            Ok(Place::File) => self.file(bytes, 0, |error| error).map(|_| ()),
            Ok(Place::Files(files)) => self.files(&files),
            Ok(Place::Index(index)) => self.index(&index),
            Err(error) => self.tell(bytes, Finding::new(error, 0, None)),
        }
    }

    /// All files of a folder.
    fn files(&mut self, paths: &[Vec<u8>]) -> Result<()> {
        let headers = self.headers(paths, |error| error)?;
        let count = headers.iter().flatten().map(|header| header.tensors.len()).sum();
        let mut tensors = memory::vec_with_capacity(count, "tensors")?;
        for header in headers.iter().flatten() {
            // Of equal names in one file, which have been told of, the first.
            let first = |(number, tensor): &(usize, &Tensor)| {
                header.names.find(&header.tensors, tensor.name()) == Some(*number)
            };
            let all = header.tensors.iter().enumerate();
            tensors.extend(all.filter(first).map(|(_, tensor)| Tensor { reserved: [0; 2], ..*tensor }));
        }
        let path = |tensor: &Tensor| paths.get(tensor.shard()).map_or(&[][..], Vec::as_slice);
        let place = |tensor: &Tensor| {
            let header = headers.get(tensor.shard()).and_then(Option::as_ref);
            header.map_or(0, |header| header.arena.place(tensor))
        };
        names_of(&tensors, &mut |first, again| {
            let error = in_both(again.name(), path(first), path(again));
            self.tell(path(again), Finding::new(error, place(again), Some(again.name())))
        })?;
        Ok(())
    }

    /// An index and its shards.
    fn index(&mut self, path: &Path) -> Result<()> {
        let bytes = path.as_os_str().as_bytes();
        let text = match open::read_index(path, self.options) {
            Ok(text) => text,
            Err(error) => return self.tell(bytes, Finding::new(error, 0, None)),
        };
        let Some(index) = Index::parse(text, &mut |finding| self.tell(bytes, finding))? else { return Ok(()) };
        let headers = self.headers(&open::shards_beside(bytes, &index)?, open::missing_shard)?;
        for ((shard, names), header) in index.shards().zip(&headers) {
            let Some(header) = header else { continue };
            for name in names.filter(|name| header.names.find(&header.tensors, name).is_none()) {
                self.tell(bytes, Finding::new(lacking(name, shard), index.place(name), Some(name)))?;
            }
        }
        Ok(())
    }

    fn headers(&mut self, paths: &[Vec<u8>], unopened: fn(Error) -> Error) -> Result<Vec<Option<Header>>> {
        let mut headers = memory::vec_with_capacity(paths.len(), "shards")?;
        for (path, number) in paths.iter().zip(0..) {
            headers.push(self.file(path, number, unopened)?);
        }
        Ok(headers)
    }

    /// One file; what can be read of its header.
    fn file(&mut self, path: &[u8], number: u32, unopened: fn(Error) -> Error) -> Result<Option<Header>> {
        let file = Path::new(OsStr::from_bytes(path));
        let source = source::check_regular(file).and_then(|()| Source::file(file, Access::Read, true));
        match source {
            Ok(source) => Header::audit(&source, number, &self.options.limits, &mut |finding| self.tell(path, finding)),
            Err(error) => self.tell(path, Finding::new(unopened(error), 0, None)).map(|()| None),
        }
    }

    /// Passes a finding on, unless it is no fault of the file's.
    fn tell(&mut self, file: &[u8], finding: Finding<'_>) -> Result<()> {
        let Finding { error, position, tensor, tolerable } = finding;
        let tolerate = self.options.tolerate;
        let passes = match error.kind() {
            ErrorKind::OutOfMemory | ErrorKind::Internal => return Err(error),
            ErrorKind::Dtype => tolerable && tolerate.unknown_dtype,
            _ => tolerable && tolerate.trailing_bytes,
        };
        if self.verdict.is_ok() && !passes {
            let same = Error::new(error.kind(), error.message(usize::MAX)).with_errno(error.os_errno());
            self.verdict = Err(same.in_file(&open::label(file)));
        }
        match (self.report)(&Problem { error: &error, intolerable: !tolerable, position, file, tensor }) {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Cancelled, "report returned another number than 0")),
        }
    }
}
