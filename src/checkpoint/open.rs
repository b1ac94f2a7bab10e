// SPDX-License-Identifier: Apache-2.0
//! What a path means: a file, an index and its shards, or a folder of either.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::base::memory;
use crate::base::parallel;
use crate::base::sort;
use crate::checkpoint::{Checkpoint, Part};
use crate::error::{escaped, quoted, Error, ErrorKind, Result};
use crate::format::finding;
use crate::format::header::Header;
use crate::format::index::Index;
use crate::options::OpenOptions;
use crate::source::{self, ReadAt, Source};

const FILE_SUFFIX: &[u8] = b".safetensors";
const INDEX_SUFFIX: &[u8] = b".index.json";

/// Finds files for names: shards behind callbacks.
pub trait Resolver {
    /// The file or index of this name, spelled as a path would be.
    ///
    /// # Errors
    /// Whatever kept it from opening; it reaches the caller as it is.
    fn open(&self, name: &[u8]) -> Result<Box<dyn ReadAt>>;
}

impl Checkpoint {
    /// Opens a `.safetensors` file, an index file or a folder with either.
    ///
    /// # Errors
    /// Says which file, tensor and rule.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let path = path.as_ref();
        let in_path = |error: Error| error.in_file(&label(path.as_os_str().as_bytes()));
        let checkpoint = match Place::of(path).map_err(in_path)? {
            Place::Index(index) => open_index(&index, options),
            Place::Files(files) => open_files(&files, options),
            Place::File => open_single(path, options),
        };
        checkpoint.map_err(in_path)
    }

    /// Opens one `.safetensors` file, and nothing else that a path can mean.
    pub(crate) fn open_file(path: &Path, options: &OpenOptions) -> Result<Self> {
        let opened = source::check_regular(path).and_then(|()| open_single(path, options));
        opened.map_err(|error| error.in_file(&label(path.as_os_str().as_bytes())))
    }

    /// A checkpoint in memory that stays as it is for as long as the checkpoint lives.
    ///
    /// # Errors
    /// Says which tensor and rule.
    pub fn open_memory(bytes: &'static [u8], options: &OpenOptions) -> Result<Self> {
        single(None, Source::memory(bytes), options).map_err(|error| error.in_file("memory"))
    }

    /// One file behind a reader of the caller's.
    ///
    /// # Errors
    /// Says which tensor and rule, or what the reader said.
    pub fn open_reader(reader: Box<dyn ReadAt>, options: &OpenOptions) -> Result<Self> {
        single(None, Source::callback(reader), options).map_err(|error| error.in_file("read_at"))
    }

    /// A file or an index with its shards behind readers of the caller's.
    ///
    /// # Errors
    /// Says which file, tensor and rule, or what the resolver or a reader said.
    pub fn open_resolved(resolver: &dyn Resolver, name: &[u8], options: &OpenOptions) -> Result<Self> {
        let in_name = |error: Error| error.in_file(&label(name));
        let source = Source::callback(resolver.open(name).map_err(in_name)?);
        if !is_index(name) {
            return single(Some(name), source, options).map_err(in_name);
        }
        let text = index_text(source.size(), options, |text| source.read_exact_at(0, text)).map_err(in_name)?;
        let index = parse_index(text).map_err(in_name)?;
        let names = shards_beside(name, &index).map_err(in_name)?;
        // One after another: a resolver need not be thread-safe, its readers are.
        let sources = names.iter().map(|name| {
            let reader = resolver.open(name);
            reader.map(Source::callback).map_err(|error| missing_shard(error).in_file(&label(name)))
        });
        let sources = memory::collect(sources, names.len(), "shards")?;
        let headers = parallel::map(sources.len(), parallel::WAITING, |shard| {
            let source = sources.get(shard).ok_or_else(internal)?;
            let name = names.get(shard).map_or(&[][..], Vec::as_slice);
            Header::read(source, shard_number(shard)?, &options.limits, options.tolerate)
                .map_err(|error| error.in_file(&label(name)))
        })?;
        let parts = sources.into_iter().zip(headers).zip(&names);
        let part =
            |((source, header), name): ((_, _), &Vec<u8>)| Ok(Part { path: Some(c_path(name)?), source, header });
        Checkpoint::assemble(memory::collect(parts.map(part), names.len(), "shards")?, Some(index)).map_err(in_name)
    }
}

/// What a path means.
pub(crate) enum Place {
    /// The path itself: one file.
    File,
    Index(PathBuf),
    Files(Vec<Vec<u8>>),
}

impl Place {
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let found = fs::metadata(path).map_err(|error| Error::os("opening", &error))?;
        if found.is_dir() {
            return choose(path);
        }
        if is_index(path.as_os_str().as_bytes()) {
            return Ok(Self::Index(path.into()));
        }
        source::require_regular(&found).map(|()| Self::File)
    }
}

