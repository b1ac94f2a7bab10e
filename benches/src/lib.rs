// SPDX-License-Identifier: Apache-2.0
//! What the benches share: taking turns, medians, tables.

use std::time::{Duration, Instant};

/// Runs the contenders in turn, `rounds` times, so that a machine that changes
/// speed changes it for all; returns each one's median. Each runs once untimed
/// before each timed run, so that none starts in what another left of the caches.
pub fn medians(rounds: usize, contenders: &mut [&mut dyn FnMut()]) -> Vec<Duration> {
    let mut times = vec![Vec::with_capacity(rounds); contenders.len()];
    for _ in 0..rounds {
        for (contender, times) in contenders.iter_mut().zip(&mut times) {
            contender();
            let start = Instant::now();
            contender();
            times.push(start.elapsed());
        }
    }
    times
        .into_iter()
        .map(|mut times| {
            times.sort_unstable();
            times[times.len() / 2]
        })
        .collect()
}

/// The peak of resident memory, in bytes, while `work` runs, over what was
/// resident before.
pub fn peak_memory(work: impl FnOnce()) -> u64 {
    let read = |field: &str| -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    // Sets the peak back to what is resident now.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let before = read("VmRSS");
    work();
    read("VmHWM").saturating_sub(before)
}

/// A duration with three digits that matter.
pub fn show(time: Duration) -> String {
    let nanos = time.as_nanos() as f64;
    match nanos {
        ..1e3 => format!("{nanos:.0} ns"),
        ..1e6 => format!("{:.1} us", nanos / 1e3),
        ..1e9 => format!("{:.2} ms", nanos / 1e6),
        _ => format!("{:.2} s", nanos / 1e9),
    }
}
