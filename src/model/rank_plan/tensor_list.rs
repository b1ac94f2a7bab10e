// SPDX-License-Identifier: Apache-2.0
//! What a checkpoint is made of, as plans see it.
#![forbid(unsafe_code)]

/// What a checkpoint is made of, as a plan sees it.
pub(crate) trait TensorList {
    /// How many tensors.
    fn count(&self) -> usize;
    /// The one of this number, which is below the count.
    fn tensor(&self, number: usize) -> ListedTensor<'_>;
}

/// A tensor of a listing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListedTensor<'a> {
    /// Its name.
    pub(crate) name: &'a [u8],
    /// Bits of an element; 0 where they are not known.
    pub(crate) bits: u32,
    /// Its sizes.
    pub(crate) shape: &'a [i64],
    /// Its bytes.
    pub(crate) size: u64,
    /// What the places of cuts must be multiples of, one for each dimension; none: 1.
    pub(crate) step: &'a [i64],
}
