//! What is on disk, and what is told once it is; a journal that cannot be written.

use super::{ConnectionId, Core, EventLine, Outgoing, Output, Turn, reply};
use crate::ledger::Moment;
use crate::runtime::control::{ErrorKind, Reply};
use crate::runtime::ids::{ArrayId, RunId};
use crate::runtime::protocol::{ServerMessage, TaskRef};
use crate::runtime::scheduler::Event;
use crate::server::record::Record;
use std::collections::BTreeMap;

impl Core {
    pub(super) fn note_written(&mut self, out: &Output) {
        if !out.records.is_empty() {
            self.written = self.turn;
        }
        let settles =
            |record: &Record| matches!(record, Record::Ended { .. } | Record::Finished { .. } | Record::Revived { .. });
        if out.records.iter().any(settles) {
            self.settled = self.turn;
        }
    }

    /// The turn and all before it are on disk, in the journal frame `sequence`.
    pub fn on_durable(&mut self, turn: Turn, sequence: u64, out: &mut Output) {
        self.durable = self.durable.max(turn);
        self.sequence = self.sequence.max(sequence);
        self.in_flight.retain(|(submitted, ..)| *submitted > turn);
        // Turns without records are as durable as the last one with.
        let turn = if turn >= self.written { self.turn } else { turn };
        self.again.retain(|_, at| *at > turn);
        self.tell_recorded(turn, out);
    }

    /// Tells workers which outcomes they may forget.
    pub(super) fn tell_recorded(&mut self, durable: Turn, out: &mut Output) {
        let mut recorded: BTreeMap<ConnectionId, Vec<RunId>> = BTreeMap::new();
        while let Some((at, connection, run)) = self.unrecorded.front().copied()
            && at <= durable
        {
            self.unrecorded.pop_front();
            recorded.entry(connection).or_default().push(run);
        }
        for (connection, runs) in recorded {
            let message = ServerMessage::Recorded { runs, sequence: self.sequence };
            out.sends.push((connection, 0, Outgoing::Worker(message)));
        }
    }

    /// So many bytes wait to be written.
    pub fn on_journal_queue(&mut self, bytes: usize) {
        self.journal_queue = bytes;
    }

    /// The journal cannot be written (`Some`), or can again. What was being accepted is given back: nothing
    /// of it has run, since what leaves the server waits for the disk.
    pub fn on_journal(&mut self, trouble: Option<String>, now: Moment, out: &mut Output) {
        if let Some(what) = &trouble
            && self.journal_trouble.is_none()
        {
            out.events.push(EventLine {
                kind: "journal_failed",
                job: None,
                task: None,
                text: format!("the journal cannot be written: {what}; no new work is accepted, accepted work goes on"),
            });
            for (_, array, connection, request) in std::mem::take(&mut self.in_flight) {
                if let Some(array) = array {
                    self.give_back(array, now, out);
                }
                out.withdrawn.push((connection, request));
                out.sends.push((connection, 0, reply(request, self.refusal(what))));
            }
        }
        if trouble.is_none() && self.journal_trouble.is_some() {
            out.events.push(EventLine {
                kind: "journal_recovered",
                job: None,
                task: None,
                text: "the journal can be written again".to_owned(),
            });
        }
        self.journal_trouble = trouble;
        self.note_written(out);
    }

    pub(super) fn give_back(&mut self, array: ArrayId, now: Moment, out: &mut Output) {
        if let Some(record) = self.arrays.get_mut(&array)
            && !record.key.is_empty()
        {
            // The client may send it again, to this server or the next: it is a new one then.
            self.keys.remove(&std::mem::take(&mut record.key));
            out.records.push(Record::Withdrawn { array });
        }
        let cancel = Event::Cancel { tasks: vec![TaskRef::Array(array)] };
        let mut actions = Vec::new();
        self.scheduler.apply(cancel, now.clock, &mut actions);
        self.carry_out(actions, now, out);
    }

    pub(super) fn refusal(&self, what: &str) -> Reply {
        Reply::Error {
            kind: ErrorKind::TryAgain,
            what: format!("the server cannot write its journal in {}: {what}", self.options.folder.display()),
            fix: Some("make room there (quota, full disk); it goes on by itself within seconds".to_owned()),
        }
    }
}
