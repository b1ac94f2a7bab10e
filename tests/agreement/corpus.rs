// SPDX-License-Identifier: Apache-2.0
//! The conformance table holds: for the reference, for the written-down rules,
//! and for the library through its Rust and C faces in every way to open.

use std::collections::HashMap;
use std::process::Command;

use crate::support::callbacks::{Files, Manner, Reader};
use crate::support::corpus::{cases, entry_line, root, Case, Contents, Tensor};
use crate::support::handle::{self, init_options, options, Failure, Handle};
use crate::support::{self, model, reference};
use safetensors::ffi::{st_open_options, ST_ACCESS_CALLBACK, ST_ACCESS_MAP, ST_ACCESS_MEMORY, ST_ACCESS_READ};
use safetensors::{Access, Checkpoint, OpenOptions};

/// What a way to open gave, against the table: all that differs is told at the end.
struct Report {
    way: &'static str,
    faults: Vec<String>,
}

impl Report {
    fn new(way: &'static str) -> Self {
        Self { way, faults: Vec::new() }
    }

    fn check(&mut self, case: &Case, found: Result<Contents, &str>) {
        let agrees = match (&case.contents, &found) {
            (Some(wanted), Ok(found)) => wanted == found,
            (None, Err(status)) => case.status == *status,
            _ => false,
        };
        if !agrees {
            self.faults.push(match (&case.contents, found) {
                (Some(wanted), Ok(found)) => format!("{}: wanted {wanted:?}, found {found:?}", case.name),
                (_, found) => {
                    format!("{}: wanted {}, found {}", case.name, case.status, found.err().unwrap_or("ST_OK"))
                }
            });
        }
    }

    fn check_handle(&mut self, case: &Case, access: i32, found: Result<Handle, Failure>) {
        let contents = found.as_ref().map(|handle| {
            assert!(handle.shards().iter().all(|shard| shard.access() == access), "{} by {}", case.name, self.way);
            handle.contents()
        });
        self.check(case, contents.map_err(Failure::status));
    }

    fn finish(self) {
        assert!(self.faults.is_empty(), "by {}:\n{}", self.way, self.faults.join("\n"));
    }
}

#[test]
fn the_files_are_what_their_script_makes() {
    match Command::new("python3").arg(root().join("make.py")).arg("--check").output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => println!("skipped: no python3 ({error})"),
    }
}

#[test]
fn the_reference_agrees_but_for_the_listed_departures() {
    let mut departures: HashMap<&str, usize> = HashMap::new();
    for case in cases().iter().filter(|case| case.is_single() && !case.has_options) {
        let bytes = case.bytes();
        let mut wanted = case.contents.clone();
        if let Some(metadata) = wanted.as_mut().and_then(|contents| contents.metadata.as_mut()) {
            metadata.sort();
        }
        match (reference::verdict(&bytes), wanted) {
            (Some(_), None) => {
                let Some((why, kind)) = reference::departure(&bytes) else {
                    panic!("{}: the reference accepts", case.name)
                };
                assert_eq!(case.status, handle::status_name(kind as i32), "{}", case.name);
                *departures.entry(why).or_default() += 1;
            }
            (found, wanted) => assert_eq!(found, wanted, "{}", case.name),
        }
    }
    for (why, ..) in reference::POLICY {
        assert!(departures.contains_key(why), "no case shows that {why}");
    }
}

#[test]
fn the_written_down_rules_agree() {
    let mut report = Report::new("the model");
    for case in cases().iter().filter(|case| case.is_single()) {
        // The model has no limits but the header's.
        if case.options.limits.tensors != u64::MAX || case.options.limits.name_bytes != u64::MAX {
            continue;
        }
        let found = model::verdict(&case.bytes(), &case.options);
        report.check(case, found.map_err(|kind| handle::status_name(kind as i32)));
    }
    report.finish();
}

#[test]
fn every_status_of_the_format_is_shown() {
    let cases = cases();
    for number in 9..=24 {
        let name = handle::status_name(number);
        assert!(cases.iter().any(|case| case.status == name), "no case gives {name}");
    }
}

#[test]
fn rust_opens_them_as_the_table_says() {
    let mut report = Report::new("Rust");
    for case in cases() {
        for access in [Access::Auto, Access::Map, Access::Read] {
            let found = Checkpoint::open(&case.path, &OpenOptions { access, ..case.options });
            report.check(
                &case,
                found.as_ref().map(rust_contents).map_err(|error| handle::status_name(error.kind() as i32)),
            );
        }
    }
    report.finish();
}

fn rust_contents(checkpoint: &Checkpoint) -> Contents {
    let mut tensors = Vec::new();
    for tensor in checkpoint.tensors() {
        let mut read = vec![0; tensor.size() as usize];
        checkpoint.read(tensor, &mut read).unwrap();
        let got = checkpoint.get(tensor.name()).unwrap();
        assert_eq!(got.data().unwrap(), read);
        assert_eq!(checkpoint.find(tensor.name()).unwrap().offset(), tensor.offset());
        assert_eq!(
            tensor.dtype().bits() as u64 * tensor.element_count() / 8,
            if tensor.dtype().bits() == 0 { 0 } else { tensor.size() }
        );
        let (name, dtype, shard) = (tensor.name(), tensor.dtype_name(), tensor.shard());
        tensors
            .push(Tensor { name, dtype, shape: tensor.shape(), shard, offset: tensor.offset(), bytes: &read }.line());
    }
    tensors.sort();
    let metadata =
        checkpoint.metadata().map(|all| all.iter().map(|entry| entry_line(entry.key(), entry.value())).collect());
    Contents { tensors, metadata }
}

