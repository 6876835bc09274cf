//! Tasks that run on several workers at once: one leads, the others have them as guests.
//!
//! Called by `placement` and `runs`. Invariant: a team's members that are here have the run as a guest, until
//! the lead has reported its end or is lost.

use super::tasks::Ripples;
use super::workers::Run;
use super::{Action, End, Scheduler};
use crate::runtime::ids::{RunId, TaskId, WorkerId};
use crate::runtime::protocol::{NodePart, Place};

/// The workers of one run.
#[derive(Clone, Debug)]
pub(super) struct Team {
    task: TaskId,
    class: u32,
    lead: WorkerId,
    /// The others, whether they are here or have not come back yet.
    pub(super) members: Vec<WorkerId>,
}

impl Scheduler {
    /// Starts the next element of an array on these workers; the first one leads.
    pub(super) fn assign_team(&mut self, slot: u32, workers: &[WorkerId], actions: &mut Vec<Action>) {
        let (task, class, run) = self.start_next(slot);
        let lead = workers[0];
        let cores = self.ready.class(class).needs.variant(0).cores;
        let mut entry = Run::new(task, class, 0);
        entry.hands_over = false;
        let line = entry.line();
        let mut place = self.occupy(lead, run, entry);
        place.nodes = workers.iter().map(|worker| NodePart { worker: *worker, node: String::new(), cores }).collect();
        if let Some(entry) = self.fleet.run_mut(lead, run) {
            entry.place = place.clone();
        }
        self.teams.insert(run, Team { task, class, lead, members: workers[1..].to_vec() });
        for member in &workers[1..] {
            self.seat(*member, run);
            actions.push(Action::Guest { worker: *member, run, here: true });
        }
        actions.push(Action::Assign { worker: lead, task, run, variant: 0, line, waits: false, place });
    }

    /// Knows a run on several workers again that its lead brought back.
    pub(super) fn readmit_team(&mut self, lead: WorkerId, run: RunId, task: TaskId, class: u32, place: &Place) {
        let members: Vec<WorkerId> = place.nodes.iter().map(|part| part.worker).filter(|id| *id != lead).collect();
        if members.is_empty() {
            return;
        }
        self.teams.insert(run, Team { task, class, lead, members: members.clone() });
        for member in members {
            self.seat(member, run);
        }
    }

    /// Gives a member its guest, if the member is here and has not got it.
    fn seat(&mut self, member: WorkerId, run: RunId) {
        let Some(team) = self.teams.get(&run) else { return };
        if self.fleet.get(member).is_none_or(|worker| worker.runs().contains_key(&run)) {
            return;
        }
        let request = self.ready.class(team.class).needs.variant(0);
        let mut entry = Run::new(team.task, team.class, 0);
        (entry.lead, entry.hands_over) = (Some(team.lead), false);
        self.fleet.occupy(member, run, entry, request);
    }

    /// A worker joined: it gets the guests it had.
    pub(super) fn seat_guests(&mut self, worker: WorkerId) {
        for run in self.guests_of(worker) {
            self.seat(worker, run);
        }
    }

    /// Returns the runs of other workers that use this one, too.
    pub fn guests_of(&self, worker: WorkerId) -> Vec<RunId> {
        let teams = self.teams.iter().filter(|(_, team)| team.members.contains(&worker));
        teams.map(|(run, _)| *run).collect()
    }

    /// A run is over: its guests leave.
    pub(super) fn dissolve(&mut self, run: RunId, actions: &mut Vec<Action>) {
        let Some(team) = self.teams.remove(&run) else { return };
        for member in team.members {
            let request = self.ready.class(team.class).needs.variant(0);
            self.fleet.release(member, run, request);
            actions.push(Action::Guest { worker: member, run, here: false });
        }
    }

    /// A member is lost: its runs cannot go on.
    pub(super) fn lose_member(
        &mut self,
        worker: WorkerId,
        counts: bool,
        actions: &mut Vec<Action>,
        ripples: &mut Ripples,
    ) {
        for run in self.guests_of(worker) {
            let Some(team) = self.teams.get_mut(&run) else { continue };
            team.members.retain(|member| *member != worker);
            let (lead, task) = (team.lead, team.task);
            if self.running.get(&task) != Some(&(lead, run)) {
                continue;
            }
            self.running.remove(&task);
            self.doom(lead, run);
            actions.push(Action::Kill { worker: lead, task, run });
            if let Some(slot) = self.locate(task) {
                self.run_again(slot, task.element, run, counts.then_some(End::Poisonous), actions, ripples);
            }
        }
    }
}
