// SPDX-License-Identifier: Apache-2.0
//! Tensors in order: by name, which finds equal ones, and as the reference
//! implementation writes them.
#![forbid(unsafe_code)]

use super::tensor::NewTensor;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::memory;

/// Indices of the tensors by name. Equal names are an error.
///
/// Names share long beginnings ("model.layers.1"), on which a comparison sort
/// walks again and again. Here what a group of names shares is skipped once,
/// and the next bytes of each are compared as a number.
pub(super) fn by_name(tensors: &[NewTensor<'_>]) -> Result<Vec<u32>> {
    let mut keyed = memory::vec_with_capacity(tensors.len(), "the order of tensors")?;
    let count = u32::try_from(tensors.len());
    let count = count.map_err(|_| Error::new(ErrorKind::Unsupported, "more than 2^32 tensors"))?;
    keyed.extend((0..count).map(|index| Keyed { key: 0, index }));
    // Names by themselves fit into a processor's cache where tensors do not.
    let mut names = memory::vec_with_capacity(tensors.len(), "the order of tensors")?;
    names.extend(tensors.iter().map(|tensor| tensor.name.as_bytes()));
    if !names.is_sorted_by(|a, b| a < b) {
        sort(&mut keyed, &names)?;
    }
    let mut order = memory::vec_with_capacity(keyed.len(), "the order of tensors")?;
    order.extend(keyed.iter().map(|keyed| keyed.index));
    Ok(order)
}

#[derive(Clone, Copy)]
struct Keyed {
    /// Seven bytes of the name as a big-endian number, and below them how many
    /// there are, so that a name that ends stands before all that go on.
    key: u64,
    index: u32,
}

const KEY_BYTES: usize = 7;
/// Groups up to this size are quicker compared than counted.
const SMALL_GROUP: usize = 16;

fn sort(keyed: &mut [Keyed], names: &[&[u8]]) -> Result<()> {
    // Groups of names that are equal up to a depth. A list of its own, as names
    // like "a", "aa", "aaa", … would make recursion deep.
    let mut groups = vec![(0..keyed.len(), 0_usize)];
    while let Some((range, mut depth)) = groups.pop() {
        let start = range.start;
        let Some(group) = keyed.get_mut(range) else { continue };
        if group.len() <= SMALL_GROUP {
            sort_small(group, names, depth)?;
            continue;
        }
        depth = depth.saturating_add(shared(group, names, depth));
        for one in group.iter_mut() {
            one.key = key(rest(names, one.index, depth));
        }
        group.sort_unstable_by_key(|one| one.key);
        let mut next = start;
        for equal in group.chunk_by(|a, b| a.key == b.key) {
            let range = next..next.saturating_add(equal.len());
            next = range.end;
            match equal {
                [_] | [] => {}
                [first, ..] if first.key & 0xFF <= KEY_BYTES as u64 => return Err(given_twice(equal, names)),
                _ => groups.push((range, depth.saturating_add(KEY_BYTES))),
            }
        }
    }
    Ok(())
}

fn sort_small(group: &mut [Keyed], names: &[&[u8]], depth: usize) -> Result<()> {
    let rest = |one: &Keyed| rest(names, one.index, depth);
    group.sort_unstable_by(|a, b| rest(a).cmp(rest(b)));
    match group.windows(2).find(|pair| matches!(pair, [a, b] if rest(a) == rest(b))) {
        Some(pair) => Err(given_twice(pair, names)),
        None => Ok(()),
    }
}

fn rest<'a>(names: &[&'a [u8]], index: u32, depth: usize) -> &'a [u8] {
    let name = usize::try_from(index).ok().and_then(|index| names.get(index));
    name.and_then(|name| name.get(depth..)).unwrap_or_default()
}

/// How many bytes behind `depth` all names of the group have in common.
fn shared(group: &[Keyed], names: &[&[u8]], depth: usize) -> usize {
    let Some((first, others)) = group.split_first() else { return 0 };
    let mut shared = rest(names, first.index, depth);
    for other in others {
        let other = rest(names, other.index, depth);
        if !other.starts_with(shared) {
            let equal = shared.iter().zip(other).take_while(|(a, b)| a == b).count();
            shared = shared.get(..equal).unwrap_or_default();
            if equal == 0 {
                break;
            }
        }
    }
    shared.len()
}

fn given_twice(equal: &[Keyed], names: &[&[u8]]) -> Error {
    let numbers = || equal.iter().map(|one| one.index);
    let first = numbers().min().unwrap_or(0);
    let second = numbers().filter(|number| *number != first).min().unwrap_or(0);
    let text = format!("the name is given twice, as number {first} and as number {second}");
    Error::tensor(ErrorKind::DuplicateKey, rest(names, first, 0), text)
}

fn key(rest: &[u8]) -> u64 {
    // One more than KEY_BYTES stands for "and more to come".
    let length = rest.len().min(KEY_BYTES.saturating_add(1)) as u64;
    if let Some(bytes) = rest.first_chunk::<8>() {
        return u64::from_be_bytes(*bytes) & !0xFF | length;
    }
    let mut bytes = [0; 8];
    for (place, byte) in bytes.iter_mut().zip(rest.iter().take(KEY_BYTES)) {
        *place = *byte;
    }
    u64::from_be_bytes(bytes) | length
}

/// The reference's order: by dtype, the widest first, then by name. Numbers of
/// dtypes ascend just as the reference's own do.
pub(super) fn reference(by_name: &[u32], tensors: &[NewTensor<'_>]) -> Result<Vec<u32>> {
    let mut order = memory::vec_with_capacity(by_name.len(), "the order of tensors")?;
    let used = tensors.iter().fold(0_u32, |used, tensor| used | bit(tensor.dtype));
    for dtype in Dtype::ALL.iter().rev().filter(|dtype| used & bit(**dtype) != 0) {
        if used == bit(*dtype) {
            order.extend_from_slice(by_name);
        } else {
            let is_of = |index: &&u32| tensor(tensors, **index).is_some_and(|tensor| tensor.dtype == *dtype);
            order.extend(by_name.iter().filter(is_of));
        }
    }
    Ok(order)
}

/// A dtype among those in use. Numbers of dtypes that can be written are below 32.
fn bit(dtype: Dtype) -> u32 {
    1_u32.checked_shl(dtype as u32).unwrap_or(0)
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
