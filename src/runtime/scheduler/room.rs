//! What is free on one worker, and what exactly a run gets of it: cores (by NUMA node), memory, GPUs and parts
//! of GPUs.
//!
//! Used by `workers`. Invariant: what a run took is given back exactly, whatever it was; sums may exceed the
//! capacity (a worker that comes back says what it runs), and then nothing is free.

use crate::runtime::protocol::{Capacity, GpuPart, Gpus, NumaCores, Place, Request};

/// What is used on a worker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Room {
    capacity: Capacity,
    cores: u64,
    memory: u128,
    /// Thousandths used, by GPU.
    gpus: Vec<u64>,
    /// Cores used, by NUMA node; empty where there is one.
    numa: Vec<u64>,
}

impl Room {
    /// Makes the room of an empty worker.
    pub(super) fn new(mut capacity: Capacity) -> Self {
        // What a worker says of itself is believed only if it adds up.
        let sum: u64 = capacity.numa.iter().map(|cores| u64::from(*cores)).sum();
        if capacity.numa.len() < 2 || sum != u64::from(capacity.cores) {
            capacity.numa.clear();
        }
        let (gpus, numa) = (vec![0; capacity.gpus as usize], vec![0; capacity.numa.len()]);
        Self { capacity, cores: 0, memory: 0, gpus, numa }
    }

    /// Returns what the worker has in all.
    pub(super) fn capacity(&self) -> &Capacity {
        &self.capacity
    }

    /// Returns what is free; GPUs that are free entirely.
    pub(super) fn free(&self) -> Capacity {
        Capacity {
            cores: self.free_cores(),
            memory_bytes: u128::from(self.capacity.memory_bytes).saturating_sub(self.memory) as u64,
            gpus: self.gpus.iter().filter(|used| **used == 0).count() as u32,
            numa: (0..self.numa.len()).map(|at| self.free_numa(at)).collect(),
        }
    }

    /// Returns the free cores.
    pub(super) fn free_cores(&self) -> u32 {
        u64::from(self.capacity.cores).saturating_sub(self.cores) as u32
    }

    fn free_numa(&self, at: usize) -> u32 {
        u64::from(self.capacity.numa[at]).saturating_sub(self.numa[at]) as u32
    }

    /// Returns how many runs of a request surely fit beside each other; 0 = not even one.
    pub(super) fn copies(&self, request: &Request) -> u32 {
        let cores = self.free_cores() / request.cores.max(1);
        let free = u128::from(self.capacity.memory_bytes).saturating_sub(self.memory);
        let memory = match request.memory_bytes {
            0 => u32::MAX,
            wanted => u32::try_from(free / u128::from(wanted)).unwrap_or(u32::MAX),
        };
        let plain = cores.min(memory);
        if plain == 0 || (request.gpus.0 == 0 && (self.numa.is_empty() || !request.compact)) {
            return plain;
        }
        u32::from(self.gpus_fit(request.gpus) && self.cores_fit(request))
    }

    /// Whether a request would fit, were the worker empty.
    pub(super) fn could_hold(&self, request: &Request) -> bool {
        request.cores <= self.capacity.cores
            && request.memory_bytes <= self.capacity.memory_bytes
            && request.gpus.0.div_ceil(Gpus::ONE) <= self.capacity.gpus
    }

    fn gpus_fit(&self, wanted: Gpus) -> bool {
        let (whole, part) = split(wanted);
        let untouched = self.gpus.iter().filter(|used| **used == 0).count();
        let shared = |used: &u64| *used > 0 && used + part <= u64::from(Gpus::ONE);
        untouched >= whole && (part == 0 || untouched > whole || self.gpus.iter().any(shared))
    }

    /// Whether the cores of a compact request are free in as few NUMA nodes as the worker allows.
    fn cores_fit(&self, request: &Request) -> bool {
        if !request.compact || self.numa.is_empty() {
            return true;
        }
        let mut sizes = self.capacity.numa.clone();
        sizes.sort_unstable_by_key(|size| std::cmp::Reverse(*size));
        let wanted = u64::from(request.cores);
        let mut sum = 0;
        let fewest = sizes.iter().take_while(|size| {
            let before = sum;
            sum += u64::from(**size);
            before < wanted
        });
        let fewest = fewest.count();
        let mut free: Vec<u32> = (0..self.numa.len()).map(|at| self.free_numa(at)).collect();
        free.sort_unstable_by_key(|free| std::cmp::Reverse(*free));
        free.iter().take(fewest).map(|free| u64::from(*free)).sum::<u64>() >= wanted
    }

    /// Takes what a run needs; returns what exactly it got, if that can be told apart.
    pub(super) fn take(&mut self, request: &Request) -> Place {
        let place =
            Place { gpus: self.choose_gpus(request.gpus), cores: self.choose_cores(request.cores), nodes: vec![] };
        self.take_place(request, &place);
        place
    }

    /// Takes what a run has already. Numbers that do not exist here are nobody's.
    pub(super) fn take_place(&mut self, request: &Request, place: &Place) {
        self.cores += u64::from(request.cores);
        self.memory += u128::from(request.memory_bytes);
        for part in &place.gpus {
            if let Some(used) = self.gpus.get_mut(part.gpu as usize) {
                *used += u64::from(part.share.0);
            }
        }
        for part in &place.cores {
            if let Some(used) = self.numa.get_mut(part.numa as usize) {
                *used += u64::from(part.cores);
            }
        }
    }

