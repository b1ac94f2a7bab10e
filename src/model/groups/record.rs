// SPDX-License-Identifier: Apache-2.0
//! Groups as the records that callers see, and back.

use std::ffi::{c_char, CStr};
use std::sync::{Mutex, PoisonError};

use super::boxes::MemberPart;
use super::group::{Group, Status};
use super::recipe::Recipe;
use super::search::Groups;
use super::settings::Table;
use crate::base::memory;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::group::{st_group, st_member, st_recipe};
use crate::part::{st_interval, st_part};
use crate::record::{Range, Tensor};

/// What a record's reserved words lead to.
struct Link {
    checkpoint: *const Checkpoint,
    group: *const Group,
}

/// Tells the library's own records from others; of no meaning in itself.
const SEAL: u64 = 0x7374_5f67_726f_7570;

/// The records of a checkpoint's groups, with all that they point to.
pub(crate) struct Listing {
    groups: Groups,
    records: Vec<st_group>,
    plain: Vec<*const Tensor>,
    parts: Mutex<Parts>,
    // What records point into, in vectors that have been filled and stay.
    links: Vec<Link>,
    _members: Vec<st_member>,
    _texts: Vec<u8>,
}

// SAFETY: what the pointers lead to is not written while this lives, nor are the vectors.
unsafe impl Send for Listing {}
// SAFETY: as above; parts have a lock.
unsafe impl Sync for Listing {}

/// The parts that have been asked for, by the group's number and the ranges.
#[derive(Default)]
struct Parts {
    keys: Table,
    parts: Vec<Vec<PartTexts>>,
}

/// What an st_part points to.
struct PartTexts {
    tensor: *const Tensor,
    shape: Vec<i64>,
    intervals: Vec<st_interval>,
    pointers: Vec<*const st_interval>,
    counts: Vec<usize>,
    size: u64,
}

impl Listing {
    /// `checkpoint` must stay where it is for as long as the listing lives.
    pub(crate) fn new(checkpoint: &Checkpoint, groups: Groups) -> Result<Self> {
        let list = groups.list();
        let count = list.len();
        let text_bytes = |group: &Group| group.name().len().saturating_add(group.problem().len()).saturating_add(2);
        let mut texts: Vec<u8> = memory::vec_with_capacity(list.iter().map(text_bytes).sum(), "groups")?;
        let mut members = memory::vec_with_capacity(list.iter().map(|group| group.members().len()).sum(), "groups")?;
        let mut links: Vec<Link> = memory::vec_with_capacity(count, "groups")?;
        let mut records: Vec<st_group> = memory::vec_with_capacity(count, "groups")?;
        for group in list {
            let mut text = |bytes: &[u8]| {
                let start = texts.len();
                texts.extend_from_slice(bytes);
                texts.push(0);
                texts.as_ptr().wrapping_add(start).cast::<c_char>()
            };
            let (name, problem) = (text(group.name()), text(group.problem().as_bytes()));
            let first = members.len();
            let own = group.members().iter().filter_map(|member| {
                let tensor = std::ptr::from_ref(checkpoint.tensors().get(member.tensor)?);
                Some(st_member { role: member.role.c_name().as_ptr(), tensor, reserved: [0; 2] })
            });
            members.extend(own);
            let member_count = members.len().saturating_sub(first);
            links.push(Link { checkpoint, group });
            let link = links.as_ptr().wrapping_add(links.len().saturating_sub(1)).addr() as u64;
            records.push(st_group {
                name,
                name_len: group.name().len(),
                kind: group.c_kind().as_ptr(),
                layout: group.c_layout().as_ptr(),
                status: match group.status() {
                    Status::Ok => 0,
                    Status::Broken(_) => ErrorKind::Group as i32,
                    Status::Ambiguous | Status::Opaque => ErrorKind::Unsupported as i32,
                },
                bits: group.bits(),
                flags: group.flags().bits(),
                reserved0: 0,
                rank: group.shape().len(),
                shape: group.shape().as_ptr(),
                block: group.block().as_ptr(),
                step: group.step().as_ptr(),
                members: members.as_ptr().wrapping_add(first),
                member_count,
                problem,
                recipe: group.recipe().map_or_else(st_recipe::default, numbers),
                reserved: [link, link ^ SEAL, 0, 0],
            });
        }
        let mut plain = memory::vec_with_capacity(groups.plain().len(), "plain tensors")?;
        plain.extend(
            groups.plain().iter().filter_map(|number| checkpoint.tensors().get(*number)).map(std::ptr::from_ref),
        );
        let parts = Mutex::default();
        Ok(Self { groups, records, plain, parts, links, _members: members, _texts: texts })
    }

    #[allow(dead_code, reason = "for rank plans, which come next")]
    pub(crate) fn groups(&self) -> &Groups {
        &self.groups
    }

