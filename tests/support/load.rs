// SPDX-License-Identifier: Apache-2.0
//! Loads as C asks for them, what their progress said, and a device that copies
//! out of a sink's buffers in its own time.

use std::ffi::c_void;
use std::mem::zeroed;
use std::ptr::{from_ref, null_mut};
use std::sync::mpsc::{channel, Sender};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle, ThreadId};
use std::time::Duration;

use safetensors::ffi::*;
use safetensors::record::st_tensor;

use super::callbacks::say;
use super::handle::{ErrorSlot, Failure, Handle};

/// ST_LOAD_OPTIONS_INIT.
pub(crate) fn init_load() -> st_load_options {
    // SAFETY: zero is a value of every field.
    let zero: st_load_options = unsafe { zeroed() };
    st_load_options { struct_size: size_of::<st_load_options>(), ..zero }
}

/// ST_SINK_INIT.
pub(crate) fn init_sink() -> st_sink {
    // SAFETY: as above.
    let zero: st_sink = unsafe { zeroed() };
    st_sink { struct_size: size_of::<st_sink>(), ..zero }
}

/// An item for a sink, or to be given a place.
pub(crate) fn item_of(tensor: &st_tensor) -> st_load_item {
    // SAFETY: as above.
    let zero: st_load_item = unsafe { zeroed() };
    st_load_item { tensor, ..zero }
}

/// A whole tensor into memory, which the caller keeps.
pub(crate) fn item_into(tensor: &st_tensor, dst: &mut [u8]) -> st_load_item {
    st_load_item { dst: dst.as_mut_ptr().cast(), dst_size: dst.len(), ..item_of(tensor) }
}

pub(crate) fn load(from: &Handle, items: &[st_load_item], options: &st_load_options) -> Result<(), Failure> {
    let mut error = ErrorSlot::default();
    // SAFETY: as the header says; the tests' items lead to what they keep.
    let status = unsafe { st_load(from.0, items.as_ptr(), items.len(), options, error.as_mut()) };
    told(status, &error)
}

pub(crate) fn plan(from: &Handle, items: &[st_load_item], options: &st_load_options) -> Result<st_plan, Failure> {
    let mut error = ErrorSlot::default();
    // SAFETY: numbers only.
    let mut plan: st_plan = unsafe { zeroed() };
    plan.reserved = [7; 8];
    // SAFETY: as above.
    let status = unsafe { st_load_plan(from.0, items.as_ptr(), items.len(), options, &raw mut plan, error.as_mut()) };
    let result = told(status, &error);
    assert_eq!(plan.reserved, if result.is_ok() { [0; 8] } else { [7; 8] }, "filled in on success only");
    result.map(|()| plan)
}

fn told(status: st_status, error: &ErrorSlot) -> Result<(), Failure> {
    if status == ST_OK {
        assert!(error.untouched(), "success writes no error");
        return Ok(());
    }
    let failure = error.failure();
    assert_eq!(failure.code, status);
    Err(failure)
}

/// Hears a load's progress, and ends it at a call of its choice.
#[derive(Default)]
pub(crate) struct Progress {
    pub(crate) calls: Vec<(u64, u64)>,
    cancel_at: Option<usize>,
    threads: Vec<ThreadId>,
}

impl Progress {
    pub(crate) fn cancels_at(call: usize) -> Self {
        Self { cancel_at: Some(call), ..Self::default() }
    }

    pub(crate) fn listen(&mut self, options: &mut st_load_options) {
        options.progress = Some(progress);
        options.user_data = (&raw mut *self).cast();
    }

    /// What holds whether the load succeeded or not.
    pub(crate) fn check(&self, total: u64, succeeded: bool) {
        assert!(self.threads.iter().all(|thread| *thread == thread::current().id()), "on the caller's thread");
        assert!(self.calls.iter().all(|(done, all)| *all == total && done <= all), "{:?} of {total}", self.calls);
        assert!(self.calls.is_sorted(), "{:?}", self.calls);
        let ends = self.calls.iter().filter(|(done, _)| *done == total).count();
        let last = self.calls.last().is_some_and(|(done, _)| *done == total);
        match succeeded {
            true => assert!(last && ends == 1, "the end is told once, as the last: {:?}", self.calls),
            false => assert!(ends == 0 || (last && self.cancel_at == Some(self.calls.len() - 1)), "{:?}", self.calls),
        }
    }
}