    /// Gives back what a run had.
    pub(super) fn give(&mut self, request: &Request, place: &Place) {
        self.cores -= u64::from(request.cores);
        self.memory -= u128::from(request.memory_bytes);
        for part in &place.gpus {
            if let Some(used) = self.gpus.get_mut(part.gpu as usize) {
                *used -= u64::from(part.share.0);
            }
        }
        for part in &place.cores {
            if let Some(used) = self.numa.get_mut(part.numa as usize) {
                *used -= u64::from(part.cores);
            }
        }
    }

    /// Whole GPUs in order; the part of one beside other parts, where it leaves least over.
    fn choose_gpus(&self, wanted: Gpus) -> Vec<GpuPart> {
        let (whole, part) = split(wanted);
        let untouched = (0..self.gpus.len()).filter(|at| self.gpus[*at] == 0);
        let mut chosen: Vec<GpuPart> =
            untouched.take(whole).map(|at| GpuPart { gpu: at as u32, share: Gpus(Gpus::ONE) }).collect();
        if part > 0 {
            let others = (0..self.gpus.len()).filter(|at| chosen.iter().all(|part| part.gpu as usize != *at));
            let fitting = others.filter(|at| self.gpus[*at] + part <= u64::from(Gpus::ONE));
            let fullest = fitting.max_by_key(|at| (self.gpus[*at], std::cmp::Reverse(*at)));
            chosen.extend(fullest.map(|at| GpuPart { gpu: at as u32, share: Gpus(part as u32) }));
        }
        chosen
    }

    /// One NUMA node if that is enough, the fullest; otherwise the emptiest ones first.
    fn choose_cores(&self, wanted: u32) -> Vec<NumaCores> {
        let fits = (0..self.numa.len()).filter(|at| self.free_numa(*at) >= wanted);
        if let Some(at) = fits.min_by_key(|at| self.free_numa(*at)) {
            return vec![NumaCores { numa: at as u32, cores: wanted }];
        }
        let mut nodes: Vec<usize> = (0..self.numa.len()).collect();
        nodes.sort_unstable_by_key(|at| (std::cmp::Reverse(self.free_numa(*at)), *at));
        let mut left = wanted;
        let mut chosen = Vec::new();
        for at in nodes {
            let cores = self.free_numa(at).min(left);
            if cores > 0 {
                chosen.push(NumaCores { numa: at as u32, cores });
                left -= cores;
            }
        }
        chosen
    }
}

/// Returns whole GPUs, and thousandths of one more.
fn split(gpus: Gpus) -> (usize, u64) {
    ((gpus.0 / Gpus::ONE) as usize, u64::from(gpus.0 % Gpus::ONE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(cores: u32, gpus: u32, numa: &[u32]) -> Room {
        Room::new(Capacity { cores, memory_bytes: 1 << 30, gpus, numa: numa.to_vec() })
    }

    fn gpus(share: u32) -> Request {
        Request { gpus: Gpus(share), ..Request::default() }
    }

    fn compact(cores: u32) -> Request {
        Request { cores, compact: true, ..Request::default() }
    }

    fn taken(place: &Place) -> Vec<(u32, u32)> {
        place.gpus.iter().map(|part| (part.gpu, part.share.0)).collect()
    }

    #[test]
    fn parts_of_gpus_share_one_and_leave_whole_ones_whole() {
        let mut room = room(8, 2, &[]);
        assert_eq!(taken(&room.take(&gpus(500))), [(0, 500)]);
        assert_eq!(taken(&room.take(&gpus(250))), [(0, 250)]);
        // 1.5 needs a whole one and a half: there is one whole one and a quarter.
        assert_eq!(room.copies(&gpus(1500)), 0);
        assert_eq!(taken(&room.take(&gpus(1000))), [(1, 1000)]);
        assert_eq!(room.copies(&gpus(500)), 0, "a quarter of one GPU is left");
        assert_eq!(room.copies(&gpus(250)), 1);
    }

    #[test]
    fn a_whole_gpu_and_a_part_are_two_gpus() {
        let mut room = room(8, 2, &[]);
        assert_eq!(taken(&room.take(&gpus(1500))), [(0, 1000), (1, 500)]);
        assert!(room.could_hold(&gpus(2000)) && !room.could_hold(&gpus(2001)));
    }

    #[test]
    fn compact_cores_are_of_the_fewest_numa_nodes() {
        let mut room = room(16, 0, &[8, 8]);
        let first = room.take(&compact(6));
        assert_eq!(first.cores, [NumaCores { numa: 0, cores: 6 }]);
        assert_eq!(room.take(&compact(3)).cores, [NumaCores { numa: 1, cores: 3 }]);
        // 2 and 5 are free: 6 would be spread over two nodes although one could hold them.
        assert_eq!(room.copies(&compact(6)), 0);
        let spread = Request { cores: 6, ..Request::default() };
        assert_eq!(room.copies(&spread), 1);
        room.give(&compact(6), &first);
        assert_eq!(room.copies(&compact(6)), 1);
        assert_eq!(room.copies(&compact(9)), 1, "more than a node has: two are the fewest");
    }

    #[test]
    fn a_capacity_that_does_not_add_up_has_one_numa_node() {
        assert!(room(16, 0, &[8, 9]).capacity().numa.is_empty());
        assert!(room(16, 0, &[16]).capacity().numa.is_empty());
    }

    #[test]
    fn places_that_do_not_exist_are_nobodys() {
        let mut room = room(2, 1, &[]);
        let place = Place {
            gpus: vec![GpuPart { gpu: 7, share: Gpus(1000) }],
            cores: vec![NumaCores { numa: 3, cores: 1 }],
            nodes: vec![],
        };
        let before = room.clone();
        room.take_place(&gpus(1000), &place);
        room.give(&gpus(1000), &place);
        assert_eq!(room, before);
    }
}
