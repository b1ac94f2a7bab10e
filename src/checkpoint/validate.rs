// SPDX-License-Identifier: Apache-2.0
//! Everything that is wrong with a file, an index or a folder, where opening
//! says the first thing.
//!
//! It runs the checks of opening themselves, in their order, with another sink for what
//! they find: so the first problem that is fatal is the error that opening gives. What
//! opening ignores is reported as not fatal.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::folder::{CheckpointFiles, FolderChoice};
use super::listing::FolderListing;
use super::open::FoundFiles;
use super::shards::{self, label, OpenIndex, Whose};
use super::{in_both, lacking, names_of};
use crate::base::{memory, sort};
use crate::error::{as_it_stands, Error, ErrorKind, Result};
use crate::format::budget::HeaderBudget;
use crate::format::finding::Finding;
use crate::format::header::Header;
use crate::format::index::Index;
use crate::options::OpenOptions;
use crate::record::Tensor;
use crate::source::{Manner, Source};

/// A rule that is broken, and where.
pub struct Problem<'a> {
    /// The rule, and what opening says about it.
    pub error: &'a Error,
    /// Whom it keeps from opening.
    pub fatal: Fatal,
    /// The byte in the file where it shows.
    pub position: u64,
    /// The file's path.
    pub file: &'a [u8],
    /// The tensor's name, where it is about one.
    pub tensor: Option<&'a [u8]>,
}

/// Whether a problem keeps from opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fatal {
    /// It is worth knowing, and no more.
    Never,
    /// Unless it is tolerated.
    Strictly,
    /// Also where all tolerance is asked for.
    Always,
}

/// Reports every problem of what is at the path. The first one that keeps these options
/// from opening it is the error.
///
/// # Errors
/// The one that opening would give; `Cancelled` where `report` returned false.
pub fn validate(path: &Path, options: &OpenOptions, report: &mut dyn FnMut(&Problem<'_>) -> bool) -> Result<()> {
    let mut inspector = Inspector { options, report, verdict: Ok(()) };
    inspector.path(path)?;
    inspector.verdict
}

struct Inspector<'a> {
    options: &'a OpenOptions,
    report: &'a mut dyn FnMut(&Problem<'_>) -> bool,
    verdict: Result<()>,
}

/// A set's headers, as far as they can be read.
struct Headers {
    /// `None` also for a file that is another one of the set.
    own: Vec<Option<Header>>,
    /// For each file the first one that is the same.
    firsts: Vec<usize>,
}

impl Headers {
    /// What the file of this number says.
    fn of(&self, number: usize) -> Option<&Header> {
        self.own.get(*self.firsts.get(number)?)?.as_ref()
    }
}