/// What a folder offers.
fn choose(folder: &Path) -> Result<Place> {
    let failed = |error| Error::os("listing the folder", &error);
    let mut indexes = Vec::new();
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().into_vec();
        if name.starts_with(b".") || entry.file_type().is_ok_and(|found| found.is_dir()) {
            continue;
        }
        if name.ends_with(&[FILE_SUFFIX, INDEX_SUFFIX].concat()) {
            memory::reserve(&mut indexes, 1, "files")?;
            indexes.push(name);
        } else if name.ends_with(FILE_SUFFIX) {
            memory::reserve(&mut files, 1, "files")?;
            files.push(name);
        }
    }
    let indexes = sort::sorted(indexes.iter().map(Vec::as_slice), "files")?;
    let files = sort::sorted(files.iter().map(Vec::as_slice), "files")?;
    let path = |name: &[u8]| folder.join(OsStr::from_bytes(name));
    let usual = b"model.safetensors.index.json".as_slice();
    match indexes.as_slice() {
        several if several.iter().any(|(name, _)| *name == usual) => Ok(Place::Index(path(usual))),
        [(only, _)] => Ok(Place::Index(path(only))),
        [] if files.iter().any(|(name, _)| *name == b"model.safetensors") => {
            Ok(Place::Files(vec![path(b"model.safetensors").into_os_string().into_vec()]))
        }
        [] if files.is_empty() => {
            let text = "folder holds no *.safetensors and no *.safetensors.index.json";
            Err(Error::new(ErrorKind::Io, text).with_errno(libc::ENOENT))
        }
        [] => {
            let paths = files.iter().map(|(name, _)| Ok(path(name).into_os_string().into_vec()));
            Ok(Place::Files(memory::collect(paths, files.len(), "files")?))
        }
        several => {
            let names: Vec<_> = several.iter().take(4).map(|(name, _)| quoted(name)).collect();
            let text = format!("folder holds {} index files ({}): open one of them", several.len(), names.join(", "));
            Err(Error::new(ErrorKind::Index, text))
        }
    }
}

fn is_index(name: &[u8]) -> bool {
    name.ends_with(INDEX_SUFFIX)
}

fn open_single(path: &Path, options: &OpenOptions) -> Result<Checkpoint> {
    let source = Source::file(path, options.access, true)?;
    single(Some(path.as_os_str().as_bytes()), source, options)
}

fn single(path: Option<&[u8]>, source: Source, options: &OpenOptions) -> Result<Checkpoint> {
    let header = Header::read(&source, 0, &options.limits, options.tolerate)?;
    source.prefetch(options.prefetch);
    Checkpoint::assemble(vec![Part { path: path.map(c_path).transpose()?, source, header }], None)
}

fn open_index(path: &Path, options: &OpenOptions) -> Result<Checkpoint> {
    let in_index = |error: Error| error.in_file(&label(path.as_os_str().as_bytes()));
    let text = read_index(path, options).map_err(in_index)?;
    let index = parse_index(text).map_err(in_index)?;
    let paths = shards_beside(path.as_os_str().as_bytes(), &index).map_err(in_index)?;
    let parts = open_parts(&paths, options, missing_shard)?;
    Checkpoint::assemble(parts, Some(index)).map_err(in_index)
}

fn parse_index(text: Vec<u8>) -> Result<Index> {
    Index::parse(text, &mut finding::stop)?.ok_or_else(internal)
}

/// The shards' paths: their names behind whatever stands before the index's own.
pub(crate) fn shards_beside(index_path: &[u8], index: &Index) -> Result<Vec<Vec<u8>>> {
    let after_slash = index_path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash.saturating_add(1));
    let folder = index_path.get(..after_slash).unwrap_or_default();
    let mut paths = Vec::new();
    for (shard, _) in index.shards() {
        memory::reserve(&mut paths, 1, "paths")?;
        paths.push(memory::concat(&[folder, shard], "paths")?);
    }
    Ok(paths)
}

fn open_files(paths: &[Vec<u8>], options: &OpenOptions) -> Result<Checkpoint> {
    Checkpoint::assemble(open_parts(paths, options, |error| error)?, None)
}

/// Opens the shards and reads their headers side by side.
fn open_parts(paths: &[Vec<u8>], options: &OpenOptions, unopened: fn(Error) -> Error) -> Result<Vec<Part>> {
    let spare = source::descriptors_to_spare();
    let keep_open = paths.len() <= spare;
    // Each holds one while it looks at its shard.
    parallel::map(paths.len(), parallel::WAITING.min(spare.max(1)), |number| {
        let bytes = paths.get(number).ok_or_else(internal)?;
        let path = Path::new(OsStr::from_bytes(bytes));
        let open = || {
            source::check_regular(path).map_err(unopened)?;
            let source = Source::file(path, options.access, keep_open).map_err(unopened)?;
            let header = Header::read(&source, shard_number(number)?, &options.limits, options.tolerate)?;
            source.prefetch(options.prefetch);
            Ok(Part { path: Some(c_path(bytes)?), source, header })
        };
        open().map_err(|error: Error| error.in_file(&label(bytes)))
    })
}

/// A shard that can't be opened is a fault of the set.
pub(crate) fn missing_shard(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Io => error.with_kind(ErrorKind::Shard),
        _ => error,
    }
}

pub(crate) fn read_index(path: &Path, options: &OpenOptions) -> Result<Vec<u8>> {
    source::check_regular(path)?;
    // Read, whatever the options say: an index is never mapped.
    let source = Source::file(path, crate::options::Access::Read, true)?;
    index_text(source.size(), options, |text| source.read_exact_at(0, text))
}

fn index_text(size: u64, options: &OpenOptions, read: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<Vec<u8>> {
    let limit = options.limits.header_bytes;
    let Some(len) = usize::try_from(size).ok().filter(|_| size <= limit) else {
        return Err(Error::new(ErrorKind::Index, format!("index of {size} bytes exceeds the limit of {limit}")));
    };
    let mut text = memory::zeroed(len, "index")?;
    read(&mut text)?;
    Ok(text)
}

pub(crate) fn shard_number(number: usize) -> Result<u32> {
    u32::try_from(number).map_err(|_| Error::new(ErrorKind::Unsupported, "more than 2^32 shards"))
}

fn internal() -> Error {
    Error::new(ErrorKind::Internal, "an index or a shard is not where it should be")
}

/// A path for a message.
pub(crate) fn label(path: &[u8]) -> String {
    escaped(path)
}

/// A path for C: it came from C or from the file system, so it has no NUL before this one.
fn c_path(path: &[u8]) -> Result<Vec<u8>> {
    memory::concat(&[path, b"\0"], "paths")
}
