//! Why a ready task does not run, in words.
//!
//! Called by `server` for people; a sentence names what would have to change.

use super::workers::Worker;
use super::{Millis, Scheduler, TaskState};
use crate::runtime::ids::TaskId;
use crate::runtime::protocol::Gpus;

impl Scheduler {
    /// Returns why a ready task cannot run as things are; `None` if it only waits for its turn, or
    /// is not ready.
    pub fn explain_ready(&self, task: TaskId, now: Millis) -> Option<String> {
        let array = self.array(self.locate(task)?);
        if self.state(task)? != TaskState::Ready || self.running.contains_key(&task) {
            return None;
        }
        if self.held {
            return Some("nothing starts until the workers are back".to_owned());
        }
        if let Some(at_most) = array.at_most()
            && array.startable() == 0
        {
            return Some(format!("at most {at_most} of these run at once"));
        }
        if let Some((name, wanted, total)) = self.ready.missing_counter(array.class) {
            return Some(format!("counter {name}: {wanted} wanted, the cluster has {total}"));
        }
        let class = self.ready.class(array.class);
        let needed = class.time_needed(self.fleet.longest());
        let nodes = class.needs.nodes as usize;
        let up: Vec<&Worker> = self.fleet.iter().map(|(_, w)| w).filter(|w| w.accepts()).collect();
        if up.is_empty() {
            return Some("no worker is up".to_owned());
        }
        let possible = self.ready.possible(array.class);
        let able = up.iter().filter(|worker| worker.could_hold(&possible, needed, now)).count();
        if able >= nodes {
            return None;
        }
        if able > 0 || up.len() < nodes {
            let able = if up.len() < nodes { up.len() } else { able };
            let verb = if able == 1 { "is" } else { "are" };
            return Some(format!("needs {nodes} workers at once; {able} {verb} up that could hold it"));
        }
        if class.needs.variants.len() > 1 {
            return Some("no worker has what any of its variants needs".to_owned());
        }
        let request = class.needs.variant(0);
        let largest = |what: fn(&Worker) -> u64| up.iter().map(|w| what(w)).max().unwrap_or(0);
        let cores = largest(|w| w.room.capacity().cores.into());
        if cores < u64::from(request.cores) {
            let wanted = request.cores;
            return Some(format!("needs {wanted} cores; the largest worker has {cores}"));
        }
        let memory = largest(|w| w.room.capacity().memory_bytes);
        if memory < request.memory_bytes {
            let (wanted, memory) = (size(request.memory_bytes), size(memory));
            return Some(format!("needs {wanted} of memory; the largest worker has {memory}"));
        }
        let gpus = largest(|w| w.room.capacity().gpus.into());
        if gpus < u64::from(request.gpus.0.div_ceil(Gpus::ONE)) {
            let wanted = request.gpus;
            let plural = if wanted == Gpus::whole(1) { "" } else { "s" };
            return Some(format!("needs {wanted} GPU{plural}; the largest worker has {gpus}"));
        }
        let left = up.iter().map(|w| w.time_left(now).unwrap_or(Millis::MAX));
        let left = left.max().unwrap_or(0);
        if left == 0 {
            return Some("no worker has walltime left".to_owned());
        }
        if left < needed {
            let (wanted, left) = (time(needed), time(left));
            let learned = if class.is_time_learned() { " (nine of ten tasks like it did)" } else { "" };
            return Some(format!("needs {wanted}{learned}; the longest worker has {left} left"));
        }
        Some("no single worker has the cores, memory, GPUs and time it needs together".to_owned())
    }
}

/// Writes a number of bytes the way people do.
fn size(bytes: u64) -> String {
    let units = [(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    match units.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => {
            let tenths = bytes / (unit / 10);
            match tenths % 10 {
                0 => format!("{} {name}", tenths / 10),
                part => format!("{}.{part} {name}", tenths / 10),
            }
        }
        None => format!("{bytes} bytes"),
    }
}

/// Writes a number of milliseconds, in whole minutes once there are some.
fn time(milliseconds: Millis) -> String {
    let seconds = milliseconds / 1000;
    let minutes = seconds / 60;
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} min"),
        (hours, 0) => format!("{hours} h"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}