#[test]
fn messages_say_what_the_table_says() {
    let mut told = 0;
    for case in cases().iter().filter(|case| !case.says.is_empty()) {
        let message = Checkpoint::open(&case.path, &case.options).map(|_| ()).unwrap_err().message(503);
        for part in &case.says {
            assert!(message.contains(part.as_str()), "{}: {part}: {message}", case.name);
            told += 1;
        }
        // The caller's own words come first: a path, or its end where it is long.
        let known = case.path.file_name().unwrap().to_str().unwrap();
        assert!(message.contains(known), "{}: {known}: {message}", case.name);
    }
    assert!(told > 80, "{told} parts of messages");
}

#[test]
fn c_maps_and_reads_them_as_the_table_says() {
    let mut report = Report::new("st_open and st_open_with");
    for case in cases() {
        for access in [ST_ACCESS_MAP, ST_ACCESS_READ] {
            let options = st_open_options { access, ..options(&case.options) };
            report.check_handle(&case, access, handle::open_with(&case.path, &options));
        }
        if !case.has_options {
            report.check(&case, handle::open(&case.path).as_ref().map(Handle::contents).map_err(Failure::status));
        }
    }
    report.finish();
}

#[test]
fn c_takes_them_from_memory_as_the_table_says() {
    let mut report = Report::new("st_open_memory");
    for case in cases().iter().filter(|case| case.is_single()) {
        let bytes = case.bytes();
        report.check_handle(case, ST_ACCESS_MEMORY, handle::open_memory(&bytes, &options(&case.options)));
    }
    report.finish();
}

/// Where there is text after an entry, it is read in one go, which short
/// headers never are: white space after them changes nothing.
#[test]
fn room_behind_the_header_changes_nothing() {
    const ROOM: usize = 200;
    let mut report = Report::new("st_open_memory, with room");
    for case in cases().iter().filter(|case| case.is_single() && !case.has_options) {
        let bytes = case.bytes();
        let length = bytes.first_chunk().map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes));
        let Some(end) = usize::try_from(length).ok().and_then(|length| length.checked_add(8)) else { continue };
        if end > bytes.len() || end + ROOM > 100_000_000 {
            continue;
        }
        let room = support::file([&bytes[8..end], &[b' '; ROOM]].concat(), &bytes[end..]);
        let found = handle::open_memory(&room, &options(&case.options));
        if let Ok(found) = &found {
            assert_eq!(found.tensors()[..].len(), case.contents.as_ref().map_or(0, |wanted| wanted.tensors.len()));
            for (tensor, old) in
                found.tensors().iter().zip(handle::open_memory(&bytes, &init_options()).unwrap().tensors())
            {
                assert_eq!((tensor.name(), tensor.shape(), tensor.dtype()), (old.name(), old.shape(), old.dtype()));
                assert_eq!((tensor.offset() - ROOM as u64, tensor.size()), (old.offset(), old.size()));
            }
        }
        // Offsets are others now, so what is in it has been compared here.
        report.check(case, found.as_ref().map(|_| case.contents.clone().unwrap_or_default()).map_err(Failure::status));
    }
    report.finish();
}

#[test]
fn c_takes_them_from_read_at_as_the_table_says() {
    let mut report = Report::new("st_open_io");
    for case in cases().iter().filter(|case| case.is_single()) {
        let bytes = case.bytes();
        for (manner, preferred_read) in
            [(Manner::Whole, 0), (Manner::Short(1), 0), (Manner::Short(7), 16), (Manner::Whole, 1)]
        {
            let reader = Reader { preferred_read, ..Reader::new(bytes.clone()).manner(manner) };
            let handle = handle::open_io(&reader.io(), &options(&case.options));
            report.check_handle(case, ST_ACCESS_CALLBACK, handle);
            assert_eq!(reader.counts.released(), 1, "{}", case.name);
        }
    }
    report.finish();
}

#[test]
fn c_takes_them_from_a_resolver_as_the_table_says() {
    let mut report = Report::new("st_open_resolved");
    for case in cases().iter().filter(|case| !case.is_folder()) {
        // A name with a folder before it, which the shards' names keep.
        let folder = case.path.parent().unwrap();
        let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
        let files = Files::new(entries.filter(|entry| entry.path().is_file()).map(|entry| {
            let name = format!("some where/{}", entry.file_name().into_string().unwrap());
            let bytes = if case.is_single() && entry.path() != case.path {
                Vec::new()
            } else {
                std::fs::read(entry.path()).unwrap()
            };
            (name, Reader::new(bytes).manner(Manner::Short(1000)))
        }));
        let name = format!("some where/{}", case.path.file_name().unwrap().to_str().unwrap());
        let handle = handle::open_resolved(&files.resolver(), &name, &options(&case.options));
        assert_eq!(files.counts.released(), 1, "before it returns");
        report.check_handle(case, ST_ACCESS_CALLBACK, handle);
        let asked = files.asked.lock().unwrap();
        assert_eq!(asked[0], name);
        for (name, reader) in &files.readers {
            let times = asked.iter().filter(|asked| *asked == name).count();
            assert_eq!(reader.counts.released(), times, "{}: {name}", case.name);
        }
    }
    report.finish();
}
