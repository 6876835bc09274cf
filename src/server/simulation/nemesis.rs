//! What goes wrong, by the swarm's chances.

use super::links::Peer;
use super::world::World;
use crate::server::core::ConnectionId;

/// Chances are in so many steps.
const STEPS: u32 = 10_000;

impl World {
    pub(super) fn nemesis(&mut self) {
        if self.now >= self.disk_bad_until {
            self.heal_disk();
        }
        if !self.faults {
            return;
        }
        self.harm_servers();
        self.harm_disk();
        self.harm_links();
        self.harm_workers();
        if self.lot(self.swarm.clock_jumps, STEPS) {
            let host = self.rng.usize(..2);
            self.jump_wall_clock(host);
        }
    }

    pub(super) fn heal_disk(&mut self) {
        let mut disk = self.disk.lock().expect("one thread");
        (disk.faults.per_mille, disk.capacity) = (0, None);
        self.disk_bad_until = u64::MAX;
    }

    fn harm_servers(&mut self) {
        if self.lot(self.swarm.power, STEPS) {
            self.lose_power();
        }
        if self.lot(self.swarm.rival, STEPS) && self.servers.len() < 4 && !self.is_down && self.lease(0).is_some() {
            let (host, force) = (self.rng.usize(..2), self.swarm.force);
            let by_force = self.lot(force, 100);
            self.start_server(host, false, by_force);
        }
        let ids: Vec<u64> = self.servers.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        let id = ids[self.rng.usize(..ids.len())];
        if self.lot(self.swarm.kill_server, STEPS) {
            for link in self.links_to(id) {
                for situation in self.in_flight(link) {
                    self.mark(situation);
                }
            }
            self.kill_server(id);
        } else if self.lot(self.swarm.stop_server, STEPS)
            && let Some(mut process) = self.servers.remove(&id)
        {
            if process.stopped_until.is_none() {
                if process.serving.as_ref().is_some_and(|serving| serving.has_news()) {
                    self.mark("server stopped between its journal and its answers");
                }
                self.mark("server stopped between two steps");
                self.halt(&mut process);
            }
            self.servers.insert(id, process);
        }
    }

    fn harm_disk(&mut self) {
        let now = self.now;
        if self.lot(self.swarm.disk_errors, STEPS) {
            let per_mille = self.rng.u32(20..400);
            self.disk.lock().expect("one thread").faults.per_mille = per_mille;
            self.disk_bad_until = now + self.rng.u64(100..10_000);
            self.mark("the disk fails");
        }
        if self.lot(self.swarm.disk_full, STEPS) {
            let room = self.rng.usize(..3000);
            let mut disk = self.disk.lock().expect("one thread");
            disk.capacity = Some(disk.used() + room);
            drop(disk);
            self.disk_bad_until = now + self.rng.u64(100..15_000);
        }
        if self.lot(self.swarm.disk_hangs, STEPS) {
            self.disk_hangs_until = now + self.rng.u64(1000..40_000);
            self.mark("the disk hangs");
        }
    }

    fn harm_links(&mut self) {
        let links: Vec<ConnectionId> = self.links.keys().copied().collect();
        if !links.is_empty() {
            let link = links[self.rng.usize(..links.len())];
            if self.lot(self.swarm.reset, STEPS) {
                self.mark("a connection was reset");
                self.reset(link);
            }
            if self.lot(self.swarm.stall, STEPS) {
                self.mark("frames were held back");
                let until = self.now + self.rng.u64(500..8000);
                self.hold(link, until);
            }
        }
        if self.lot(self.swarm.cut, STEPS) {
            let Some(id) = self.any_machine() else { return };
            let until = self.now + self.rng.u64(1000..150_000);
            self.trace("worker cut off", u64::from(id), until);
            self.mark("a worker was cut off");
            self.machines.get_mut(&id).expect("just listed").cut_until = until;
            for link in self.links_of(Peer::Machine(id)) {
                self.silence(link);
            }
        }
    }

    fn any_machine(&mut self) -> Option<u32> {
        let ids: Vec<u32> = self.machines.keys().copied().collect();
        (!ids.is_empty()).then(|| ids[self.rng.usize(..ids.len())])
    }

    fn harm_workers(&mut self) {
        let Some(id) = self.any_machine() else { return };
        if self.lot(self.swarm.kill_worker, STEPS) {
            self.end_machine(id, None);
        } else if self.lot(self.swarm.stop_worker, STEPS) {
            // For longer than the server's margin it would not end its tasks in time.
            let until = self.now + self.rng.u64(100..8_000);
            self.trace("worker stopped", u64::from(id), until);
            self.mark("a worker was stopped");
            let machine = self.machines.get_mut(&id).expect("just listed");
            (machine.stopped_until, machine.attentive_since) = (until, u64::MAX);
        }
    }
}
