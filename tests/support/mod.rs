// SPDX-License-Identifier: Apache-2.0
//! What several test binaries share. Each uses a part of it.
#![allow(dead_code, unused_imports, reason = "each test binary uses a part")]

pub(crate) mod agree;
pub(crate) mod callbacks;
pub(crate) mod changes;
pub(crate) mod child;
pub(crate) mod compile;
pub(crate) mod corpus;
pub(crate) mod handle;
pub(crate) mod index_model;
pub(crate) mod load;
pub(crate) mod made;
pub(crate) mod model;
pub(crate) mod oracle;
pub(crate) mod plan;
pub(crate) mod records;
pub(crate) mod reference;
pub(crate) mod shim;
pub(crate) mod slice_model;
pub(crate) mod validation;

pub(crate) use made::*;

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Runs what must not wait for anybody; a busy machine may take its time.
pub(crate) fn promptly<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || send.send(work()));
    receive.recv_timeout(Duration::from_secs(300)).expect("must not block")
}
