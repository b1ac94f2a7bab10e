// SPDX-License-Identifier: Apache-2.0
//! Loading beside the crate `safetensors`, beside the bare loops that are this
//! machine's limits, and (from a cold disk) beside what Python programs use.
//!
//!     load FOLDER [GiB] [rounds] [section ...]
//!
//! FOLDER should be on the disk that is meant. Each file is written, synced,
//! dropped from the page cache and read once before anything is timed: a file
//! that is cached from having been written is slower to map.

#[path = "../../../../tests/support/callbacks.rs"]
#[allow(dead_code, reason = "tests use more of it")]
mod callbacks;
mod files;
mod handle;
mod many;
mod parts;
mod sources;
mod steps;
mod table;
mod whole;

use std::path::Path;

/// Measures one thing in a folder, with files of about so many bytes, in so many rounds.
type Section = fn(&Path, usize, usize);

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let folder = Path::new(arguments.get(1).map_or(".", String::as_str));
    let size = (arguments.get(2).map_or(2.0, |given| given.parse::<f64>().unwrap()) * (1u64 << 30) as f64) as usize;
    let rounds = arguments.get(3).map_or(5, |given| given.parse().unwrap());
    let sections: [(&str, Section); 5] = [
        ("whole", whole::measure),
        ("parts", parts::measure),
        ("many", many::measure),
        ("steps", steps::measure),
        ("sources", sources::measure),
    ];
    let wanted = arguments.get(4..).unwrap_or_default();
    for (name, measure) in sections {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            measure(folder, size, rounds);
        }
    }
}
