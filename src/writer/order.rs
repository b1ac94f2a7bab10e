// SPDX-License-Identifier: Apache-2.0
//! Tensors in order: by name, which finds equal ones, and as the reference
//! implementation writes them.
#![forbid(unsafe_code)]

use super::tensor::NewTensor;
use crate::error::{Error, ErrorKind, Result};
use crate::memory;

/// Indices of the tensors by name. Equal names are an error.
///
/// Names share long beginnings ("model.layers.1"), on which a comparison sort
/// walks again and again. Here each 8 bytes of a name are looked at once, as a
/// number.
pub(super) fn by_name(tensors: &[NewTensor<'_>]) -> Result<Vec<u32>> {
    let mut keyed = memory::vec_with_capacity(tensors.len(), "the order of tensors")?;
    for (index, tensor) in tensors.iter().enumerate() {
        let index = u32::try_from(index).map_err(|_| Error::new(ErrorKind::Unsupported, "more than 2^32 tensors"))?;
        keyed.push(Keyed { key: 0, index, name: tensor.name.as_bytes() });
    }
    sort(&mut keyed)?;
    let mut order = memory::vec_with_capacity(keyed.len(), "the order of tensors")?;
    order.extend(keyed.iter().map(|keyed| keyed.index));
    Ok(order)
}

#[derive(Clone, Copy)]
struct Keyed<'a> {
    /// Seven bytes of the name as a big-endian number, and below them how many
    /// there are, so that a name that ends stands before all that go on.
    key: u64,
    index: u32,
    name: &'a [u8],
}

impl<'a> Keyed<'a> {
    fn rest(&self, depth: usize) -> &'a [u8] {
        self.name.get(depth..).unwrap_or_default()
    }
}

const KEY_BYTES: usize = 7;
/// Groups up to this size are quicker compared than counted.
const SMALL_GROUP: usize = 16;

fn sort(keyed: &mut [Keyed<'_>]) -> Result<()> {
    // Groups of names that are equal up to a depth. A list of its own, as names
    // like "a", "aa", "aaa", … would make recursion deep.
    let mut groups = vec![(0..keyed.len(), 0_usize)];
    while let Some((range, depth)) = groups.pop() {
        let start = range.start;
        let Some(group) = keyed.get_mut(range) else { continue };
        if group.len() <= SMALL_GROUP {
            group.sort_unstable_by(|a, b| a.rest(depth).cmp(b.rest(depth)).then(a.index.cmp(&b.index)));
            match group.windows(2).find(|pair| matches!(pair, [a, b] if a.rest(depth) == b.rest(depth))) {
                Some(pair) => return Err(given_twice(pair)),
                None => continue,
            }
        }
        for one in group.iter_mut() {
            one.key = key(one.rest(depth));
        }
        group.sort_unstable_by_key(|one| (one.key, one.index));
        let mut next = start;
        for equal in group.chunk_by(|a, b| a.key == b.key) {
            let range = next..next.saturating_add(equal.len());
            next = range.end;
            match equal {
                [_] | [] => {}
                [first, ..] if first.key & 0xFF <= KEY_BYTES as u64 => return Err(given_twice(equal)),
                _ => groups.push((range, depth.saturating_add(KEY_BYTES))),
            }
        }
    }
    Ok(())
}

fn given_twice(equal: &[Keyed<'_>]) -> Error {
    let (first, second) = match equal {
        [first, second, ..] => (first.index, second.index),
        _ => (0, 0),
    };
    let name = equal.first().map_or(&b""[..], |first| first.name);
    Error::tensor(ErrorKind::DuplicateKey, name, format!("the name is given twice, as number {first} and as number {second}"))
}

fn key(rest: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let shown = rest.get(..KEY_BYTES).unwrap_or(rest);
    if let Some(place) = bytes.get_mut(..shown.len()) {
        place.copy_from_slice(shown);
    }
    // One more than KEY_BYTES stands for "and more to come".
    u64::from_be_bytes(bytes) | rest.len().min(KEY_BYTES.saturating_add(1)) as u64
}

/// The reference's order: by dtype, the widest first, then by name. Numbers of
/// dtypes ascend just as the reference's own do.
pub(super) fn reference(by_name: &[u32], tensors: &[NewTensor<'_>]) -> Result<Vec<u32>> {
    let number = |index: u32| tensor(tensors, index).map_or(0, |tensor| tensor.dtype as i32);
    let mut order = memory::vec_with_capacity(by_name.len(), "the order of tensors")?;
    order.extend_from_slice(by_name);
    // Stable, and linear where all are of one dtype.
    order.sort_by_key(|index| std::cmp::Reverse(number(*index)));
    Ok(order)
}

/// The tensor of this index.
pub(super) fn tensor<'a, 'b>(tensors: &'b [NewTensor<'a>], index: u32) -> Option<&'b NewTensor<'a>> {
    usize::try_from(index).ok().and_then(|index| tensors.get(index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::Dtype;
    use proptest::prelude::*;

    fn declare<'a>(names: &'a [String]) -> Vec<NewTensor<'a>> {
        names.iter().map(|name| NewTensor::new(name, Dtype::U8, &[]).unwrap()).collect()
    }

    proptest! {
        #[test]
        fn names_are_in_byte_order(mut names in prop::collection::vec("(a|ab|model\\.layers\\.[0-9]{0,2}|\\x00|é|.{0,3}){0,8}", 0..60)) {
            let mut sorted = names.clone();
            sorted.sort();
            let twice = sorted.windows(2).any(|pair| pair[0] == pair[1]);
            let found = by_name(&declare(&names));
            prop_assert_eq!(found.is_err(), twice);
            names.sort();
            names.dedup();
            names.reverse();
            let found: Vec<_> = by_name(&declare(&names)).unwrap().iter().map(|i| names[*i as usize].clone()).collect();
            names.reverse();
            prop_assert_eq!(found, names);
        }
    }

    #[test]
    fn long_names_do_not_make_it_deep() {
        let long = "x".repeat(3_000_000);
        let names: Vec<_> = (0..5).map(|i| format!("{long}{i}")).chain([long.clone()]).collect();
        assert_eq!(by_name(&declare(&names)).unwrap(), [5, 0, 1, 2, 3, 4]);
        let again = [names[0].clone(), names[0].clone()];
        assert_eq!(by_name(&declare(&again)).unwrap_err().kind(), ErrorKind::DuplicateKey);
    }
}