impl Inspector<'_> {
    fn path(&mut self, path: &Path) -> Result<()> {
        let bytes = path.as_os_str().as_bytes();
        match FoundFiles::at(path, self.options) {
            Ok(FoundFiles::File) => self.file(bytes),
            Ok(FoundFiles::Index) => self.index(path, &label(bytes)).map(|_| ()),
            Ok(FoundFiles::Folder(chosen)) => self.folder(&chosen),
            Err(error) => self.tell(bytes, Finding::new(error, 0, None)),
        }
    }

    fn folder(&mut self, chosen: &FolderChoice) -> Result<()> {
        let whole = label(chosen.folder.as_os_str().as_bytes());
        let opened = match &chosen.files {
            CheckpointFiles::File(file) => {
                let bytes = file.as_os_str().as_bytes();
                self.file(bytes)?;
                vec![memory::concat(&[bytes], "paths")?]
            }
            CheckpointFiles::Index(index) => self.index(index, &whole)?,
            CheckpointFiles::Series(files) => {
                self.series(files, &whole)?;
                memory::collect(files.iter().map(|file| memory::concat(&[file], "paths")), files.len(), "paths")?
            }
        };
        self.beside(&chosen.folder, opened)
    }

    /// One file.
    fn file(&mut self, path: &[u8]) -> Result<()> {
        match shards::open_file(path, &Manner::once()) {
            Ok(source) => self.header(path, &source, 0, &HeaderBudget::of_one(&self.options.limits)).map(|_| ()),
            Err(error) => self.tell(path, Finding::new(error, 0, None)),
        }
    }

    /// All files of a series.
    fn series(&mut self, paths: &[Vec<u8>], whole: &str) -> Result<()> {
        let headers = self.headers(paths, &HeaderBudget::of_set(&self.options.limits, whole), whole)?;
        let path = |number: usize| paths.get(number).map_or(&[][..], Vec::as_slice);
        for (number, first) in headers.firsts.iter().enumerate().filter(|(number, first)| number != *first) {
            if let Some(tensor) = headers.of(number).and_then(|header| header.tensors.first()) {
                let error = in_both(tensor.name(), path(*first), path(number));
                self.tell(path(number), Finding::new(error, 0, Some(tensor.name())))?;
            }
        }
        let count = headers.own.iter().flatten().map(|header| header.tensors.len()).sum();
        let mut tensors = memory::vec_with_capacity(count, "tensors")?;
        for header in headers.own.iter().flatten() {
            // Of equal names in one file, which have been reported, the first.
            let first = |(number, tensor): &(usize, &Tensor)| {
                header.names.find(&header.tensors, tensor.name()) == Some(*number)
            };
            let all = header.tensors.iter().enumerate();
            tensors.extend(all.filter(first).map(|(_, tensor)| Tensor { source: 0, reserved: [0; 1], ..*tensor }));
        }
        let place = |tensor: &Tensor| headers.of(tensor.shard()).map_or(0, |header| header.arena.place(tensor));
        names_of(&tensors, &mut |first, again| {
            let error = in_both(again.name(), path(first.shard()), path(again.shard()));
            self.tell(path(again.shard()), Finding::new(error, place(again), Some(again.name())))
        })?;
        Ok(())
    }

    /// An index and its shards; the paths of all of them.
    fn index(&mut self, path: &Path, whole: &str) -> Result<Vec<Vec<u8>>> {
        let bytes = path.as_os_str().as_bytes();
        let budget = HeaderBudget::of_set(&self.options.limits, whole);
        let itself = || memory::concat(&[bytes], "paths");
        let text = match OpenIndex::read(path, self.options, &budget) {
            Ok(read) => read.text,
            Err(error) => return self.tell(bytes, Finding::new(error, 0, None)).and(Ok(vec![itself()?])),
        };
        let Some(index) = Index::parse(text, &mut |finding| self.tell(bytes, finding))? else {
            return Ok(vec![itself()?]);
        };
        let mut paths = shards::shards_beside(bytes, &index)?;
        let headers = self.headers(&paths, &budget, whole)?;
        for (name, shard) in index.tensors() {
            let lacks = |header: &Header| header.names.find(&header.tensors, name).is_none();
            if headers.of(shard).is_some_and(lacks) {
                let shard = paths.get(shard).map_or(&[][..], Vec::as_slice);
                self.tell(bytes, Finding::new(lacking(name, shard), index.place(name), Some(name)))?;
            }
        }
        self.unlisted(&index, &paths, &headers)?;
        self.total_size(bytes, &index, &headers)?;
        if index.tensors().len() == 0 {
            self.empty_index(path)?;
        }
        memory::reserve(&mut paths, 1, "paths")?;
        paths.push(itself()?);
        Ok(paths)
    }

    /// The files' headers; what can't be opened is reported first, as by opening.
    fn headers(&mut self, paths: &[Vec<u8>], budget: &HeaderBudget, whole: &str) -> Result<Headers> {
        let mut identities = memory::vec_with_capacity(paths.len(), "shards")?;
        let mut counted = false;
        for path in paths {
            let opened = shards::open_file(path, &Manner::once());
            identities.push(match opened {
                Ok(source) => Some(source.stamp().map(|stamp| stamp.identity())),
                Err(error) => {
                    let mut error = Whose::Sets.blamed(error);
                    if error.os_errno() == libc::ENOENT && !std::mem::replace(&mut counted, true) {
                        error = shards::missing(paths, error).in_file(whole);
                    }
                    self.tell(path, Finding::new(error, 0, None))?;
                    None
                }
            });
        }
        let firsts = shards::firsts(identities.iter().copied().map(Option::flatten))?;
        let mut own = memory::vec_with_capacity(paths.len(), "shards")?;
        for ((path, number), (first, opened)) in paths.iter().zip(0..).zip(firsts.iter().zip(&identities)) {
            let source = match opened {
                Some(_) if *first == own.len() => shards::open_file(path, &Manner::once()).ok(),
                _ => None,
            };
            own.push(match source {
                Some(source) => self.header(path, &source, number, budget)?,
                None => None,
            });
        }
        Ok(Headers { own, firsts })
    }

    /// One file; what can be read of its header.
    fn header(&mut self, path: &[u8], source: &Source, number: u32, budget: &HeaderBudget) -> Result<Option<Header>> {
        let limits = &self.options.limits;
        Header::audit(source, number, limits, budget, &mut |finding| self.tell(path, finding))
    }

    /// Passes a finding on, unless the file is not at fault.
    fn tell(&mut self, file: &[u8], finding: Finding<'_>) -> Result<()> {
        let Finding { error, position, tensor, tolerable } = finding;
        let tolerate = self.options.tolerate;
        let passes = match error.kind() {
            ErrorKind::OutOfMemory | ErrorKind::Internal => return Err(error),
            ErrorKind::Dtype => tolerable && tolerate.unknown_dtype,
            _ => tolerable && tolerate.trailing_bytes,
        };
        if self.verdict.is_ok() && !passes {
            self.verdict = Err(error.clone().in_file(&label(file)));
        }
        let fatal = if tolerable { Fatal::Strictly } else { Fatal::Always };
        self.pass_on(&Problem { error: &error, fatal, position, file, tensor })
    }

    fn note(&mut self, file: &[u8], position: usize, tensor: Option<&[u8]>, text: String) -> Result<()> {
        let error = match tensor {
            Some(name) => Error::tensor(ErrorKind::Index, name, text),
            None => Error::new(ErrorKind::Index, text),
        };
        self.pass_on(&Problem { error: &error, fatal: Fatal::Never, position: position as u64, file, tensor })
    }

    fn pass_on(&mut self, problem: &Problem<'_>) -> Result<()> {
        match (self.report)(problem) {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Cancelled, "report returned a value other than 0")),
        }
    }
}

