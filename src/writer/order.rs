// SPDX-License-Identifier: Apache-2.0
//! Tensors in order: by name, which finds equal ones, and as the reference
//! implementation writes them.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use super::tensor::NewTensor;
use crate::base::memory::{self, Filler};
use crate::base::parallel::{self, WORTH_A_THREAD};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};

const WHAT: &str = "the order of tensors";

/// Indices of the tensors by name. Equal names are an error.
///
/// Names share long beginnings ("model.layers.1"), on which a comparison sort
/// walks again and again. Here what a group of names shares is skipped once,
/// and the next bytes of each are compared as a number.
pub(super) fn by_name(names: &[&[u8]]) -> Result<Vec<u32>> {
    let mut order = given(names.len())?;
    if names.is_sorted_by(|a, b| a < b) {
        return Ok(order);
    }
    let mut keyed = memory::vec_with_capacity(names.len(), WHAT)?;
    keyed.extend(order.iter().map(|index| Keyed { key: 0, index: *index }));
    sort(&mut keyed, names)?;
    order.iter_mut().zip(&keyed).for_each(|(place, one)| *place = one.index);
    Ok(order)
}

/// Indices of the tensors as they were given.
pub(super) fn given(count: usize) -> Result<Vec<u32>> {
    let mut order = memory::vec_with_capacity(count, WHAT)?;
    let count = u32::try_from(count);
    order.extend(0..count.map_err(|_| Error::new(ErrorKind::Unsupported, "more than 2^32 tensors"))?);
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

/// Names that are compared to guess what all have in common.
const FEW: usize = 16;

impl Keyed {
    #[inline]
    fn new(name: &[u8], depth: usize, index: u32) -> Self {
        // One more than KEY_BYTES stands for "and more to come".
        let length = name.len().saturating_sub(depth).min(KEY_BYTES.saturating_add(1));
        Self { key: word(name, depth) & !0xFF | length as u64, index }
    }

    /// Whether the name has ended within the key.
    fn ends(self) -> bool {
        self.key & 0xFF <= KEY_BYTES as u64
    }
}

/// The eight bytes of a name after `depth`, with zeros after its end.
#[inline]
fn word(name: &[u8], depth: usize) -> u64 {
    let rest = name.get(depth..).unwrap_or_default();
    if let Some(next) = rest.first_chunk() {
        return u64::from_be_bytes(*next);
    }
    if let Some(last) = name.last_chunk() {
        // They are the last ones of a name that is long enough: no loop.
        let missing = rest.len().wrapping_neg().wrapping_mul(8) & 63;
        return if rest.is_empty() { 0 } else { u64::from_be_bytes(*last) << missing };
    }
    let mut bytes = [0; 8];
    if let Some(place) = bytes.get_mut(..rest.len()) {
        place.copy_from_slice(rest);
    }
    u64::from_be_bytes(bytes)
}

/// Names that are equal up to a depth.
type NameGroup<'a> = (&'a mut [Keyed], usize);

fn sort(keyed: &mut [Keyed], names: &[&[u8]]) -> Result<()> {
    let all = keyed.len();
    let mut groups = vec![(keyed, 0)];
    if all < WORTH_A_THREAD {
        return sort_groups(&mut groups, names);
    }
    // Divided until there is work for two.
    while let Some(large) = groups.iter().position(|(group, _)| group.len() > all / 4) {
        let large = groups.swap_remove(large);
        sort_once(large, names, &mut groups)?;
    }
    let (mut first, mut second) = ((0_usize, Vec::new()), (0_usize, Vec::new()));
    for group in groups {
        let (len, groups) = if first.0 < second.0 { &mut first } else { &mut second };
        *len = len.saturating_add(group.0.len());
        memory::reserve(groups, 1, WHAT)?;
        groups.push(group);
    }
    parallel::both(&mut || sort_groups(&mut first.1, names), &mut || sort_groups(&mut second.1, names))
}

/// A list of groups, as names like "a", "aa", "aaa", … would make recursion deep.
fn sort_groups(groups: &mut Vec<NameGroup<'_>>, names: &[&[u8]]) -> Result<()> {
    while let Some(group) = groups.pop() {
        sort_once(group, names, groups)?;
    }
    Ok(())
}

/// Sorts by the next bytes that are not the same in all names, and adds the
/// groups in which these are equal.
fn sort_once<'a>((group, depth): NameGroup<'a>, names: &[&[u8]], groups: &mut Vec<NameGroup<'a>>) -> Result<()> {
    let depth = set_keys(group, names, depth);
    group.sort_unstable_by_key(|one| one.key);
    for equal in group.chunk_by_mut(|a, b| a.key == b.key) {
        match equal {
            [_] | [] => {}
            [first, ..] if first.ends() => return Err(given_twice(equal, names)),
            _ => {
                memory::reserve(groups, 1, WHAT)?;
                groups.push((equal, depth.saturating_add(KEY_BYTES)));
            }
        }
    }
    Ok(())
}

fn name<'a>(names: &[&'a [u8]], index: u32) -> &'a [u8] {
    usize::try_from(index).ok().and_then(|index| names.get(index)).copied().unwrap_or_default()
}

