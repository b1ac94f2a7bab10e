// SPDX-License-Identifier: Apache-2.0
//! A library that is nobody's business, but an archive with Rust's standard library in it.

/// 0 + 1 + ... + n-1, by a thread; 7 in place of 0, which panics.
#[no_mangle]
pub extern "C" fn other_sum(n: u64) -> u64 {
    let sum = move || if n == 0 { panic!("nothing to add") } else { (0..n).collect::<Vec<_>>().iter().sum() };
    std::thread::spawn(sum).join().unwrap_or(7)
}
