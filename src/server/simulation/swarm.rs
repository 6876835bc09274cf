//! Which faults a seed has, and how hard: no world has all of them, so that none hides another.

use fastrand::Rng;

/// Chances in 10,000 that something happens in a step (about a tenth of a second), where not said otherwise.
#[derive(Debug)]
pub(super) struct Swarm {
    /// The server: killed or stopped between two steps, and in the middle of its work on the disk (of 1,000
    /// pieces of work, of 40 starts).
    pub(super) kill_server: u32,
    pub(super) stop_server: u32,
    pub(super) kill_amid: u32,
    pub(super) stop_amid: u32,
    /// Longest stop in milliseconds.
    pub(super) stop_max: u64,
    /// A second server is started although one may live; of 100, by force.
    pub(super) rival: u32,
    pub(super) force: u32,
    /// All machines that run servers, and the storage, lose power.
    pub(super) power: u32,
    /// The disk: errors for a while, full for a while, slow, hanging.
    pub(super) disk_errors: u32,
    pub(super) disk_full: u32,
    pub(super) disk_hangs: u32,
    pub(super) disk_slow: bool,
    /// No hard links on the file system.
    pub(super) no_links: bool,
    /// Links: a reset, a partition without a word, frames held back; slow ones.
    pub(super) reset: u32,
    pub(super) cut: u32,
    pub(super) stall: u32,
    pub(super) slow: bool,
    /// Workers: killed, stopped.
    pub(super) kill_worker: u32,
    pub(super) stop_worker: u32,
    /// A wall clock jumps by up to a day.
    pub(super) clock_jumps: u32,
    /// Users: cancel, retry, scale; the cluster goes down and up again.
    pub(super) cancel: u32,
    pub(super) retry: u32,
    pub(super) scale: u32,
    pub(super) cycle: bool,
    /// Tasks take at most so many milliseconds.
    pub(super) task_max: u64,
    /// Some tasks run on two workers at once.
    pub(super) several_nodes: bool,
    pub(super) site: SiteSwarm,
}

/// The batch system; chances in 100.
#[derive(Debug)]
pub(super) struct SiteSwarm {
    /// Ended jobs are not listed.
    pub(super) forgets: bool,
    pub(super) accounting: bool,
    pub(super) limit: Option<usize>,
    pub(super) query_fails: u32,
    pub(super) query_lies: u32,
    pub(super) submit_fails: u32,
    pub(super) jobs_per_submit: u32,
    /// Jobs end by themselves within so many seconds.
    pub(super) life: Option<u64>,
    /// Jobs have a walltime, and workers know it.
    pub(super) walltime: bool,
}

/// One of the choices, or 0 every other time.
fn maybe(rng: &mut Rng, choices: &[u32]) -> u32 {
    if rng.bool() { 0 } else { choices[rng.usize(..choices.len())] }
}

impl Swarm {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        Self {
            kill_server: maybe(rng, &[5, 20, 60]),
            stop_server: maybe(rng, &[5, 20]),
            kill_amid: maybe(rng, &[2, 10]),
            stop_amid: maybe(rng, &[4, 20]),
            stop_max: [2_000, 30_000, 100_000][rng.usize(..3)],
            rival: maybe(rng, &[5, 20]),
            force: [0, 30, 100][rng.usize(..3)],
            power: maybe(rng, &[3, 10]),
            disk_errors: maybe(rng, &[5, 30]),
            disk_full: maybe(rng, &[5, 20]),
            disk_hangs: maybe(rng, &[5]),
            disk_slow: rng.u8(..4) == 0,
            no_links: rng.u8(..6) == 0,
            reset: maybe(rng, &[20, 100]),
            cut: maybe(rng, &[10, 50]),
            stall: maybe(rng, &[20, 100]),
            slow: rng.u8(..4) == 0,
            kill_worker: maybe(rng, &[10, 40]),
            stop_worker: maybe(rng, &[10, 30]),
            clock_jumps: maybe(rng, &[10]),
            cancel: maybe(rng, &[40]),
            retry: maybe(rng, &[60]),
            scale: maybe(rng, &[20]),
            cycle: rng.u8(..4) == 0,
            task_max: [1_000, 8_000, 40_000][rng.usize(..3)],
            several_nodes: rng.u8(..3) == 0,
            site: SiteSwarm {
                forgets: rng.u8(..4) == 0,
                accounting: rng.bool(),
                limit: (rng.u8(..5) == 0).then(|| rng.usize(1..4)),
                query_fails: maybe(rng, &[10, 40]),
                query_lies: maybe(rng, &[10, 40]),
                submit_fails: maybe(rng, &[10, 40]),
                jobs_per_submit: [1, 3][rng.usize(..2)],
                life: rng.bool().then(|| rng.u64(30..300)),
                walltime: rng.u8(..3) == 0,
            },
        }
    }
}
