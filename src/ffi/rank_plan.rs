// SPDX-License-Identifier: Apache-2.0
//! What each rank of a parallel job holds.

use std::ffi::{c_char, CStr};
use std::ptr;
use std::sync::{Arc, Mutex};

use super::arguments::{array_at, required, required_text, st_checkpoint, utf8};
use super::boundary::{guard, read_options, CallerStruct};
use super::model_arguments::{st_groups, st_text, text_bytes};
use super::part_records::{PartCache, PartRecords};
use super::plan_subject::{Subject, SubjectTensors};
use super::status::st_error;
use crate::base::lock::lock;
use crate::base::{memory, sort};
use crate::error::{quoted, Error, ErrorKind, Result};
use crate::model::config::{self, unreadable, MAX_CONFIG};
use crate::model::json::Json;
use crate::model::rank_plan::{builtin, families, Axis, Inputs, RankPlan, Strictness};
use crate::part::st_part;

/// An axis of a parallel job and a place on it. A record that you fill.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct st_axis {
    /// NUL-terminated: "tp", "pp", "ep", or any other name that the plan uses.
    pub name: *const c_char,
    /// Which rank on this axis, from 0.
    pub rank: i64,
    /// How many ranks the axis has, 1 or more.
    pub size: i64,
    /// Zero.
    pub reserved: [u64; 2],
}

/// A number that a plan may use by its name. A record that you fill.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct st_symbol {
    /// NUL-terminated.
    pub name: *const c_char,
    /// 0 or more.
    pub value: i64,
    /// Zero.
    pub reserved: [u64; 2],
}

/// How a checkpoint is divided among ranks. Begin with ST_RANK_PLAN_OPTIONS_INIT;
/// zero in any field is the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct st_rank_plan_options {
    /// sizeof(st_rank_plan_options), as set by ST_RANK_PLAN_OPTIONS_INIT.
    pub struct_size: usize,
    /// Plans, in order: where several have a rule for a tensor, the first one
    /// counts. Borrowed for the call.
    pub plans: *const st_text,
    /// How many plans; 0: the built-in one for the model_type of config.
    pub plan_count: usize,
    /// The text of the model's config.json, whose numbers plans use. Borrowed for
    /// the call. data NULL: config.json beside the checkpoint, if there is one.
    pub config: st_text,
    /// Numbers that take precedence over those of config. Borrowed for the call.
    pub symbols: *const st_symbol,
    /// How many symbols.
    pub symbol_count: usize,
    /// The plan is then about logical tensors: groups, and the tensors of no
    /// group that can be decoded. Keep the groups until st_rank_plan_free. NULL:
    /// it is about the tensors in the files.
    pub groups: *const st_groups,
    /// Not 0: on every axis that a rule is on, each tensor must be matched by a rule.
    pub strict: i32,
}

// SAFETY: it begins with struct_size, and consists of numbers and pointers.
unsafe impl CallerStruct for st_rank_plan_options {
    const NAME: &'static str = "st_rank_plan_options";
}

/// One or several plans, put together with the checkpoint that they are for.
/// Opaque; made by st_rank_plan_open.
pub struct st_rank_plan {
    plan: RankPlan,
    checkpoint: Arc<st_checkpoint>,
    subject: Subject,
    cache: Mutex<PartCache>,
}

