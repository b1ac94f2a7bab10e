// SPDX-License-Identifier: Apache-2.0
//! ComfyUI's markers: a small JSON beside a weight, or in the file's metadata.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use super::draft::{state, Draft, Fault, SMALL};
use super::Role;
use crate::checkpoint::Checkpoint;
use crate::dtype::Dtype;
use crate::error::quoted;
use crate::model::config::{Json, MAX_CONFIG};

/// The markers of the metadata.
#[derive(Default)]
pub(super) struct Markers {
    layers: HashMap<String, Marker>,
    fault: Option<String>,
}

/// What a marker says of a module.
#[derive(Clone, Debug, Default)]
pub(super) struct Marker {
    pub(super) format: String,
    pub(super) rotated: bool,
}

impl Marker {
    fn of(json: &Json) -> Option<Self> {
        let format = json.get("format")?.text()?.to_owned();
        Some(Self { format, rotated: json.get("convrot").and_then(Json::bool) == Some(true) })
    }
}

impl Markers {
    /// Those in a checkpoint's metadata.
    pub(super) fn of(checkpoint: &Checkpoint) -> Self {
        let mut entries = checkpoint.metadata().unwrap_or_default().iter();
        let Some(entry) = entries.find(|entry| entry.key() == b"_quantization_metadata") else {
            return Self::default();
        };
        match Json::parse(entry.value(), MAX_CONFIG) {
            Ok(json) => {
                let layers = json.map("layers").unwrap_or_default().iter();
                let layers = layers.filter_map(|(name, layer)| Some((name.clone(), Marker::of(layer)?))).collect();
                Self { layers, fault: None }
            }
            Err(fault) => Self { layers: HashMap::new(), fault: Some(fault) },
        }
    }
}

impl Draft<'_> {
    /// The marker of this module; its tensor becomes a member.
    pub(super) fn marker(&mut self) -> Result<Option<Marker>, Fault> {
        if let Some(tensor) = self.optional(Role::Format, ".comfy_quant") {
            super::draft::require_dtype(tensor, &[Dtype::U8])?;
            let text = self.read_small(tensor)?;
            let wrong = |fault: &str| state(format!("{}: {fault}", quoted(tensor.name())));
            let json = Json::parse(&text, usize::try_from(SMALL).unwrap_or_default()).map_err(|fault| wrong(&fault))?;
            return Marker::of(&json).map(Some).ok_or_else(|| wrong("it has no \"format\""));
        }
        if let Some(fault) = &self.markers.fault {
            return Err(state(format!("_quantization_metadata: {fault}")));
        }
        Ok(std::str::from_utf8(self.module).ok().and_then(|module| self.markers.layers.get(module)).cloned())
    }
}
