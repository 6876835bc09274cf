//! How many jobs ready tasks would fill: first fit, the largest share first, over jobs of a kind at once.

/// What a job has, or a task needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Room {
    pub(super) cores: u64,
    pub(super) memory: u64,
    pub(super) gpus: u64,
}

impl Room {
    /// Returns how many of `part` fit.
    pub(super) fn copies(&self, part: &Self) -> u64 {
        let fit = |has: u64, needs: u64| has.checked_div(needs).unwrap_or(u64::MAX);
        fit(self.cores, part.cores).min(fit(self.memory, part.memory)).min(fit(self.gpus, part.gpus))
    }

    /// Takes `times` × `part` away, as far as it is there.
    pub(super) fn take(&mut self, part: &Self, times: u64) {
        let less = |has: u64, needs: u64| has.saturating_sub(needs.saturating_mul(times));
        self.cores = less(self.cores, part.cores);
        // Memory without a limit stays without one.
        if self.memory != u64::MAX {
            self.memory = less(self.memory, part.memory);
        }
        self.gpus = less(self.gpus, part.gpus);
    }

    /// Returns the largest share of `whole` that this takes.
    pub(super) fn share(&self, whole: &Self) -> f64 {
        let share = |part: u64, whole: u64| if part == 0 { 0.0 } else { part as f64 / whole.max(1) as f64 };
        share(self.cores, whole.cores).max(share(self.memory, whole.memory)).max(share(self.gpus, whole.gpus))
    }
}

/// Jobs with the same room and the same time left.
#[derive(Clone, Debug)]
struct Bins {
    pool: usize,
    room: Room,
    life: f64,
    count: u64,
}

/// Jobs that exist, and jobs that would be needed besides.
#[derive(Clone, Debug, Default)]
pub(super) struct Packing {
    bins: Vec<Bins>,
}

/// Tasks that are alike.
#[derive(Clone, Copy, Debug)]
pub(super) struct Items {
    pub(super) room: Room,
    /// Seconds that must be left.
    pub(super) time: f64,
    pub(super) count: u64,
}

impl Packing {
    /// Adds jobs of a pool with the same room, `life` seconds long.
    pub(super) fn add(&mut self, pool: usize, room: Room, life: f64, count: u64) {
        if count > 0 {
            self.bins.push(Bins { pool, room, life, count });
        }
    }

    /// Puts tasks into the jobs there are, of the pools that `allowed` names; returns how many found no room.
    pub(super) fn place(&mut self, items: Items, allowed: impl Fn(usize) -> bool) -> u64 {
        let mut left = items.count;
        let mut split = Vec::new();
        for bins in &mut self.bins {
            if left == 0 {
                break;
            }
            let each = bins.room.copies(&items.room);
            if each == 0 || bins.life < items.time || !allowed(bins.pool) {
                continue;
            }
            let full = (left / each).min(bins.count);
            let before = bins.room;
            let rest = if full < bins.count { left - full * each } else { 0 };
            left -= full * each + rest;
            // Full ones, then one that gets the rest, then those that get nothing.
            let untouched = bins.count - full - u64::from(rest > 0);
            let mut parts = [(each, full), (rest, u64::from(rest > 0)), (0, untouched)]
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .map(|(taken, count)| {
                    let mut room = before;
                    room.take(&items.room, taken);
                    Bins { room, count, ..bins.clone() }
                })
                .collect::<Vec<_>>()
                .into_iter();
            if let Some(first) = parts.next() {
                *bins = first;
            }
            split.extend(parts);
        }
        self.bins.extend(split);
        left
    }

    /// Puts tasks into new jobs of a pool; returns how many jobs that takes.
    pub(super) fn open(&mut self, pool: usize, whole: Room, life: f64, items: Items) -> u64 {
        let each = whole.copies(&items.room);
        if each == 0 || items.count == 0 {
            return 0;
        }
        let jobs = items.count.div_ceil(each);
        self.add(pool, whole, life, jobs);
        self.place(items, |at| at == pool);
        jobs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cores(cores: u64) -> Room {
        Room { cores, memory: u64::MAX, gpus: 0 }
    }

    fn task(cores: u64, count: u64) -> Items {
        Items { room: Room { cores, memory: 0, gpus: 0 }, time: 0.0, count }
    }

    #[test]
    fn fills_free_room_first_and_opens_what_is_missing() {
        let mut packing = Packing::default();
        packing.add(0, cores(3), 100.0, 1);
        packing.add(0, cores(8), 100.0, 2);
        assert_eq!(packing.place(task(2, 20), |_| true), 20 - 1 - 8);
        assert_eq!(packing.open(0, cores(8), 100.0, task(2, 11)), 3);
        // One of the new jobs has room for one more.
        assert_eq!(packing.place(task(2, 2), |_| true), 1);
    }

    #[test]
    fn time_memory_and_pool_are_looked_at() {
        let mut packing = Packing::default();
        packing.add(0, Room { cores: 8, memory: 10, gpus: 0 }, 50.0, 1);
        let big = Items { room: Room { cores: 1, memory: 6, gpus: 0 }, time: 10.0, count: 2 };
        assert_eq!(packing.clone().place(big, |_| true), 1);
        assert_eq!(packing.clone().place(Items { time: 60.0, ..big }, |_| true), 2);
        assert_eq!(packing.clone().place(big, |pool| pool == 1), 2);
        let gpu = Items { room: Room { gpus: 1, ..big.room }, ..big };
        assert_eq!(packing.place(gpu, |_| true), 2);
        assert_eq!(packing.open(0, cores(8), 1.0, gpu), 0, "it fits nowhere");
    }

    proptest! {
        /// As many tasks as a walk over single jobs would place, and never more than there is room for.
        #[test]
        fn groups_are_as_good_as_single_jobs(
            jobs in prop::collection::vec((1..9u64, 1..5u64), 0..6),
            tasks in prop::collection::vec((1..5u64, 0..30u64), 0..5),
        ) {
            let mut packing = Packing::default();
            let mut single: Vec<u64> = Vec::new();
            for (room, count) in &jobs {
                packing.add(0, cores(*room), 1.0, *count);
                single.extend(std::iter::repeat_n(*room, *count as usize));
            }
            let total: u64 = single.iter().sum();
            let mut placed = 0;
            for (needs, count) in tasks {
                let left = packing.place(task(needs, count), |_| true);
                placed += (count - left) * needs;
                // Nothing that would still fit is left over.
                let fits = packing.bins.iter().any(|bins| bins.room.copies(&task(needs, 1).room) > 0);
                prop_assert!(left == 0 || !fits);
                let free: u64 = packing.bins.iter().map(|bins| bins.room.cores * bins.count).sum();
                prop_assert_eq!(free + placed, total);
            }
        }
    }
}
