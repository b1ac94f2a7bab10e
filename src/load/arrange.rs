// SPDX-License-Identifier: Apache-2.0
//! Sizes and places of results, found before there is memory for them.
#![forbid(unsafe_code)]

use super::item::Item;
use super::task::{Goes, Task};
use crate::base::memory;
use crate::error::{Error, Result};

/// Bytes of an item's result, whatever its place.
///
/// # Errors
/// What is wrong with the item.
pub fn size_of(item: &Item<'_>) -> Result<u64> {
    let item = Item { strides: None, ..*item };
    Ok(Task::of(item.of.tensor(), &item, Goes::Nowhere)?.result)
}

/// What the address of a result is a multiple of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alignment {
    /// A power of two.
    To(u64),
    /// The same as the file's bytes, in units of 64, which the kernel copies fastest.
    AsInFile,
}

/// Where results lie, from `base` on.
pub struct Arrangement {
    /// Where each begins, and its bytes.
    pub places: Vec<(u64, u64)>,
    /// The end of the last.
    pub total: u64,
}

/// Places results one after the other, from the address `base` on.
///
/// # Errors
/// What is wrong with an item.
pub fn arrange(items: &[Item<'_>], base: u64, alignment: Alignment) -> Result<Arrangement> {
    let mut places = memory::vec_with_capacity(items.len(), "the places of results")?;
    let mut total = 0_u64;
    for (number, item) in items.iter().enumerate() {
        let named = |error: Error| error.after(&format!("item {number}: "));
        let task = Task::of(item.of.tensor(), item, Goes::Nowhere).map_err(named)?;
        let address = base.checked_add(total);
        let start = address.and_then(|address| match alignment {
            Alignment::To(alignment) => address.checked_next_multiple_of(alignment),
            Alignment::AsInFile => {
                let wanted = task.start % 64;
                let now = address % 64;
                address.checked_add(wanted.wrapping_sub(now) % 64)
            }
        });
        let place = start.and_then(|start| start.checked_sub(base));
        let end = place.and_then(|place| place.checked_add(task.needed()));
        let (Some(place), Some(end)) = (place, end) else {
            return Err(Error::beyond_memory(&format_args!("item {number}: its place")));
        };
        places.push((place, task.needed()));
        total = end;
    }
    Ok(Arrangement { places, total })
}
