//! How many more jobs ready tasks would fill, beyond those there are: first fit, the largest first.

use crate::adapt::{JobPhase, JobView, Observation, PoolShape, TaskClass};
use std::collections::BTreeSet;

/// What ready tasks need.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Need {
    /// The jobs there are in which a ready task would find room.
    pub(super) used: BTreeSet<u32>,
    /// Jobs that the others would fill.
    pub(super) more: u32,
}

/// What is free in a job.
#[derive(Clone, Copy, Debug)]
struct Free {
    cores: u64,
    memory: u64,
}

impl Free {
    fn of(pool: &PoolShape) -> Self {
        Self { cores: pool.cores.into(), memory: pool.memory_bytes.unwrap_or(u64::MAX) }
    }

    fn copies(&self, class: &TaskClass) -> u64 {
        let by_memory = self.memory.checked_div(class.memory_bytes).unwrap_or(u64::MAX);
        (self.cores / u64::from(class.cores.max(1))).min(by_memory)
    }

    fn take(&mut self, class: &TaskClass, tasks: u64) {
        self.cores = self.cores.saturating_sub(tasks * u64::from(class.cores.max(1)));
        self.memory = self.memory.saturating_sub(tasks.saturating_mul(class.memory_bytes));
    }
}

/// Puts the ready tasks into what is free in `jobs`, in their order, and the rest into new jobs, `most` at most.
/// Tasks that fit into no job at all are left out.
pub(super) fn fit(seen: &Observation, pool: &PoolShape, jobs: &[&JobView], most: u32) -> Need {
    let mut free: Vec<(Option<u32>, Free)> = jobs.iter().map(|job| (Some(job.id), free(seen, pool, job))).collect();
    let mut classes: Vec<&TaskClass> = seen.classes.iter().filter(|class| class.ready > 0).collect();
    classes.sort_by_key(|class| std::cmp::Reverse((class.cores, class.memory_bytes)));
    let mut need = Need::default();
    for class in classes {
        let mut left = class.ready;
        for (job, room) in &mut free {
            let here = room.copies(class).min(left);
            if here > 0 {
                room.take(class, here);
                left -= here;
                need.used.extend(*job);
            }
        }
        let each = Free::of(pool).copies(class);
        while left > 0 && each > 0 && need.more < most {
            let mut room = Free::of(pool);
            let here = each.min(left);
            room.take(class, here);
            left -= here;
            need.more += 1;
            free.push((None, room));
        }
    }
    need
}

fn free(seen: &Observation, pool: &PoolShape, job: &JobView) -> Free {
    let mut room = Free::of(pool);
    if job.phase == JobPhase::Up {
        for class in &seen.classes {
            let here = class.running.iter().filter(|some| some.job == job.id);
            room.take(class, here.map(|some| u64::from(some.tasks)).sum());
        }
    }
    room
}