/// What opening passes over.
impl Inspector<'_> {
    /// Tensors that an index does not name.
    fn unlisted(&mut self, index: &Index, paths: &[Vec<u8>], headers: &Headers) -> Result<()> {
        for (header, path) in headers.own.iter().zip(paths) {
            let Some(header) = header else { continue };
            for tensor in header.tensors.iter().filter(|tensor| index.find(tensor.name()).is_none()) {
                let text = "is in the shard but not in the index, and is left out".to_owned();
                self.note(path, header.arena.place(tensor), Some(tensor.name()), text)?;
            }
        }
        Ok(())
    }

    /// A total_size that is not what the tensors take.
    fn total_size(&mut self, path: &[u8], index: &Index, headers: &Headers) -> Result<()> {
        let mut entries = index.metadata().into_iter().flatten();
        let Some(said) = entries.find(|entry| entry.key() == b"total_size") else { return Ok(()) };
        let mut total = 0_u64;
        for (name, shard) in index.tensors() {
            let header = headers.of(shard);
            let tensor = header.and_then(|header| header.tensors.get(header.names.find(&header.tensors, name)?));
            // Without all of them there is nothing to compare.
            let Some(tensor) = tensor else { return Ok(()) };
            total = total.saturating_add(tensor.size());
        }
        let text = std::str::from_utf8(said.value()).unwrap_or_default();
        let equal = match text.parse::<u64>() {
            Ok(said) => said == total,
            Err(_) => text.parse::<f64>().is_ok_and(|said| said == total as f64),
        };
        if equal {
            return Ok(());
        }
        let text = format!("total_size is {}, but the tensors take {total} bytes", as_it_stands(said.value()));
        self.note(path, index.place(said.key()), None, text)
    }

    /// An index that shows nothing of what lies beside it.
    fn empty_index(&mut self, path: &Path) -> Result<()> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let files = FolderListing::of(folder).map_or(0, |listing| listing.tensor_files());
        if files == 0 {
            return Ok(());
        }
        let text = format!("the index names no tensors, and there are {files} files beside it");
        self.note(path.as_os_str().as_bytes(), 0, None, text)
    }

    /// Files that a folder has beside those that are opened.
    fn beside(&mut self, folder: &Path, opened: Vec<Vec<u8>>) -> Result<()> {
        let opened = sort::sorted(opened.iter().map(Vec::as_slice), "paths")?;
        let Ok(listing) = FolderListing::of(folder) else { return Ok(()) };
        for (name, _) in sort::sorted(listing.counting()?.into_iter(), "files")? {
            let path = folder.join(OsStr::from_bytes(name));
            let path = path.as_os_str().as_bytes();
            if opened.binary_search_by_key(&path, |(opened, _)| *opened).is_err() {
                self.note(path, 0, None, "is beside what is opened, and not a part of it".into())?;
            }
        }
        Ok(())
    }
}
