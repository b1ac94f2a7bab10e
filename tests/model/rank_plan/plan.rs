// SPDX-License-Identifier: Apache-2.0
//! The functions of rank plans, called as C calls them.

use std::ffi::{CStr, CString};
use std::path::Path;
use std::{ptr, slice};

use safetensors::ffi::{
    st_axis, st_checkpoint, st_free, st_groups, st_load, st_load_item, st_open, st_open_io, st_rank_plan,
    st_rank_plan_builtin, st_rank_plan_free, st_rank_plan_open, st_rank_plan_options, st_rank_plan_parts, st_symbol,
    st_text,
};
use safetensors::part::{st_interval, st_part};

use crate::support::callbacks::Reader;
use crate::support::handle::{ErrorSlot, Failure};

/// What a plan is made with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given {
    pub(crate) plans: Vec<String>,
    pub(crate) config: Option<String>,
    pub(crate) symbols: Vec<(String, i64)>,
    pub(crate) strict: bool,
}

impl Given {
    pub(crate) fn plan(text: &str) -> Self {
        Self { plans: vec![text.to_owned()], config: Some("{}".to_owned()), ..Self::default() }
    }
}

/// A checkpoint that is open.
pub(crate) struct Opened(pub(crate) *mut st_checkpoint);

impl Opened {
    pub(crate) fn new(path: &Path) -> Self {
        let mut error = ErrorSlot::default();
        let path = CString::new(path.to_str().unwrap()).unwrap();
        let opened = unsafe { st_open(path.as_ptr(), error.as_mut()) };
        assert!(!opened.is_null(), "{:?}", error.failure());
        Self(opened)
    }

    /// A file whose reads are counted.
    pub(crate) fn reader(reader: &Reader) -> Self {
        let mut error = ErrorSlot::default();
        let opened = unsafe { st_open_io(&raw const *Box::leak(Box::new(reader.io())), ptr::null(), error.as_mut()) };
        assert!(!opened.is_null(), "{:?}", error.failure());
        Self(opened)
    }
}

/// Loads the parts of a rank.
pub(crate) fn load(checkpoint: &Opened, parts: &[st_part]) -> Result<Vec<Vec<u8>>, Failure> {
    load_records(checkpoint, &parts.iter().collect::<Vec<_>>())
}

/// Loads parts together. What is not written stays 0xAA.
pub(crate) fn load_records(checkpoint: &Opened, parts: &[&st_part]) -> Result<Vec<Vec<u8>>, Failure> {
    let mut results: Vec<Vec<u8>> = parts.iter().map(|part| vec![0xAA; part.size as usize]).collect();
    let item = |(part, result): (&&st_part, &mut Vec<u8>)| {
        // SAFETY: zero is a value of every field.
        let zero: st_load_item = unsafe { std::mem::zeroed() };
        st_load_item { part: *part, dst: result.as_mut_ptr().cast(), dst_size: result.len(), ..zero }
    };
    let items: Vec<_> = parts.iter().zip(&mut results).map(item).collect();
    let mut error = ErrorSlot::default();
    let status = unsafe { st_load(checkpoint.0, items.as_ptr(), items.len(), ptr::null(), error.as_mut()) };
    match status {
        0 => Ok(results),
        _ => Err(error.failure()),
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        unsafe { st_free(self.0) };
    }
}

/// A plan, which has to work once its checkpoint is freed by whoever opened it.
pub(crate) struct Plan(*mut st_rank_plan);

/// A part, with all that its record points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) shape: Vec<i64>,
    pub(crate) pieces: Vec<Option<Vec<st_interval>>>,
    pub(crate) size: u64,
    pub(crate) read_size: u64,
}

impl Plan {
    pub(crate) fn new(checkpoint: &Opened, given: &Given) -> Result<Self, Failure> {
        Self::over(checkpoint, given, ptr::null())
    }

    /// A plan for groups, which stay until it is dropped.
    pub(crate) fn over(checkpoint: &Opened, given: &Given, groups: *const st_groups) -> Result<Self, Failure> {
        let text = |text: &String| st_text { data: text.as_ptr().cast(), size: text.len() };
        let plans: Vec<_> = given.plans.iter().map(text).collect();
        let names: Vec<_> = given.symbols.iter().map(|(name, _)| CString::new(name.as_str()).unwrap()).collect();
        let symbol = |(name, (_, value)): (&CString, &(String, i64))| st_symbol {
            name: name.as_ptr(),
            value: *value,
            reserved: [0; 2],
        };
        let symbols: Vec<_> = names.iter().zip(&given.symbols).map(symbol).collect();
        let options = st_rank_plan_options {
            struct_size: size_of::<st_rank_plan_options>(),
            plans: plans.as_ptr(),
            plan_count: plans.len(),
            config: given.config.as_ref().map_or(st_text { data: ptr::null(), size: 0 }, text),
            symbols: symbols.as_ptr(),
            symbol_count: symbols.len(),
            groups,
            strict: i32::from(given.strict),
        };
        let mut error = ErrorSlot::default();
        let plan = unsafe { st_rank_plan_open(checkpoint.0, &raw const options, error.as_mut()) };
        match plan.is_null() {
            true => Err(error.failure()),
            false => Ok(Self(plan)),
        }
    }

