// SPDX-License-Identifier: Apache-2.0
//! What is wrong with a checkpoint's groups, for those who validate files.
#![forbid(unsafe_code)]

use super::group::Status;
use super::search::{Groups, GroupsOptions};
use crate::checkpoint::validate::{Fatal, Problem};
use crate::checkpoint::Checkpoint;
use crate::error::{quoted, Error, ErrorKind, Result};
use crate::record::Tensor;

/// Names that tensors have for the sake of others alone.
const COMPANIONS: [&[u8]; 18] = [
    b".qzeros",
    b".scales",
    b".g_idx",
    b".weight_scale",
    b".weight_scale_inv",
    b".weight_scale_2",
    b".weight_zero_point",
    b".weight_g_idx",
    b".weight_shape",
    b".weight_global_scale",
    b".scale_weight",
    b".qscale_weight",
    b".SCB",
    b".weight_format",
    b".weight.absmax",
    b".weight.quant_map",
    b".weight.nested_absmax",
    b".comfy_quant",
];

/// Tells of groups that can't be decoded, and of companions that are nobody's. None of
/// it keeps a file from being opened. `tell` says whether to go on.
///
/// # Errors
/// What reading small members said.
pub(crate) fn findings(checkpoint: &Checkpoint, tell: &mut dyn FnMut(&Problem<'_>) -> bool) -> Result<()> {
    let groups = match Groups::open(checkpoint, &GroupsOptions::default()) {
        Ok(groups) => groups,
        Err(error) if error.kind() == ErrorKind::Config => {
            tell(&Problem {
                file: checkpoint.shard_label(0),
                position: 0,
                tensor: None,
                error: &error,
                fatal: Fatal::Never,
            });
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    for group in groups.list().iter().filter(|group| matches!(group.status(), Status::Broken(_) | Status::Ambiguous)) {
        let codes = group.members().first().and_then(|codes| checkpoint.tensors().get(codes.tensor));
        let Some((codes, Err(error))) = codes.map(|codes| (codes, group.usable())) else { continue };
        if !tell_of(checkpoint, codes, &error, tell) {
            return Ok(());
        }
    }
    let plain = groups.plain().iter().filter_map(|number| checkpoint.tensors().get(*number));
    for tensor in plain.filter(|tensor| COMPANIONS.iter().any(|suffix| tensor.name().ends_with(suffix))) {
        let text =
            format!("{} is a companion of no group: codes that it would be for are not there", quoted(tensor.name()));
        if !tell_of(checkpoint, tensor, &Error::new(ErrorKind::Group, text), tell) {
            return Ok(());
        }
    }
    Ok(())
}

fn tell_of(
    checkpoint: &Checkpoint,
    tensor: &Tensor,
    error: &Error,
    tell: &mut dyn FnMut(&Problem<'_>) -> bool,
) -> bool {
    let (file, position) = (checkpoint.shard_label(tensor.shard()), tensor.offset());
    tell(&Problem { file, position, tensor: Some(tensor.name()), error, fatal: Fatal::Never })
}
