//! Nodes on which jobs fail early although they do well elsewhere: they are avoided for a while. Names are the
//! backend's own, for it must understand them.

use super::limits::{NODE_FAILURES, NODE_FINE_ELSEWHERE, NODE_REST, NODES_AVOIDED_MAX, SECOND};
use super::{EndReason, Moment};
use crate::runtime::ids::JobSeq;
use std::collections::BTreeMap;

/// Jobs and failures remembered.
const REMEMBERED_MAX: usize = 256;

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Nodes {
    /// Jobs that have shown themselves, where, and when that was last known.
    fine: BTreeMap<JobSeq, (String, u64)>,
    /// When jobs failed early on a node.
    failed: BTreeMap<String, Vec<u64>>,
    /// Until when a node is avoided.
    avoided: BTreeMap<String, u64>,
}

impl Nodes {
    /// A job has shown that it works.
    pub(super) fn on_fine(&mut self, job: JobSeq, node: Option<String>, now: Moment) {
        let Some(node) = node else { return };
        self.fine.insert(job, (node, now.clock));
        if self.fine.len() > REMEMBERED_MAX {
            self.fine.pop_first();
        }
    }

    /// A job failed early on a node; `live` says whether a job still is. Returns what to tell if the node is
    /// avoided from now on.
    pub(super) fn on_failed(
        &mut self,
        node: &str,
        reason: EndReason,
        live: impl Fn(JobSeq) -> bool,
        now: Moment,
    ) -> Option<String> {
        self.forget_old(live, now);
        if self.failed.len() >= REMEMBERED_MAX && !self.failed.contains_key(node) {
            return None;
        }
        let times = self.failed.entry(node.to_owned()).or_default();
        times.push(now.clock);
        let failures = times.len();
        let elsewhere = self.fine.values().filter(|(fine, _)| fine != node).count();
        let enough = failures >= NODE_FAILURES && elsewhere >= NODE_FINE_ELSEWHERE;
        let room = self.avoided.len() < NODES_AVOIDED_MAX && !self.avoided.contains_key(node);
        if !enough || !room || !is_plain(node) {
            return None;
        }
        self.failed.remove(node);
        self.avoided.insert(node.to_owned(), now.clock + NODE_REST);
        let minutes = NODE_REST / 60 / SECOND;
        let last = reason.words();
        Some(format!(
            "node {node} is avoided for {minutes} min: {failures} jobs failed there early (the last one: {last}) while {elsewhere} did well elsewhere"
        ))
    }

    pub(super) fn is_avoided(&self, node: &str, now: Moment) -> bool {
        self.avoided.get(node).is_some_and(|until| now.clock < *until)
    }

    /// Returns the nodes to avoid now.
    pub(super) fn avoided(&mut self, now: Moment) -> Vec<String> {
        self.avoided.retain(|_, until| now.clock < *until);
        self.avoided.keys().cloned().collect()
    }

    /// The backend may not know these names, or nothing is left without them.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    fn forget_old(&mut self, live: impl Fn(JobSeq) -> bool, now: Moment) {
        let recent = |at: u64| now.clock < at + NODE_REST;
        self.fine.retain(|job, (_, at)| recent(*at) || live(*job));
        self.avoided.retain(|_, until| now.clock < *until);
        self.failed.retain(|_, times| {
            times.retain(|at| recent(*at));
            !times.is_empty()
        });
    }
}

/// Whether a name is one node's, as it may stand in a list.
fn is_plain(node: &str) -> bool {
    !node.is_empty() && node.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}
