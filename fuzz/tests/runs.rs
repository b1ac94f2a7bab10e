// SPDX-License-Identifier: Apache-2.0
//! Every target on the inputs that are committed, and on changes of them. The
//! changes are the same in every run; FUZZ_RUNS says how many there are, and
//! FUZZ_TARGET may name the one target to run.

use std::fs;
use std::panic;
use std::path::{Path, PathBuf};

use safetensors_fuzz::TARGETS;

/// Numbers that look random and are the same every time (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

fn inputs(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> =
        fs::read_dir(folder).map(|entries| entries.map(|entry| entry.unwrap().path()).collect()).unwrap_or_default();
    found.sort();
    found
}

/// The words of the dictionary that libFuzzer is given too.
fn words(root: &Path) -> Vec<Vec<u8>> {
    let text = fs::read_to_string(root.join("dictionary")).unwrap();
    let quoted = text.lines().filter_map(|line| line.strip_prefix('"')?.strip_suffix('"'));
    quoted.map(|word| word.replace("\\\"", "\"").replace("\\\\", "\\").into_bytes()).collect()
}

fn change(bytes: &mut Vec<u8>, numbers: &mut Numbers, words: &[Vec<u8>], other: &[u8]) {
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(bytes.len() + 1);
        let end = (at + numbers.below(9)).min(bytes.len());
        let word = &words[numbers.below(words.len())];
        match numbers.below(6) {
            0 => bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << (word.len() % 8)),
            1 => bytes.get_mut(at).into_iter().for_each(|byte| *byte = numbers.next() as u8),
            2 => drop(bytes.drain(at..end)),
            3 => drop(bytes.splice(at..end, word.iter().copied())),
            4 => drop(bytes.splice(at..at, numbers.next().to_le_bytes())),
            _ => {
                let from = numbers.below(other.len() + 1);
                bytes.splice(at.., other[from..].iter().copied());
            }
        }
    }
    bytes.truncate(4096);
}

#[test]
fn no_target_finds_a_fault() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let runs: usize = std::env::var("FUZZ_RUNS").map_or(1000, |text| text.parse().unwrap());
    let words = words(root);
    let only = std::env::var("FUZZ_TARGET").ok().filter(|only| !only.is_empty());
    for (name, target) in TARGETS.iter().filter(|(name, _)| only.as_deref().is_none_or(|only| *name == only)) {
        let files = [inputs(&root.join("corpus").join(name)), inputs(&root.join("regressions").join(name))].concat();
        assert!(!files.is_empty(), "{name} has no inputs");
        let seeds: Vec<_> = files.iter().map(|path| fs::read(path).unwrap()).collect();
        let run = |bytes: &[u8], what: &str| {
            let kept = std::env::temp_dir().join(format!("fuzz-{name}"));
            if let Err(fault) = panic::catch_unwind(|| target(bytes)) {
                fs::write(&kept, bytes).unwrap();
                eprintln!("{name} on {what}: the input is in {}", kept.display());
                panic::resume_unwind(fault);
            }
        };
        for (path, seed) in files.iter().zip(&seeds) {
            run(seed, &path.display().to_string());
        }
        let mut numbers = Numbers(1);
        for number in 0..runs {
            let mut bytes = seeds[numbers.below(seeds.len())].clone();
            let other = &seeds[numbers.below(seeds.len())];
            change(&mut bytes, &mut numbers, &words, other);
            run(&bytes, &format!("change {number}"));
        }
    }
}