unsafe extern "C" fn progress(user_data: *mut c_void, done: u64, total: u64) -> i32 {
    // SAFETY: set by `listen`, and only used during the load.
    let heard = unsafe { &mut *user_data.cast::<Progress>() };
    heard.threads.push(thread::current().id());
    heard.calls.push((done, total));
    i32::from(heard.cancel_at == Some(heard.calls.len() - 1))
}

/// What a device's sink goes wrong with, at its call of this number.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Wrong {
    pub(crate) chunk: Option<usize>,
    pub(crate) wait: Option<usize>,
}

/// A device: copies out of the buffers some time after it was told to.
pub(crate) struct Device {
    memory: Vec<Vec<u8>>,
    buffers: Vec<st_buffer>,
    side: Arc<Side>,
    jobs: Option<Sender<Job>>,
    copier: Option<JoinHandle<()>>,
}

struct Side {
    state: Mutex<State>,
    copied: Condvar,
    caller: ThreadId,
    wrong: Wrong,
}

/// What became of a load.
#[derive(Default)]
pub(crate) struct State {
    /// Each item's result, as far as it came.
    pub(crate) results: Vec<Vec<u8>>,
    /// Item, offset and size of each chunk.
    pub(crate) chunks: Vec<(usize, u64, usize)>,
    pub(crate) waits: usize,
    /// Buffers of which the copy is not over, and those that were not waited for.
    copying: Vec<bool>,
    given: Vec<bool>,
    faults: Vec<String>,
}

struct Job {
    buffer: usize,
    start: usize,
    size: usize,
    item: usize,
    offset: usize,
}

const GUARD: usize = 32;
const GUARDED: u8 = 0xc3;

impl Device {
    /// Buffers of these sizes, and room for results of those. Its copies take
    /// `slowness` times a few microseconds.
    pub(crate) fn new(buffers: &[usize], results: &[usize], slowness: u32, wrong: Wrong) -> Box<Self> {
        let mut memory: Vec<Vec<u8>> = buffers.iter().map(|size| vec![GUARDED; size + 2 * GUARD]).collect();
        let buffers: Vec<_> = memory
            .iter_mut()
            .zip(buffers)
            .map(|(memory, size)| st_buffer { data: memory[GUARD..].as_mut_ptr().cast(), size: *size })
            .collect();
        let count = buffers.len();
        let state = State {
            results: results.iter().map(|size| vec![0x11; *size]).collect(),
            copying: vec![false; count],
            given: vec![false; count],
            ..State::default()
        };
        let caller = thread::current().id();
        let side = Arc::new(Side { state: Mutex::new(state), copied: Condvar::new(), caller, wrong });
        let (jobs, todo) = channel::<Job>();
        let there = Arc::clone(&side);
        let copier = thread::spawn(move || {
            for (number, job) in todo.into_iter().enumerate() {
                thread::sleep(Duration::from_micros(u64::from(slowness) * (number as u64 * 7 % 5)));
                there.copy(&job);
            }
        });
        Box::new(Self { memory, buffers, side, jobs: Some(jobs), copier: Some(copier) })
    }

    pub(crate) fn sink(&self) -> st_sink {
        st_sink {
            buffers: self.buffers.as_ptr(),
            buffer_count: self.buffers.len(),
            chunk: Some(chunk),
            wait: Some(wait),
            user_data: from_ref(self).cast_mut().cast(),
            ..init_sink()
        }
    }

