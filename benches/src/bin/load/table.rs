// SPDX-License-Identifier: Apache-2.0
//! Contenders that fill memory in turn, and the table of their medians.

use std::time::{Duration, Instant};

use libsafetensors_benches::show;

/// What is timed: it fills the memory it is given.
pub(crate) type Contender<'a> = (&'a str, &'a mut dyn FnMut(&mut [u8]) -> Duration);

/// Runs contenders in turn, and prints medians with their speed by `bytes` and
/// ratios to the first `baselines`: above 1 is faster than that one.
pub(crate) fn compare(
    title: &str,
    (rounds, baselines, bytes): (usize, usize, usize),
    to: &mut [u8],
    contenders: &mut [Contender<'_>],
) -> Vec<f64> {
    let mut times = vec![Vec::new(); contenders.len()];
    for _ in 0..rounds {
        for ((_, contender), times) in contenders.iter_mut().zip(&mut times) {
            // Once untimed, so that none pays for what another left of caches and
            // free pages, or for pages that a virtual machine's host gives anew.
            // (What is to be cold makes itself so.)
            contender(to);
            times.push(contender(to).as_secs_f64());
        }
    }
    let best = |times: &Vec<f64>| times.iter().copied().fold(f64::MAX, f64::min);
    let bests: Vec<f64> = times.iter().map(best).collect();
    let medians: Vec<f64> = times.into_iter().map(median).collect();
    println!("\n{title}; medians of {rounds}");
    print!("{:46} {:>10} {:>10} {:>7}", "", "best", "time", "GB/s");
    for (name, _) in &contenders[..baselines] {
        print!("  {:>22}", format!("x {name}"));
    }
    println!();
    for (((name, _), time), best) in contenders.iter().zip(&medians).zip(&bests) {
        let shown = |time: &f64| show(Duration::from_secs_f64(*time));
        print!("{name:46} {:>10} {:>10} {:>7.2}", shown(best), shown(time), bytes as f64 / time / 1e9);
        for baseline in &medians[..baselines] {
            print!("  {:>22.2}", baseline / time);
        }
        println!();
    }
    medians
}

pub(crate) fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

pub(crate) fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}
