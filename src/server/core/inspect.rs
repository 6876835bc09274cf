//! What the simulation may see of a core that nobody else asks for.

use super::Core;
use crate::ledger::Ledger;
use crate::runtime::ids::ArrayId;
use crate::runtime::scheduler::Scheduler;
use crate::server::record::Record;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Core {
    /// Returns the tasks.
    pub(in crate::server) fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// Returns the jobs.
    pub(in crate::server) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Returns the submissions by their keys.
    pub(in crate::server) fn keys(&self) -> &BTreeMap<Arc<str>, ArrayId> {
        &self.keys
    }

    /// Returns in words why nothing goes on.
    pub(in crate::server) fn standstill(&self) -> String {
        format!(
            "{:?}; awaited {:?}; workers {:#?}; jobs {:#?}",
            self.scheduler.totals(),
            self.awaited,
            self.workers,
            self.ledger.live().collect::<Vec<_>>()
        )
    }

    /// The base, replayed into the empty core `other`, is the state.
    pub(in crate::server) fn check_base(&self, mut other: Self) {
        for record in self.snapshot().records() {
            other.replay(Record::decode(&record.encode()).expect("our own")).expect("a base makes sense");
        }
        other.recount_failures();
        assert!(other.snapshot().records().eq(self.snapshot().records()), "the base, replayed, is another state");
        assert_eq!((&other.keys, &other.failures, other.used), (&self.keys, &self.failures, self.used));
        assert!(other.ledger.jobs().eq(self.ledger.jobs()));
        let (a, b) = (other.scheduler.totals(), self.scheduler.totals());
        assert_eq!((a.finished, a.failed, a.cancelled), (b.finished, b.failed, b.cancelled));
    }
}
