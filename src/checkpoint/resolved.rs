// SPDX-License-Identifier: Apache-2.0
//! Checkpoints whose files somebody else finds: through callbacks, by name.
#![forbid(unsafe_code)]

use super::assembly::{OpenedFile, Records};
use super::name;
use super::shards::{self, c_path, label, Whose};
use super::Checkpoint;
use crate::base::{memory, parallel};
use crate::error::{listed, Error, ErrorKind, Result};
use crate::format::budget::HeaderBudget;
use crate::format::header::Header;
use crate::format::index;
use crate::options::OpenOptions;
use crate::source::{ReadAt, Source};

/// Finds files for names: shards through callbacks.
pub trait Resolver {
    /// The file or index of this name, spelled as a path would be.
    ///
    /// # Errors
    /// Whatever kept it from opening; it reaches the caller as it is.
    fn open(&self, name: &[u8]) -> Result<Box<dyn ReadAt>>;
}

impl Checkpoint {
    /// A file or an index with its shards through readers of the caller's.
    ///
    /// # Errors
    /// Says which file, tensor and rule, or what the resolver or a reader said.
    pub fn open_resolved(resolver: &dyn Resolver, name: &[u8], options: &OpenOptions) -> Result<Self> {
        open(resolver, name, options).map_err(|error| error.in_file(&label(name)))
    }
}

fn open(resolver: &dyn Resolver, name: &[u8], options: &OpenOptions) -> Result<Checkpoint> {
    let source = Source::callback(resolver.open(name)?);
    let budget = HeaderBudget::of_set(&options.limits, &label(name));
    let text = match name::is_index(name) {
        true => shards::index_text(&source, options, &budget)?,
        false => match index_after_all(&source, name, options, &budget)? {
            Some(text) => text,
            None => {
                let budget = HeaderBudget::of_one(&options.limits);
                let header = Header::read(&source, 0, &options.limits, options.tolerate, &budget)?;
                return Checkpoint::single(Some(c_path(name)?), source, header, &label(name));
            }
        },
    };
    drop(source);
    let index = shards::parse_index(text)?;
    let names = shards::shards_beside(name, &index)?;
    let sources = open_all(resolver, &names)?;
    let headers = parallel::map(sources.len(), parallel::WAITING, |shard| {
        let source = sources.get(shard).ok_or_else(shards::internal)?;
        let name = names.get(shard).map_or(&[][..], Vec::as_slice);
        let number = shards::shard_number(shard)?;
        let header = Header::read(source, number, &options.limits, options.tolerate, &budget);
        header.map_err(|error| error.in_file(&label(name)))
    })?;
    let parts = sources.into_iter().zip(headers).zip(&names).map(|((source, header), name)| {
        Ok(OpenedFile { path: Some(c_path(name)?), source, records: Records::Own(header) })
    });
    Checkpoint::assemble(memory::collect(parts, names.len(), "shards")?, Some(index), &label(name))
}

/// The text of a `.json` file that is an index, whatever it is called.
fn index_after_all(
    source: &Source,
    name: &[u8],
    options: &OpenOptions,
    budget: &HeaderBudget,
) -> Result<Option<Vec<u8>>> {
    let within = (1..=options.limits.header_bytes).contains(&source.size());
    if !name::is_json(name) || !within {
        return Ok(None);
    }
    let mut start = [0; 64];
    let len = usize::try_from(source.size()).unwrap_or(usize::MAX).min(start.len());
    let start = start.get_mut(..len).unwrap_or_default();
    source.read_exact_at(0, start)?;
    if start.trim_ascii_start().first() != Some(&b'{') {
        return Ok(None);
    }
    let text = shards::index_text(source, options, budget)?;
    Ok(index::has_weight_map(&text).then_some(text))
}

/// Opens the shards, one after another: a resolver need not be thread-safe, its
/// readers are. Once one is missing, the others are asked for to count them.
fn open_all(resolver: &dyn Resolver, names: &[Vec<u8>]) -> Result<Vec<Source>> {
    let mut sources = memory::vec_with_capacity(names.len(), "shards")?;
    let mut missing: Vec<&[u8]> = Vec::new();
    let mut first: Option<Error> = None;
    for name in names {
        match resolver.open(name) {
            Ok(reader) if first.is_none() => sources.push(Source::callback(reader)),
            Ok(_) => {}
            Err(error) => {
                // As a path's error says it, or as a store's does.
                let gone = error.os_errno() == libc::ENOENT || error.kind() == ErrorKind::NotFound;
                let error = if gone { error.with_kind(ErrorKind::Shard) } else { error };
                if gone {
                    memory::reserve(&mut missing, 1, "shards")?;
                    missing.push(name);
                } else if first.is_none() {
                    return Err(Whose::Sets.blamed(error).in_file(&label(name)));
                }
                first.get_or_insert(Whose::Sets.blamed(error).in_file(&label(name)));
            }
        }
    }
    match first {
        None => Ok(sources),
        Some(error) if missing.len() < 2 => Err(error),
        Some(error) => {
            let gone = listed(missing.iter().map(|name| name.rsplit(|byte| *byte == b'/').next().unwrap_or_default()));
            let text = format!("{} of {} shards missing: {gone}", missing.len(), names.len());
            Err(Error::new(error.kind(), text).with_errno(error.os_errno()))
        }
    }
}