/// Puts plans and a checkpoint together.
///
/// A plan is JSON that says, by patterns of names, how tensors are cut along
/// axes (tensor parallel), and which of them are on which rank (layers,
/// experts); docs/ranks.md has the language. No data of tensors is read.
///
/// checkpoint: stays open until st_rank_plan_free, whoever calls st_free.
/// options: borrowed for the call; NULL: all defaults.
///
/// Returns a plan that the caller owns: release it with st_rank_plan_free; or
/// NULL: ST_ERROR_PLAN (PLAN_SYNTAX), ST_ERROR_CONFIG, ST_ERROR_NOT_FOUND (no plan
/// is given, and none is built in for the model), ST_ERROR_INVALID_ARGUMENT,
/// ST_ERROR_UNSUPPORTED, ST_ERROR_IO, ST_ERROR_OUT_OF_MEMORY. Since 0.2.
#[no_mangle]
pub unsafe extern "C" fn st_rank_plan_open(
    checkpoint: *const st_checkpoint,
    options: *const st_rank_plan_options,
    error: *mut st_error,
) -> *mut st_rank_plan {
    let body = || {
        // SAFETY: arguments are as the header's rules say.
        unsafe {
            required(checkpoint, "checkpoint")?;
            Arc::increment_strong_count(checkpoint);
            let checkpoint = Arc::from_raw(checkpoint);
            let options = read_options(options)?;
            let groups = options.map_or(ptr::null(), |options| options.groups);
            let subject = Subject::new(&checkpoint.0, groups)?;
            let plan = open(&SubjectTensors { checkpoint: &checkpoint.0, subject: &subject }, options.as_ref())?;
            Ok(Box::into_raw(Box::new(st_rank_plan { plan, checkpoint, subject, cache: Mutex::default() })))
        }
    };
    // SAFETY: arguments are as the header's rules say.
    unsafe { guard(error, |_| ptr::null_mut(), body) }
}

/// The parts of the checkpoint's tensors that a rank holds, in the byte order of
/// the tensors' names. Does no I/O. What fails for one rank fails for all.
///
/// axes: one for each axis of the job, each name once; an axis that is not
/// given has one rank. Borrowed for the call; may be NULL where axis_count is 0.
/// count: receives how many parts; may be NULL.
///
/// May be called from several threads at once, and for any number of ranks.
///
/// Returns an array owned by the plan, valid until st_rank_plan_free; a rank
/// without parts is not NULL, with count 0. NULL (and count 0): ST_ERROR_PLAN,
/// whose message begins with the rule's name, as "INDIVISIBLE: ",
/// ST_ERROR_INVALID_ARGUMENT, ST_ERROR_UNSUPPORTED, ST_ERROR_OUT_OF_MEMORY. Since 0.2.
#[no_mangle]
pub unsafe extern "C" fn st_rank_plan_parts(
    plan: *mut st_rank_plan,
    axes: *const st_axis,
    axis_count: usize,
    count: *mut usize,
    error: *mut st_error,
) -> *const st_part {
    let set_count = |found: usize| {
        if !count.is_null() {
            // SAFETY: not null, so it is writable by the header's rules.
            unsafe { count.write(found) };
        }
    };
    set_count(0);
    let body = || {
        // SAFETY: arguments are as the header's rules say.
        let (plan, axes) = unsafe {
            let axes = array_at(axes, axis_count, "axes")?;
            let names = axes.iter().map(|axis| utf8(required_text(axis.name, "axes.name")?, || "axes.name".to_owned()));
            (required(plan.cast_const(), "plan")?, axes.iter().zip(names.collect::<Result<Vec<_>>>()?))
        };
        let axes: Vec<_> = axes.map(|(axis, name)| Axis { name, rank: axis.rank, size: axis.size }).collect();
        let (parts, found) = plan.parts(&axes)?;
        set_count(found);
        Ok(parts)
    };
    // SAFETY: arguments are as the header's rules say.
    unsafe { guard(error, |_| ptr::null(), body) }
}

/// Releases a plan and all of its parts. NULL is fine. Since 0.2.
#[no_mangle]
pub unsafe extern "C" fn st_rank_plan_free(plan: *mut st_rank_plan) {
    if !plan.is_null() {
        // SAFETY: made by st_rank_plan_open, and not released before.
        drop(unsafe { Box::from_raw(plan) });
    }
}

/// The text of a built-in plan.
///
/// model_type: NUL-terminated, as in config.json; or "awq", "fp8-block",
/// "fp8-channel", "gptq" for what describes such tensors, or "vocab-64" for a padded
/// vocabulary, which are given before a family's plan. Borrowed for the call.
/// length: receives the text's bytes; may be NULL.
///
/// Returns static NUL-terminated JSON; NULL (and length 0) where no plan is
/// built in for this type of model. Since 0.2.
#[no_mangle]
pub unsafe extern "C" fn st_rank_plan_builtin(model_type: *const c_char, length: *mut usize) -> *const c_char {
    // SAFETY: arguments are as the header's rules say.
    let text = unsafe { required_text(model_type, "model_type") }.ok().and_then(builtin);
    if !length.is_null() {
        // SAFETY: not null, so it is writable by the header's rules.
        unsafe { length.write(text.map_or(0, |text| text.to_bytes().len())) };
    }
    text.map_or(ptr::null(), CStr::as_ptr)
}

