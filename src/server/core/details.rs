//! What the last runs of a submission's ended tasks were like, 24 bytes each.
//!
//! Kept by the core for every submission: nothing while nothing has run, one entry in place for a single
//! task, blocks of entries for arrays. A copy shares its blocks until one side changes them, so that the
//! state can be handed to the journal at once. Rounding: times above 49 days and memory above 4 TiB are cut
//! to that, memory is in whole KiB (what the kernel reports is).

use crate::runtime::ids::WorkerId;
use crate::runtime::protocol::Usage;
use crate::server::record::Detail;
use std::sync::Arc;

/// Entries of a block: 6 KiB, the most that an array with one ended task costs.
const BLOCK: usize = 256;

/// The runs of one submission, by element.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Details(Store);

#[derive(Clone, PartialEq, Eq, Debug, Default)]
enum Store {
    #[default]
    Nothing,
    One(u32, Packed),
    Many(Vec<Option<Arc<[Packed; BLOCK]>>>),
}

/// One run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Packed {
    started_at: u64,
    worker: u32,
    wall_milliseconds: u32,
    cpu_milliseconds: u32,
    memory_kib: u32,
}

impl Packed {
    /// A time that no clock shows.
    const ABSENT: Self =
        Self { started_at: u64::MAX, worker: 0, wall_milliseconds: 0, cpu_milliseconds: 0, memory_kib: 0 };

    fn new(detail: Detail) -> Self {
        let short = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        Self {
            started_at: detail.started_at.min(u64::MAX - 1),
            worker: detail.worker.0,
            wall_milliseconds: short(detail.usage.wall_milliseconds),
            cpu_milliseconds: short(detail.usage.cpu_milliseconds),
            memory_kib: short(detail.usage.memory_bytes / 1024),
        }
    }

    fn detail(self) -> Option<Detail> {
        (self != Self::ABSENT).then(|| Detail {
            worker: WorkerId(self.worker),
            started_at: self.started_at,
            usage: Usage {
                wall_milliseconds: self.wall_milliseconds.into(),
                cpu_milliseconds: self.cpu_milliseconds.into(),
                memory_bytes: u64::from(self.memory_kib) * 1024,
            },
        })
    }
}

fn place(element: u32) -> (usize, usize) {
    (element as usize / BLOCK, element as usize % BLOCK)
}

impl Details {
    /// Returns the last run of an element, if it is known.
    pub(super) fn get(&self, element: u32) -> Option<Detail> {
        match &self.0 {
            Store::Nothing => None,
            Store::One(only, run) => (*only == element).then_some(*run)?.detail(),
            Store::Many(blocks) => {
                let (block, at) = place(element);
                blocks.get(block)?.as_ref()?[at].detail()
            }
        }
    }

    /// Keeps the last run of an element.
    pub(super) fn insert(&mut self, element: u32, detail: Detail) {
        let run = Packed::new(detail);
        match &mut self.0 {
            Store::Nothing => self.0 = Store::One(element, run),
            Store::One(only, kept) if *only == element => *kept = run,
            Store::One(only, kept) => {
                let (only, kept) = (*only, *kept);
                let mut blocks = Vec::new();
                set(&mut blocks, only, kept);
                set(&mut blocks, element, run);
                self.0 = Store::Many(blocks);
            }
            Store::Many(blocks) => set(blocks, element, run),
        }
    }

    /// Forgets the last run of an element.
    pub(super) fn remove(&mut self, element: u32) {
        match &mut self.0 {
            Store::Nothing => {}
            Store::One(only, _) if *only == element => self.0 = Store::Nothing,
            Store::One(..) => {}
            Store::Many(blocks) => {
                let (block, at) = place(element);
                if let Some(Some(block)) = blocks.get_mut(block)
                    && block[at] != Packed::ABSENT
                {
                    Arc::make_mut(block)[at] = Packed::ABSENT;
                }
            }
        }
    }

    /// Returns all runs that are known, in the order of elements.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, Detail)> + Clone + '_ {
        let (one, many) = match &self.0 {
            Store::Nothing => (None, &[][..]),
            Store::One(element, run) => (run.detail().map(|detail| (*element, detail)), &[][..]),
            Store::Many(blocks) => (None, blocks.as_slice()),
        };
        let blocks = many.iter().enumerate().filter_map(|(block, runs)| Some((block * BLOCK, runs.as_ref()?)));
        let runs = blocks.flat_map(|(first, runs)| (first..).zip(runs.iter()));
        one.into_iter().chain(runs.filter_map(|(element, run)| Some((u32::try_from(element).ok()?, run.detail()?))))
    }
}

fn set(blocks: &mut Vec<Option<Arc<[Packed; BLOCK]>>>, element: u32, run: Packed) {
    let (block, at) = place(element);
    if blocks.len() <= block {
        blocks.resize(block + 1, None);
    }
    Arc::make_mut(blocks[block].get_or_insert_with(|| Arc::new([Packed::ABSENT; BLOCK])))[at] = run;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn detail() -> impl Strategy<Value = Detail> {
        (any::<u32>(), any::<u64>(), any::<u64>(), 0..1u64 << 40, any::<u64>()).prop_map(
            |(worker, started_at, wall_milliseconds, cpu_milliseconds, memory_bytes)| Detail {
                worker: WorkerId(worker),
                started_at,
                usage: Usage { wall_milliseconds, cpu_milliseconds, memory_bytes },
            },
        )
    }

    /// What the page says of rounding, in other words than the code.
    fn rounded(detail: Detail) -> Detail {
        let longest = (1 << 32) - 1;
        let usage = Usage {
            wall_milliseconds: detail.usage.wall_milliseconds.min(longest),
            cpu_milliseconds: detail.usage.cpu_milliseconds.min(longest),
            memory_bytes: (detail.usage.memory_bytes >> 10).min(longest) << 10,
        };
        Detail { usage, started_at: detail.started_at.min(u64::MAX - 1), ..detail }
    }

    proptest! {
        #[test]
        fn agrees_with_a_map(
            steps in prop::collection::vec((prop_oneof![0..4u32, 250..260u32, 0..5000u32], prop::option::of(detail())), 0..60)
        ) {
            let (mut details, mut map) = (Details::default(), BTreeMap::new());
            let mut copies = Vec::new();
            for (element, run) in steps {
                match run {
                    Some(run) => {
                        details.insert(element, run);
                        map.insert(element, rounded(run));
                    }
                    None => {
                        details.remove(element);
                        map.remove(&element);
                    }
                }
                prop_assert_eq!(details.get(element), map.get(&element).copied());
                copies.push((details.clone(), map.clone()));
            }
            // Copies stay as they were made.
            for (details, map) in copies {
                prop_assert!(details.iter().eq(map));
            }
        }
    }

    #[test]
    fn a_million_runs_take_24_megabytes() {
        assert_eq!(size_of::<Packed>(), 24);
        assert!(size_of::<Details>() <= 40);
        let run = Detail { worker: WorkerId(1), started_at: 1, usage: Usage::default() };
        let mut details = Details::default();
        (0..1000).for_each(|element| details.insert(element, run));
        let Store::Many(blocks) = &details.0 else { panic!("an array is kept in blocks") };
        assert_eq!((blocks.len(), size_of_val(blocks[0].as_deref().expect("it is full"))), (4, 24 * BLOCK));
    }
}
