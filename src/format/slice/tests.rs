// SPDX-License-Identifier: Apache-2.0

use super::*;
use crate::part::Interval;
use crate::{Checkpoint, OpenOptions};

/// A file with one tensor of U8, whose bytes are their own numbers.
fn opened(shape: &[i64]) -> Checkpoint {
    let size: i64 = shape.iter().product();
    let header = format!(r#"{{"x":{{"dtype":"U8","shape":{shape:?},"data_offsets":[0,{size}]}}}}"#);
    let mut file = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
    file.extend((0..size).map(|byte| byte as u8));
    Checkpoint::open_memory(file.leak(), &OpenOptions::default()).unwrap()
}

#[test]
fn gaps_up_to_the_limit_are_read_and_wider_ones_are_not() {
    let checkpoint = opened(&[300, 8192]);
    let ranges = [Range::ALL, Range { stop: 4096, ..Range::ALL }];
    let slice = Arc::new(Selection::of_ranges(checkpoint.find(b"x").unwrap(), &ranges).unwrap());
    let reads = |widest_gap| slice.reads(widest_gap, 1 << 20);
    let sizes = |widest_gap| reads(widest_gap).map(|read| (read.size, read.picked)).collect::<Vec<_>>();
    assert_eq!(sizes(4095), [(4096, 4096); 300]);
    let (full, last) = (((1 << 20) - 4096, 128 * 4096), (44 * 8192 - 4096, 44 * 4096));
    assert_eq!(sizes(4096), [full, full, last]);
    assert_eq!(slice.span(), 299 * 8192 + 4096);
}

/// The tensor's bytes, counting what is asked of them.
struct Counted<'a> {
    bytes: &'a [u8],
    read: u64,
    limits: (u64, u64),
}

impl Fetch for Counted<'_> {
    fn straight(&mut self, start: u64, out: &mut [u8]) -> Result<()> {
        self.read += out.len() as u64;
        out.copy_from_slice(&self.bytes[start as usize..][..out.len()]);
        Ok(())
    }

    fn staged(&mut self, start: u64, len: usize) -> Result<&[u8]> {
        assert!(len as u64 <= self.limits.1);
        self.read += len as u64;
        Ok(&self.bytes[start as usize..][..len])
    }

    fn limits(&self) -> (u64, u64) {
        self.limits
    }
}

/// What lists take, index by index.
fn expected(shape: &[i64], lists: &[Option<Vec<Interval>>], bytes: &[u8]) -> Vec<u8> {
    let mut found: Vec<Option<usize>> = vec![Some(0)];
    for (size, list) in shape.iter().zip(lists) {
        let whole = vec![Interval { stop: *size, ..Interval::default() }];
        let list = list.as_ref().unwrap_or(&whole);
        let indices: Vec<Option<usize>> = list
            .iter()
            .flat_map(|piece| (piece.start..piece.stop).map(|i| Some(i as usize)).chain((0..piece.zeros).map(|_| None)))
            .collect();
        let with = |before: Option<usize>, index: &Option<usize>| Some(before? * *size as usize + (*index)?);
        found = found.iter().flat_map(|before| indices.iter().map(|index| with(*before, index))).collect();
    }
    found.into_iter().map(|at| at.map_or(0, |at| bytes[at])).collect()
}

/// A sequence of numbers that looks random and is the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

#[test]
fn every_way_to_a_selection_yields_what_its_indices_say() {
    let mut dice = Dice(1);
    let mut zeros = 0;
    for _ in 0..2000 {
        let rank = dice.below(5) as usize;
        let shape: Vec<i64> = (0..rank).map(|_| 1 + dice.below(7) as i64).collect();
        let lists: Vec<Option<Vec<Interval>>> = shape
            .iter()
            .map(|size| {
                (dice.below(3) != 0).then(|| {
                    let pieces = dice.below(4);
                    (0..pieces)
                        .map(|_| {
                            let start = dice.below(*size as u64 + 1) as i64;
                            let stop = start + dice.below((*size - start) as u64 + 1) as i64;
                            let zeros = dice.below(3) as i64 * dice.below(2) as i64;
                            Interval { start, stop, zeros, skip: 5 }
                        })
                        .collect()
                })
            })
            .collect();
        let checkpoint = opened(&shape);
        let tensor = checkpoint.find(b"x").unwrap();
        let bytes = tensor.data().unwrap();
        let given: Vec<Option<&[Interval]>> = lists.iter().map(Option::as_deref).collect();
        let selection = Arc::new(Selection::new(tensor, &given).unwrap());
        let wanted = expected(&shape, &lists, bytes);
        assert_eq!(selection.size(), wanted.len() as u64, "{shape:?} {lists:?}");
        zeros += usize::from(selection.read_size() < selection.size());

        let (widest_gap, window) = (dice.below(9), 1 + dice.below(64));
        let (mut result, mut read) = (vec![7_u8; wanted.len()], 0);
        let mut covered = vec![0; wanted.len()];
        for SliceRead { start, size, at, picked, dense } in selection.reads(widest_gap, window) {
            let from = &bytes[start as usize..][..size as usize];
            let out = at as usize..(at + picked) as usize;
            covered[out.clone()].iter_mut().for_each(|times| *times += 1);
            match dense {
                true => result[out].copy_from_slice(from),
                false => {
                    assert!(size <= window || size == 0, "{size} of {window}");
                    selection.copy(at, &mut result[out], from, start, at % 2 == 0).unwrap();
                }
            }
            read += size;
        }
        assert_eq!(result, wanted, "{shape:?} {lists:?} {widest_gap} {window}");
        assert!(covered.iter().all(|times| *times == 1));
        assert!(widest_gap != 0 || read <= selection.read_size(), "{read} {} {lists:?}", selection.read_size());

        let mut from = Counted { bytes, read: 0, limits: (widest_gap, window) };
        let mut at = 0;
        while at < wanted.len() {
            let len = (1 + dice.below(40) as usize).min(wanted.len() - at);
            let mut out = vec![9; len];
            selection.fetch(at as u64, &mut out, &mut from).unwrap();
            assert_eq!(out, wanted[at..][..len], "{shape:?} {lists:?} {at}");
            at += len;
        }
        assert!(widest_gap != 0 || from.read <= selection.read_size());
    }
    assert!(zeros > 400, "{zeros}");
}

#[test]
fn lists_that_do_not_fit_are_refused() {
    let checkpoint = opened(&[4, 6]);
    let tensor = checkpoint.find(b"x").unwrap();
    let piece = |start, stop, zeros| Interval { start, stop, zeros, skip: 0 };
    let refused = |lists: &[Option<&[Interval]>]| Selection::new(tensor, lists).err().unwrap().to_string();
    assert!(refused(&[None]).contains("1 interval lists were given for its 2 dimensions"));
    assert!(refused(&[None, Some(&[piece(0, 7, 0)])]).contains("dimension 1 (size 6): interval 0, from 0 to 7"));
    assert!(refused(&[Some(&[piece(0, 1, 0), piece(3, 2, 0)]), None]).contains("dimension 0 (size 4): interval 1"));
    assert!(refused(&[Some(&[piece(0, 1, -1)]), None]).contains("negative number"));
    assert!(refused(&[Some(&[piece(0, 1, i64::MAX)]), None]).contains("63 bits"));
    let whole = refused(&[Some(&[piece(0, 1, i64::MAX - 1)]), Some(&[piece(0, 1, i64::MAX - 1)])]);
    assert!(whole.contains("64 bits"), "{whole}");
}
