// SPDX-License-Identifier: Apache-2.0
//! SHA-256 (FIPS 180-4), as recorded answers have it.

use std::sync::LazyLock;

/// The first 16 hex digits.
pub(crate) fn short(bytes: &[u8]) -> String {
    static CONSTANTS: LazyLock<[Vec<u32>; 2]> = LazyLock::new(|| [first_digits(8, 2), first_digits(64, 3)]);
    let [start, constants] = &*CONSTANTS;
    let mut state = start.clone();
    let mut padded = bytes.to_vec();
    padded.push(0x80);
    padded.resize(padded.len().next_multiple_of(64), 0);
    if padded.len() < bytes.len() + 9 {
        padded.resize(padded.len() + 64, 0);
    }
    let end = padded.len() - 8;
    padded[end..].copy_from_slice(&(bytes.len() as u64 * 8).to_be_bytes());
    for block in padded.chunks(64) {
        let mut w: Vec<u32> = block.chunks(4).map(|word| u32::from_be_bytes(word.try_into().unwrap())).collect();
        for i in 16..64 {
            let [a, b] = [w[i - 15], w[i - 2]];
            let s0 = a.rotate_right(7) ^ a.rotate_right(18) ^ (a >> 3);
            let s1 = b.rotate_right(17) ^ b.rotate_right(19) ^ (b >> 10);
            w.push(w[i - 16].wrapping_add(s0).wrapping_add(w[i - 7]).wrapping_add(s1));
        }
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = <[u32; 8]>::try_from(&state[..]).unwrap();
        for i in 0..64 {
            let s1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
            let choice = (e & f) ^ (!e & g);
            let t1 = h.wrapping_add(s1).wrapping_add(choice).wrapping_add(constants[i]).wrapping_add(w[i]);
            let s0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
            let t2 = s0.wrapping_add((a & b) ^ (a & c) ^ (b & c));
            (h, g, f, e, d, c, b, a) = (g, f, e, d.wrapping_add(t1), c, b, a, t1.wrapping_add(t2));
        }
        for (old, new) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
            *old = old.wrapping_add(new);
        }
    }
    format!("{:08x}{:08x}", state[0], state[1])
}

/// The first 32 bits after the point of the square or cube roots of the first primes.
fn first_digits(count: usize, root: u32) -> Vec<u32> {
    let primes = (2_u128..).filter(|n| (2..*n).all(|d| n % d != 0));
    let digits = |prime: u128| {
        // The largest x with x^root <= prime * 2^(32 * root), by halving.
        let (mut low, mut high) = (0_u128, 1 << 36);
        while low + 1 < high {
            let middle = (low + high) / 2;
            let fits = match root {
                2 => middle * middle <= prime << 64,
                _ => middle * middle * middle <= prime << 96,
            };
            (low, high) = if fits { (middle, high) } else { (low, middle) };
        }
        low as u32
    };
    primes.take(count).map(digits).collect()
}

#[test]
fn the_hash_of_abc_is_the_standards() {
    assert_eq!(short(b"abc"), "ba7816bf8f01cfea");
    assert_eq!(short(b""), "e3b0c44298fc1c14");
    assert_eq!(short(&[b'a'; 64]), "ffe054fe7ae0cb6d");
}