    pub(crate) fn records(&self) -> &[st_group] {
        &self.records
    }

    pub(crate) fn plain(&self) -> &[*const Tensor] {
        &self.plain
    }

    pub(crate) fn find(&self, name: &[u8]) -> Option<&st_group> {
        let found = self.groups.list().binary_search_by(|group| group.name().cmp(name)).ok()?;
        self.records.get(found)
    }

    /// The number of the group that a record, or a copy of one, is of.
    pub(crate) fn number(&self, record: &st_group) -> Result<usize> {
        let link = record.reserved.first().and_then(|link| usize::try_from(*link).ok());
        let distance = link.and_then(|link| link.checked_sub(self.links.as_ptr().addr()));
        let number = distance.and_then(|distance| distance.checked_div(size_of::<Link>()));
        let own = number.and_then(|number| self.records.get(number));
        own.filter(|own| own.reserved == record.reserved).and(number).ok_or_else(stranger)
    }

    /// The parts of members that a slice of a group needs; what they point to stays.
    pub(crate) fn parts(&self, checkpoint: &Checkpoint, number: usize, ranges: &[Range]) -> Result<Vec<st_part>> {
        let group = self.groups.list().get(number).ok_or_else(stranger)?;
        group.usable()?;
        let logical = group.aligned(ranges)?;
        let mut key = number.to_ne_bytes().to_vec();
        for range in &logical {
            key.extend([range.start, range.end].iter().flat_map(|bound| bound.to_ne_bytes()));
        }
        let mut all = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let Parts { keys, parts } = &mut *all;
        let found = *keys.entry(key).or_insert(parts.len());
        if found == parts.len() {
            let boxes = group.boxes(checkpoint, &logical);
            parts.push(boxes.iter().filter_map(|found| PartTexts::new(checkpoint, found)).collect());
        }
        Ok(parts.get(found).map(|parts| parts.iter().map(PartTexts::record).collect()).unwrap_or_default())
    }
}

impl PartTexts {
    fn new(checkpoint: &Checkpoint, found: &MemberPart) -> Option<Self> {
        let tensor = checkpoint.tensors().get(found.tensor)?;
        let mut this = Self {
            tensor,
            shape: Vec::new(),
            intervals: Vec::new(),
            pointers: Vec::new(),
            counts: vec![1; found.ranges.len()],
            size: u64::from(tensor.dtype().bits()) / 8,
        };
        for range in &found.ranges {
            let (start, stop) = (i64::try_from(range.start).ok()?, i64::try_from(range.end).ok()?);
            this.shape.push(stop.checked_sub(start)?);
            this.intervals.push(st_interval { start, stop, zeros: 0, skip: 0 });
            this.size = this.size.checked_mul(range.end.checked_sub(range.start)?)?;
        }
        this.pointers = this.intervals.iter().map(std::ptr::from_ref).collect();
        Some(this)
    }

    fn record(&self) -> st_part {
        st_part {
            tensor: self.tensor,
            group: std::ptr::null(),
            rank: self.shape.len(),
            shape: self.shape.as_ptr(),
            intervals: self.pointers.as_ptr(),
            interval_counts: self.counts.as_ptr(),
            size: self.size,
            read_size: self.size,
            reserved: [0; 4],
        }
    }
}

/// The group that a record, or a copy of one, is of, and its checkpoint.
///
/// # Errors
/// `InvalidArgument` for a record that is not the library's.
///
/// # Safety
/// The record's st_groups, if it is of one, is alive for as long as the result is used.
pub(crate) unsafe fn linked<'a>(record: &st_group) -> Result<(&'a Checkpoint, &'a Group)> {
    let [link, seal, _, _] = record.reserved;
    if link == 0 || link ^ SEAL != seal {
        return Err(stranger());
    }
    let link = usize::try_from(link).map_err(|_| stranger())? as *const Link;
    // SAFETY: sealed by a listing, which the caller says is alive; so is what its links lead to.
    unsafe { Ok((&*(*link).checkpoint, &*(*link).group)) }
}

fn stranger() -> Error {
    Error::new(ErrorKind::InvalidArgument, "the group's record is not one of st_groups_list's, nor a copy of one")
}

fn numbers(recipe: Recipe) -> st_recipe {
    st_recipe {
        code: recipe.code as u32,
        packing: recipe.packing as u32,
        scale_type: recipe.scale_type as u32,
        scale_layout: recipe.scale_layout as u32,
        zero: recipe.zero as u32,
        global: recipe.global as u32,
        order: recipe.order as u32,
        reserved0: 0,
    }
}

impl Group {
    fn c_kind(&self) -> &'static CStr {
        self.kind
    }

    fn c_layout(&self) -> &'static CStr {
        self.layout.map_or(c"", |layout| layout.name)
    }
}