    /// Once the load has returned. All that was handed over has been waited
    /// for, but for what the sink itself gave an error for.
    pub(crate) fn finish(mut self: Box<Self>) -> State {
        let busy = self.side.state.lock().unwrap().copying.clone();
        self.jobs = None;
        self.copier.take().unwrap().join().unwrap();
        let state = std::mem::take(&mut *self.side.state.lock().unwrap());
        assert!(state.faults.is_empty(), "{:?}", state.faults);
        let Wrong { chunk, wait } = self.side.wrong;
        if wait.is_none_or(|wait| wait >= state.waits) {
            assert!(!busy.contains(&true), "a copy is under way after the load's end");
        }
        let refused = usize::from(chunk.is_some_and(|chunk| chunk < state.chunks.len()));
        assert_eq!(state.waits + refused, state.chunks.len(), "one wait for each chunk");
        for (memory, buffer) in self.memory.iter().zip(&self.buffers) {
            let (before, after) = (&memory[..GUARD], &memory[GUARD + buffer.size..]);
            assert!(before.iter().chain(after).all(|byte| *byte == GUARDED), "written beside a buffer");
        }
        state
    }
}

impl State {
    /// The chunks of each item cover its result just once.
    pub(crate) fn check_covered(&self) {
        let mut chunks = self.chunks.clone();
        chunks.sort_unstable();
        let mut ends = vec![0_u64; self.results.len()];
        for (item, offset, size) in chunks {
            assert_eq!(ends[item], offset, "item {item}");
            assert!(size > 0, "an empty chunk");
            ends[item] += size as u64;
        }
        assert!(ends.iter().zip(&self.results).all(|(end, result)| *end == result.len() as u64));
    }
}

impl Side {
    fn copy(&self, job: &Job) {
        // SAFETY: the library leaves the buffer alone until it has been waited
        // for; that it does is what the copy shows.
        let buffer = unsafe { std::slice::from_raw_parts_mut(job.start as *mut u8, job.size) };
        let bytes = buffer.to_vec();
        buffer.fill(0xee);
        let mut state = self.state.lock().unwrap();
        state.results[job.item][job.offset..][..job.size].copy_from_slice(&bytes);
        state.copying[job.buffer] = false;
        self.copied.notify_all();
    }
}

fn expect(state: &mut State, holds: bool, what: &str) {
    if !holds {
        state.faults.push(what.to_owned());
    }
}

unsafe extern "C" fn chunk(
    user_data: *mut c_void,
    buffer: usize,
    item: usize,
    offset: u64,
    size: usize,
    error: *mut st_error,
) -> st_status {
    // SAFETY: set in `sink`; the device outlives the load.
    let device = unsafe { &*user_data.cast::<Device>() };
    let mut state = device.side.state.lock().unwrap();
    let number = state.chunks.len();
    expect(&mut state, thread::current().id() == device.side.caller, "chunk on another thread");
    let given = state.given[buffer];
    expect(&mut state, !given, "a buffer is handed over before it was waited for");
    expect(&mut state, size <= device.buffers[buffer].size, "more than the buffer holds");
    state.chunks.push((item, offset, size));
    if device.side.wrong.chunk == Some(number) {
        // SAFETY: writable, as the header says.
        unsafe {
            (*error).os_errno = 71;
            say(error, c"the device fell off the bus");
        }
        return ST_ERROR_IO;
    }
    (state.copying[buffer], state.given[buffer]) = (true, true);
    let start = device.buffers[buffer].data as usize;
    device.jobs.as_ref().unwrap().send(Job { buffer, start, size, item, offset: offset as usize }).unwrap();
    ST_OK
}

unsafe extern "C" fn wait(user_data: *mut c_void, buffer: usize, error: *mut st_error) -> st_status {
    // SAFETY: as above.
    let device = unsafe { &*user_data.cast::<Device>() };
    let mut state = device.side.state.lock().unwrap();
    expect(&mut state, thread::current().id() == device.side.caller, "wait on another thread");
    let given = std::mem::replace(&mut state.given[buffer], false);
    expect(&mut state, given, "waited for a buffer that was not handed over");
    let number = state.waits;
    state.waits += 1;
    let _state = device.side.copied.wait_while(state, |state| state.copying[buffer]).unwrap();
    if device.side.wrong.wait == Some(number) {
        // SAFETY: writable, as the header says.
        unsafe { say(error, c"the copy went wrong") };
        return ST_ERROR_CANCELLED;
    }
    ST_OK
}

/// Where a sink is not looked at.
pub(crate) const NOWHERE: *mut c_void = null_mut();