/// Makes each key of the bytes after those that all names of the group have in
/// common, and returns where they begin.
fn set_keys(group: &mut [Keyed], names: &[&[u8]], depth: usize) -> usize {
    let Some(first) = group.first() else { return depth };
    let first = name(names, first.index);
    // What a few have in common all have, as a rule: then one pass does.
    let few = group.iter().step_by(group.len().div_ceil(FEW).max(1));
    let mut at = few.map(|one| differ_at(first, name(names, one.index), depth)).min().unwrap_or(depth);
    loop {
        let shared = first.get(depth..at);
        let mut until = at;
        for one in group.iter_mut() {
            let name = name(names, one.index);
            if name.get(depth..at) != shared {
                until = until.min(differ_at(first, name, depth));
            }
            *one = Keyed::new(name, at, one.index);
        }
        if until == at {
            return at;
        }
        at = until;
    }
}

/// Where two names that are equal before `from` first differ, or one ends.
fn differ_at(one: &[u8], other: &[u8], from: usize) -> usize {
    let (mut at, end) = (from, one.len().min(other.len()));
    while at < end {
        let equal = (word(one, at) ^ word(other, at)).leading_zeros() / 8;
        at = at.saturating_add(equal as usize);
        if equal < 8 {
            break;
        }
    }
    at.min(end)
}

fn given_twice(equal: &[Keyed], names: &[&[u8]]) -> Error {
    let numbers = || equal.iter().map(|one| one.index);
    let first = numbers().min().unwrap_or(0);
    let second = numbers().filter(|number| *number != first).min().unwrap_or(0);
    let text = format!("the name is given twice, as number {first} and as number {second}");
    Error::tensor(ErrorKind::DuplicateKey, name(names, first), text)
}

/// The reference's order: by dtype, the widest first, then by name. Numbers of
/// dtypes ascend just as the reference's own do.
/// `used` has the bits of all dtypes that occur.
pub(super) fn reference(by_name: &[u32], tensors: &[NewTensor<'_>], used: u32) -> Result<Vec<u32>> {
    let mut order = memory::vec_with_capacity(by_name.len(), WHAT)?;
    if used.is_power_of_two() {
        order.extend_from_slice(by_name);
        return Ok(order);
    }
    let mut dtypes = memory::vec_with_capacity(by_name.len(), WHAT)?;
    dtypes.extend(by_name.iter().map(|index| tensor(tensors, *index).map_or(0, |tensor| bit(tensor.dtype))));
    for dtype in Dtype::ALL.iter().rev().map(|dtype| bit(*dtype)).filter(|dtype| used & dtype != 0) {
        order.extend(by_name.iter().zip(&dtypes).filter(|(_, of)| **of == dtype).map(|(index, _)| *index));
    }
    Ok(order)
}

/// A dtype among those in use. Numbers of dtypes that can be written are below 32.
pub(super) fn bit(dtype: Dtype) -> u32 {
    1_u32.checked_shl(dtype as u32).unwrap_or(0)
}

/// The tensors in this order.
pub(super) fn ordered<'a>(tensors: &'a [NewTensor<'a>], order: &[u32]) -> Result<Cow<'a, [NewTensor<'a>]>> {
    if order.iter().zip(0..).all(|(index, place)| *index == place) {
        return Ok(Cow::Borrowed(tensors));
    }
    let copy = |_, order: &[u32], ordered: &mut Filler<'_, NewTensor<'a>>| {
        let found = order.iter().filter_map(|index| tensor(tensors, *index));
        found.for_each(|tensor| ordered.push(*tensor).unwrap_or(()));
        Ok(())
    };
    parallel::halves(order, WHAT, &copy).map(Cow::Owned)
}

fn tensor<'a, 'b>(tensors: &'b [NewTensor<'a>], index: u32) -> Option<&'b NewTensor<'a>> {
    usize::try_from(index).ok().and_then(|index| tensors.get(index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn order_of(names: &[String]) -> Result<Vec<u32>> {
        by_name(&names.iter().map(String::as_bytes).collect::<Vec<_>>())
    }

    proptest! {
        #[test]
        fn names_are_in_byte_order(mut names in prop::collection::vec("(a|ab|model\\.layers\\.[0-9]{0,2}|\\x00|é|.{0,3}){0,8}", 0..60)) {
            let mut sorted = names.clone();
            sorted.sort();
            let twice = sorted.windows(2).any(|pair| pair[0] == pair[1]);
            let found = order_of(&names);
            prop_assert_eq!(found.is_err(), twice);
            names.sort();
            names.dedup();
            names.reverse();
            let found: Vec<_> = order_of(&names).unwrap().iter().map(|i| names[*i as usize].clone()).collect();
            names.reverse();
            prop_assert_eq!(found, names);
        }
    }

    #[test]
    fn long_names_do_not_make_it_deep() {
        let long = "x".repeat(3_000_000);
        let names: Vec<_> = (0..5).map(|i| format!("{long}{i}")).chain([long.clone()]).collect();
        assert_eq!(order_of(&names).unwrap(), [5, 0, 1, 2, 3, 4]);
        let again = [names[0].clone(), names[0].clone()];
        assert_eq!(order_of(&again).unwrap_err().kind(), ErrorKind::DuplicateKey);
    }
}
