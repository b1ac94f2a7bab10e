// SPDX-License-Identifier: Apache-2.0
//! What a rank plan is about: the tensors of a checkpoint, or its groups and the
//! tensors of none.

use std::ptr;

use super::model_arguments::st_groups;
use crate::base::memory;
use crate::error::{Error, ErrorKind, Result};
use crate::group::st_group;
use crate::model::rank_plan::{ListedTensor, TensorList};
use crate::record::st_tensor;
use crate::Checkpoint;

/// What a plan is about.
pub(super) enum Subject {
    /// The tensors of the checkpoint.
    Tensors,
    /// Logical tensors: groups, which the caller keeps, and tensors of no group that can be decoded.
    Logical(*const st_groups, Vec<LogicalTensor>),
}

/// One of them: a group or a tensor, by its number.
pub(super) enum LogicalTensor {
    Group(usize),
    Tensor(usize),
}

// SAFETY: groups don't change, and the caller keeps them as long as the plan.
unsafe impl Send for Subject {}
// SAFETY: as above.
unsafe impl Sync for Subject {}

/// What a part is of: one of the two is not NULL.
pub(super) type Of = (*const st_tensor, *const st_group);

/// A subject with its checkpoint.
pub(super) struct SubjectTensors<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) subject: &'a Subject,
}

impl SubjectTensors<'_> {
    fn item(&self, number: usize) -> Option<(&LogicalTensor, &st_groups)> {
        match self.subject {
            Subject::Tensors => None,
            // SAFETY: the caller keeps the groups as long as the plan.
            Subject::Logical(groups, items) => Some((items.get(number)?, unsafe { groups.as_ref() }?)),
        }
    }

    /// What the part of this number in the list is of.
    pub(super) fn of(&self, number: usize) -> Option<Of> {
        let tensor = |number: usize| Some((ptr::from_ref(self.checkpoint.tensors().get(number)?), ptr::null()));
        match self.item(number) {
            None => tensor(number),
            Some((LogicalTensor::Tensor(number), _)) => tensor(*number),
            Some((LogicalTensor::Group(number), groups)) => {
                Some((ptr::null(), ptr::from_ref(groups.listing.records().get(*number)?)))
            }
        }
    }
}

impl TensorList for SubjectTensors<'_> {
    fn count(&self) -> usize {
        match self.subject {
            Subject::Tensors => self.checkpoint.tensors().len(),
            Subject::Logical(_, items) => items.len(),
        }
    }

    fn tensor(&self, number: usize) -> ListedTensor<'_> {
        let nothing = ListedTensor { name: &[], bits: 0, shape: &[], size: 0, step: &[] };
        let tensor = |number: usize| {
            self.checkpoint.tensors().get(number).map_or(nothing, |tensor| ListedTensor {
                name: tensor.name(),
                bits: tensor.dtype().bits(),
                shape: tensor.shape(),
                size: tensor.size(),
                step: &[],
            })
        };
        match self.item(number) {
            None => tensor(number),
            Some((LogicalTensor::Tensor(number), _)) => tensor(*number),
            Some((LogicalTensor::Group(number), groups)) => {
                groups.listing.groups().list().get(*number).map_or(nothing, |group| {
                    let elements =
                        group.shape().iter().fold(1_u64, |all, size| all.saturating_mul(size.unsigned_abs()));
                    let size = elements.saturating_mul(u64::from(group.bits())).div_ceil(8);
                    ListedTensor {
                        name: group.name(),
                        bits: group.bits(),
                        shape: group.shape(),
                        size,
                        step: group.step(),
                    }
                })
            }
        }
    }
}

impl Subject {
    /// # Safety
    /// `groups` is null or lives as long as the result.
    pub(super) unsafe fn new(checkpoint: &Checkpoint, groups: *const st_groups) -> Result<Self> {
        // SAFETY: the caller's promise.
        let Some(found) = (unsafe { groups.as_ref() }) else { return Ok(Self::Tensors) };
        if !ptr::eq(&raw const found.checkpoint.0, checkpoint) {
            return Err(Error::new(ErrorKind::InvalidArgument, "the groups are of another checkpoint"));
        }
        let list = found.listing.groups().list();
        let mut is_inside = memory::vec_with_capacity(checkpoint.tensors().len(), "members of groups")?;
        is_inside.resize(checkpoint.tensors().len(), false);
        let mut items = memory::vec_with_capacity(list.len().saturating_add(is_inside.len()), "logical tensors")?;
        for (number, group) in list.iter().enumerate().filter(|(_, group)| group.usable().is_ok()) {
            items.push(LogicalTensor::Group(number));
            for member in group.members() {
                if let Some(is_inside) = is_inside.get_mut(member.tensor) {
                    *is_inside = true;
                }
            }
        }
        items.extend(
            is_inside.iter().enumerate().filter(|(_, is_inside)| !**is_inside).map(|(at, _)| LogicalTensor::Tensor(at)),
        );
        Ok(Self::Logical(groups, items))
    }
}