    /// The records of a rank.
    pub(crate) fn records(&self, axes: &[(&str, i64, i64)]) -> Result<&[st_part], Failure> {
        let names: Vec<_> = axes.iter().map(|(name, ..)| CString::new(*name).unwrap()).collect();
        let axis = |(name, (_, rank, size)): (&CString, &(&str, i64, i64))| st_axis {
            name: name.as_ptr(),
            rank: *rank,
            size: *size,
            reserved: [0; 2],
        };
        let axes: Vec<_> = names.iter().zip(axes).map(axis).collect();
        let mut error = ErrorSlot::default();
        let mut count = usize::MAX;
        let parts = unsafe { st_rank_plan_parts(self.0, axes.as_ptr(), axes.len(), &raw mut count, error.as_mut()) };
        if parts.is_null() {
            assert_eq!(count, 0);
            return Err(error.failure());
        }
        assert!(error.untouched());
        Ok(unsafe { slice::from_raw_parts(parts, count) })
    }

    pub(crate) fn parts(&self, axes: &[(&str, i64, i64)]) -> Result<Vec<Part>, Failure> {
        Ok(self.records(axes)?.iter().map(Part::new).collect())
    }
}

impl Drop for Plan {
    fn drop(&mut self) {
        unsafe { st_rank_plan_free(self.0) };
    }
}

impl Part {
    pub(crate) fn new(part: &st_part) -> Self {
        assert!(part.group.is_null() && part.reserved == [0; 4]);
        unsafe {
            let shape = slice::from_raw_parts(part.shape, part.rank);
            let intervals = slice::from_raw_parts(part.intervals, part.rank);
            let counts = slice::from_raw_parts(part.interval_counts, part.rank);
            let pieces = intervals.iter().zip(counts).map(|(first, count)| {
                assert!(!first.is_null() || *count == 0);
                (!first.is_null()).then(|| slice::from_raw_parts(*first, *count).to_vec())
            });
            Self {
                name: String::from_utf8((*part.tensor).name().to_vec()).unwrap(),
                shape: shape.to_vec(),
                pieces: pieces.collect(),
                size: part.size,
                read_size: part.read_size,
            }
        }
    }

    /// The part's bytes out of its tensor's, element by element. Elements are
    /// of whole bytes, or cut at whole ones in one dimension.
    pub(crate) fn of(&self, bytes: &[u8], stored: &[u64], bits: u64) -> Vec<u8> {
        let mut elements: Vec<Option<u64>> = vec![Some(0)];
        for ((pieces, stored), local) in self.pieces.iter().zip(stored).zip(&self.shape) {
            let whole = [st_interval { start: 0, stop: *stored as i64, zeros: 0, skip: 0 }];
            let pieces = pieces.as_deref().unwrap_or(&whole);
            let indices = pieces
                .iter()
                .flat_map(|piece| (piece.start..piece.stop).map(Some).chain((0..piece.zeros).map(|_| None)));
            let indices: Vec<Option<i64>> = indices.collect();
            assert_eq!(indices.len() as i64, *local, "{self:?}");
            elements = elements
                .iter()
                .flat_map(|at| {
                    indices.iter().map(move |index| Some((*at)? * stored + u64::try_from((*index)?).unwrap()))
                })
                .collect();
        }
        let bit = |at: u64| bytes[(at / 8) as usize] >> (at % 8) & 1;
        let bits_of = |element: Option<u64>| (0..bits).map(move |i| element.map_or(0, |at| bit(at * bits + i)));
        if bits % 8 == 0 {
            let size = (bits / 8) as usize;
            return elements
                .iter()
                .flat_map(|at| match at {
                    None => vec![0; size],
                    Some(at) => bytes[*at as usize * size..][..size].to_vec(),
                })
                .collect();
        }
        let all: Vec<u8> = elements.iter().flat_map(|at| bits_of(*at)).collect();
        all.chunks(8).map(|byte| byte.iter().rev().fold(0, |all, bit| all << 1 | bit)).collect()
    }
}

/// The text of a plan that comes with the library.
pub(crate) fn builtin(name: &str) -> Option<String> {
    let name = CString::new(name).unwrap();
    let mut length = 0;
    let text = unsafe { st_rank_plan_builtin(name.as_ptr(), &raw mut length) };
    (!text.is_null()).then(|| {
        let text = unsafe { CStr::from_ptr(text) }.to_str().unwrap();
        assert_eq!(text.len(), length);
        text.to_owned()
    })
}
