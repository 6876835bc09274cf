//! What a worker gives its runs for themselves: GPUs, cores, a scratch folder, the list of their nodes. Which GPUs and
//! how many cores of which NUMA node, the server says; which cores, the worker.

use super::cores::{self, Cores};
use super::launch::StartError;
use super::nodes;
use super::scratch::Scratch;
use crate::runtime::protocol::{Body, Place, Request};
use bstr::ByteSlice;
use std::path::PathBuf;

/// What there is.
#[derive(Debug)]
pub(super) struct Stock {
    gpus: Vec<String>,
    /// With `--pin`.
    cores: Option<Cores>,
    scratch: Scratch,
}

/// What one run has.
#[derive(Debug, Default)]
pub(super) struct Share {
    /// `None` on a worker without GPUs.
    gpus: Option<Vec<String>>,
    /// Empty without `--pin`.
    pub(super) cores: Vec<usize>,
    scratch: Option<PathBuf>,
    nodes: Vec<(&'static str, String)>,
}

impl Stock {
    pub(super) fn new(gpus: Vec<String>, cores: Option<Cores>, scratch: Scratch) -> Self {
        Self { gpus, cores, scratch }
    }

    #[cfg(test)]
    pub(super) fn pin(&mut self, cores: Cores) {
        self.cores = Some(cores);
    }

    /// Hands out what a run needs; if that fails, nothing.
    pub(super) fn hand_out(&mut self, request: &Request, place: &Place) -> Result<Share, StartError> {
        let ids = place.gpus.iter().map(|part| self.gpus.get(part.gpu as usize).cloned());
        let Some(ids) = ids.collect::<Option<Vec<String>>>().filter(|ids| !ids.is_empty() || request.gpus.0 == 0)
        else {
            return Err(StartError::NoGpu { wanted: request.gpus, offered: self.gpus.len() });
        };
        let mut share = Share { gpus: (!self.gpus.is_empty()).then_some(ids), ..Share::default() };
        if let Some(cores) = &mut self.cores {
            share.cores = cores.take(&place.cores, request.cores)?;
        }
        match self.scratch.take() {
            Ok(folder) => share.scratch = Some(folder),
            Err(error) => tracing::warn!(%error, "a task gets no scratch folder"),
        }
        if place.nodes.len() > 1 {
            let folder = share.scratch.clone().ok_or_else(|| std::io::Error::other("there is no scratch folder"));
            match folder.and_then(|folder| nodes::announce(&place.nodes, &folder)) {
                Ok(variables) => share.nodes = variables,
                Err(source) => {
                    self.take_back(share);
                    return Err(StartError::NodeFile { source });
                }
            }
        }
        Ok(share)
    }

    /// Takes back what a run had.
    pub(super) fn take_back(&mut self, share: Share) {
        if let Some(cores) = &mut self.cores {
            cores.give_back(&share.cores);
        }
        if let Some(folder) = share.scratch {
            self.scratch.give_back(folder);
        }
    }
}

impl Share {
    /// Returns the variables that tell a task of it. Those of a submission stand above them, but for ours.
    pub(super) fn variables(&self, body: &Body) -> Vec<(&'static str, String)> {
        let mut variables = self.nodes.clone();
        // Also when it got none: a task must not compute on a GPU that belongs to another.
        variables.extend(self.gpus.as_ref().map(|ids| ("CUDA_VISIBLE_DEVICES", ids.join(","))));
        if !self.cores.is_empty() {
            variables.push(("DCLUSTER_TASK_CPUS", cores::list(&self.cores)));
        }
        if let Some(folder) = &self.scratch {
            let folder = folder.to_string_lossy().into_owned();
            variables.extend([("TMPDIR", folder.clone()), ("DCLUSTER_TASK_TMPDIR", folder)]);
        }
        variables
            .retain(|(name, _)| name.starts_with("DCLUSTER_") || !body.env.contains_key(name.as_bytes().as_bstr()));
        variables
    }
}