/// # Safety
/// The options' pointers are as the header's rules say.
unsafe fn open(view: &SubjectTensors<'_>, options: Option<&st_rank_plan_options>) -> Result<RankPlan> {
    let mut strictness = Strictness::default();
    let (mut plans, mut symbols, mut given) = (Vec::new(), Vec::new(), None);
    if let Some(options) = options {
        // SAFETY: the caller's promise.
        unsafe {
            for text in array_at(options.plans, options.plan_count, "plans")? {
                plans.push(text_bytes(text, "plans.data")?);
            }
            for symbol in array_at(options.symbols, options.symbol_count, "symbols")? {
                let name = utf8(required_text(symbol.name, "symbols.name")?, || "symbols.name".to_owned())?;
                symbols.push((name, symbol.value));
            }
            if !options.config.data.is_null() {
                given = Some(text_bytes(&options.config, "config")?);
            }
        }
        if options.strict != 0 {
            strictness = Strictness::AllAxes;
        }
    }
    let beside = match given {
        Some(_) => None,
        None => config::beside(view.checkpoint)?,
    };
    let config = given.or(beside.as_deref()).map(|text| Json::parse(text, MAX_CONFIG)).transpose();
    let config = config.map_err(|fault| unreadable(&fault))?;
    if config.as_ref().is_some_and(|config| !matches!(config, Json::Map(_))) {
        return Err(unreadable("not a JSON object"));
    }
    if plans.is_empty() {
        let wanted = config.as_ref().and_then(|config| config.get("model_type")?.text());
        let text = wanted.and_then(|wanted| builtin(wanted.as_bytes())).ok_or_else(|| {
            let of = match wanted {
                None => "a config without a model_type".to_owned(),
                Some(wanted) => format!("the model_type {}", quoted(wanted.as_bytes())),
            };
            let text = format!("no plan is given, and none is built in for {of}; there are plans for {}", families());
            Error::new(ErrorKind::NotFound, text)
        })?;
        plans.push(text.to_bytes());
    }
    let inputs = Inputs { plans: &plans, config: config.as_ref(), symbols: &symbols, strictness };
    RankPlan::new(&inputs, view)
}

impl st_rank_plan {
    /// The parts at these places, as an array, and how many.
    fn parts(&self, axes: &[Axis<'_>]) -> Result<(*const st_part, usize)> {
        let mut key = Vec::new();
        for (name, at) in sort::sorted(axes.iter().map(|axis| axis.name.as_bytes()), "axes")? {
            let place = axes.get(at).map_or((0, 0), |axis| (axis.rank, axis.size));
            memory::reserve(&mut key, name.len().saturating_add(17), "axes")?;
            key.extend_from_slice(name);
            key.push(0);
            key.extend_from_slice(&place.0.to_le_bytes());
            key.extend_from_slice(&place.1.to_le_bytes());
        }
        let cache = || lock(&self.cache);
        let known = |cache: &PartCache| Some(cache.records.get(cache.places.find(&key)?)?.array());
        if let Some(array) = known(&cache()) {
            return Ok(array);
        }
        // Others may ask for theirs meanwhile; of two for the same, the first stays.
        let view = SubjectTensors { checkpoint: &self.checkpoint.0, subject: &self.subject };
        let records = PartRecords::new(self.plan.parts(axes, &view)?, &view)?;
        let mut cache = cache();
        if let Some(array) = known(&cache) {
            return Ok(array);
        }
        let array = records.array();
        memory::reserve(&mut cache.records, 1, "parts")?;
        cache.places.number(&key)?;
        cache.records.push(records);
        Ok(array)
    }
}
