//! How jobs are ended, and what `bkill` says. Pure. It goes on behind a job that it cannot end, and has a line for
//! each.

use super::errors::{chatter, is_absence};
use crate::backends::{Observation, Observed};
use crate::runtime::ids::NativeId;
use std::collections::{BTreeMap, BTreeSet};

/// What decides how jobs are ended.
#[derive(Default, Debug)]
pub struct History {
    /// Jobs that were sent SIGTERM.
    told: BTreeSet<NativeId>,
    /// Jobs that were neither waiting nor running nor over when they were listed last, and LSF's word for it.
    silent: BTreeMap<NativeId, String>,
}

/// Jobs by how they are ended.
#[derive(Default, PartialEq, Eq, Debug)]
pub struct Orders<'a> {
    /// They get SIGTERM.
    pub tell: Vec<&'a NativeId>,
    /// `bkill` ends them.
    pub kill: Vec<&'a NativeId>,
    /// LSF is to forget them: `bkill -r`.
    pub remove: Vec<&'a NativeId>,
}

impl History {
    /// Jobs were listed.
    pub fn remember(&mut self, jobs: &[Observation]) {
        for job in jobs {
            match &job.state {
                Observed::Unknown(word) => self.silent.insert(job.id.clone(), word.clone()),
                _ => self.silent.remove(&job.id),
            };
        }
    }

    /// Jobs were sent SIGTERM.
    pub fn told(&mut self, ids: Vec<&NativeId>) {
        self.told.extend(ids.into_iter().cloned());
    }

    /// Returns how these jobs are ended. IBM's kills a parallel job at once (bkill(1), LSB_USE_SEQUENTIAL_SIGNAL):
    /// workers are told first.
    pub fn orders<'a>(&self, ids: Vec<&'a NativeId>, ibm: bool) -> Orders<'a> {
        let mut orders = Orders::default();
        for id in ids {
            let way = match self.silent.get(id).map(String::as_str) {
                // It was killed, and stays until its host is heard of again, which may be never.
                Some("ZOMBI") => &mut orders.remove,
                // A host of which nothing is heard passes no signal on.
                None if ibm && !self.told.contains(id) => &mut orders.tell,
                _ => &mut orders.kill,
            };
            way.push(id);
        }
        orders
    }
}

/// What came of one `bkill`.
#[derive(PartialEq, Eq, Debug)]
pub struct Reply<'a> {
    /// Jobs that it ends, that got its signal, or that have ended.
    pub reached: Vec<&'a NativeId>,
    /// Jobs that have not started: they get no signal.
    pub waiting: Vec<&'a NativeId>,
    /// Its words about jobs that are there and were not reached.
    pub refused: Option<String>,
    /// Whether some of these words name no job, and so may be about all of them.
    pub of_all: bool,
}

/// Returns what it said of these jobs.
pub fn reply<'a>(ids: &[&'a NativeId], stderr: &str) -> Reply<'a> {
    let lines = stderr.lines().map(str::trim).filter(|line| !line.is_empty());
    let (waiting, others): (Vec<&str>, Vec<&str>) =
        lines.filter(|line| !is_over(line)).partition(|line| line.ends_with("Job has not started yet"));
    let named = |lines: &[&str], id: &NativeId| lines.iter().any(|line| job_of(line) == Some(&id.0));
    let (waiting_ids, ids): (Vec<_>, Vec<_>) = ids.iter().copied().partition(|id| named(&waiting, id));
    let of_all = others.iter().any(|line| job_of(line).is_none());
    let reached = ids.into_iter().filter(|id| !of_all && !named(&others, id)).collect();
    let refused = (!others.is_empty()).then(|| others.join("\n"));
    Reply { reached, waiting: waiting_ids, refused, of_all }
}

fn is_over(line: &str) -> bool {
    is_absence(line)
        || chatter(line)
        || line.ends_with("Job has already finished")
        || line.ends_with("is being terminated")
        || line.ends_with("is being signaled")
}

/// The id of `Job <7[2]>: Job has not started yet`.
fn job_of(line: &str) -> Option<&str> {
    Some(line.strip_prefix("Job <")?.split_once(">:")?.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ids::{JobName, JobSeq};

    fn said(stderr: &str) -> (String, String, Option<String>, bool) {
        let ids: Vec<NativeId> = ["101", "7[1]", "7[2]", "8"].map(|id| NativeId(id.to_owned())).into();
        let reply = reply(&ids.iter().collect::<Vec<_>>(), stderr);
        let show = |ids: Vec<&NativeId>| ids.iter().map(|id| id.0.as_str()).collect::<Vec<_>>().join(" ");
        (show(reply.reached), show(reply.waiting), reply.refused, reply.of_all)
    }

    fn listed(id: &str, state: Observed) -> Observation {
        let name = JobName::new("abcd", JobSeq(1));
        Observation { name, id: NativeId(id.to_owned()), state, reason: String::new(), node: None, seconds_left: None }
    }

    #[test]
    fn a_zombie_is_removed_and_a_silent_host_is_not_told() {
        let ids: Vec<NativeId> = ["1", "2", "3", "4"].map(|id| NativeId(id.to_owned())).into();
        let all: Vec<&NativeId> = ids.iter().collect();
        let mut history = History::default();
        history.remember(&[
            listed("1", Observed::Running),
            listed("2", Observed::Unknown("UNKWN".to_owned())),
            listed("3", Observed::Unknown("ZOMBI".to_owned())),
            listed("4", Observed::Unknown("ZOMBI".to_owned())),
        ]);
        // Its host has come back.
        history.remember(&[listed("4", Observed::Running)]);
        let kill = Orders { kill: vec![&ids[0], &ids[1], &ids[3]], remove: vec![&ids[2]], ..Orders::default() };
        assert_eq!(history.orders(all.clone(), false), kill);
        let tell = Orders { tell: vec![&ids[0], &ids[3]], kill: vec![&ids[1]], remove: vec![&ids[2]] };
        assert_eq!(history.orders(all.clone(), true), tell);
        history.told(tell.tell);
        assert_eq!(history.orders(all, true), kill);
    }

    #[test]
    fn what_has_ended_is_no_trouble() {
        let stderr = "Job <99999>: No matching job found\nJob <101>: Job has already finished\n";
        assert_eq!(said(stderr), ("101 7[1] 7[2] 8".into(), String::new(), None, false));
        let stderr = "batch system daemon not responding ... still trying\n";
        assert_eq!(said(stderr), ("101 7[1] 7[2] 8".into(), String::new(), None, false));
    }

    #[test]
    fn only_a_job_that_has_not_started_waits() {
        let stderr = "Job <7[1]>: Job has not started yet\nJob <8>: Communication time out\n";
        let refused = Some("Job <8>: Communication time out".to_owned());
        assert_eq!(said(stderr), ("101 7[2]".into(), "7[1]".into(), refused, false));
        let refused = Some("Job <101>: User permission denied".to_owned());
        assert_eq!(said("Job <101>: User permission denied\n"), ("7[1] 7[2] 8".into(), String::new(), refused, false));
    }

    /// Nobody was reached, whatever else was said.
    #[test]
    fn words_that_name_no_job_are_about_all() {
        let stderr = "Job <101>: Job has already finished\nConnection refused by server\n";
        let refused = Some("Connection refused by server".to_owned());
        assert_eq!(said(stderr), (String::new(), String::new(), refused, true));
    }
}
