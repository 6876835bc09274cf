//! Typical loads, made from a name and a seed.

use super::{Task, Workload};
use crate::simulate::queue::normal;
use std::str::FromStr;

/// Names of the loads that can be made, with what they are.
pub const NAMES: [(&str, &str); 7] = [
    ("burst", "200 tasks of 60 s at once"),
    ("bursts", "10 bursts of 40 tasks of half a minute, minutes apart, as somebody at work makes them"),
    ("phases", "5 phases of 80 tasks of a minute; each begins when all of the former one have finished"),
    ("tail", "300 tasks at once, most of them short and a few very long (Pareto)"),
    ("trickle", "300 tasks of a minute, one every 20 s on average (Poisson)"),
    ("short", "20,000 tasks of half a second at once"),
    ("long", "400 tasks of 20 to 50 min at once"),
];

/// Tasks of each, in the order of [`NAMES`].
const TASKS: [u32; 7] = [200, 400, 400, 300, 300, 20_000, 400];
/// Most tasks.
const TASKS_MAX: u32 = 1_000_000;
/// Bursts and phases of a load.
const BURSTS: u32 = 10;
const PHASES: u32 = 5;
/// The shape of the tail: the mean exists, the variance does not.
const PARETO: f64 = 1.3;
/// The longest task of it, in seconds.
const TAIL_MAX: f64 = 3.0 * 3600.0;

/// A load that can be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Made {
    /// Its place in [`NAMES`].
    kind: usize,
    tasks: u32,
}

impl FromStr for Made {
    /// `None` = no such name; else what is wrong with the number.
    type Err = Option<String>;

    fn from_str(text: &str) -> Result<Self, Option<String>> {
        let (name, number) = text.split_once(':').map_or((text, None), |(name, number)| (name, Some(number)));
        let kind = NAMES.iter().position(|(known, _)| *known == name).ok_or(None)?;
        let parsed = number.map_or(Ok(TASKS[kind]), str::parse);
        match parsed {
            Ok(tasks) if (1..=TASKS_MAX).contains(&tasks) => Ok(Self { kind, tasks }),
            _ => Err(Some(format!("`{}` is no number of tasks up to {TASKS_MAX}", number.unwrap_or_default()))),
        }
    }
}

impl Made {
    /// Makes it. The same seed makes the same tasks.
    pub fn make(self, seed: u64) -> Workload {
        let random = &mut fastrand::Rng::with_seed(seed);
        let name = NAMES[self.kind].0;
        let tasks = match name {
            "burst" => self.each(|_| (0.0, 60.0)),
            "bursts" => bursts(self.tasks, random),
            "phases" => phases(self.tasks, random),
            "tail" => self.each(|_| (0.0, (20.0 / (1.0 - random.f64()).powf(1.0 / PARETO)).min(TAIL_MAX))),
            "trickle" => {
                let mut now = 0.0;
                self.each(|at| {
                    now += if at == 0 { 0.0 } else { exponential(20.0, random) };
                    (now, around(60.0, 0.5, random))
                })
            }
            "short" => self.each(|_| (0.0, 0.5)),
            _ => self.each(|_| (0.0, 60.0 * (20.0 + 30.0 * random.f64()))),
        };
        let classes = if name == "phases" { vec!["part".to_owned(), "join".to_owned()] } else { vec![name.to_owned()] };
        let name = if self.tasks == TASKS[self.kind] { name.to_owned() } else { format!("{name}:{}", self.tasks) };
        Workload { name, classes, tasks }
    }

    /// Makes single tasks, each from its arrival and run time.
    fn each(self, mut times: impl FnMut(u32) -> (f64, f64)) -> Vec<Task> {
        let task = |at| {
            let (arrives, run) = times(at);
            task(0, arrives, run, Vec::new())
        };
        (0..self.tasks).map(task).collect()
    }
}

fn task(class: u32, arrives: f64, run: f64, parents: Vec<u32>) -> Task {
    Task { class, arrives, run, cores: 1, memory_bytes: 0, parents }
}

fn exponential(mean: f64, random: &mut fastrand::Rng) -> f64 {
    -mean * (1.0 - random.f64()).ln()
}

/// Draws a log-normal time.
fn around(median: f64, sigma: f64, random: &mut fastrand::Rng) -> f64 {
    median * (sigma * normal(random)).exp()
}

fn bursts(tasks: u32, random: &mut fastrand::Rng) -> Vec<Task> {
    let mut made = Vec::new();
    let mut now = 0.0;
    for burst in 0..BURSTS {
        let size = share(tasks, BURSTS, burst);
        made.extend((0..size).map(|_| task(0, now, around(30.0, 0.3, random), Vec::new())));
        // Somebody looks at the results.
        now += 60.0 + exponential(480.0, random);
    }
    made
}

fn phases(tasks: u32, random: &mut fastrand::Rng) -> Vec<Task> {
    let mut made: Vec<Task> = Vec::new();
    for phase in 0..PHASES {
        let before: Vec<u32> = (made.len() as u32).checked_sub(1).into_iter().collect();
        let first = made.len() as u32;
        // The last task of a phase joins the others.
        let parts = share(tasks, PHASES, phase).saturating_sub(1);
        made.extend((0..parts).map(|_| task(0, 0.0, around(60.0, 0.3, random), before.clone())));
        if share(tasks, PHASES, phase) > 0 {
            let parents = if parts > 0 { (first..first + parts).collect() } else { before };
            made.push(task(1, 0.0, 10.0, parents));
        }
    }
    made
}

/// Returns how many of `whole` fall to one of `parts`.
fn share(whole: u32, parts: u32, part: u32) -> u32 {
    whole / parts + u32::from(part < whole % parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(text: &str, seed: u64) -> Workload {
        text.parse::<Made>().unwrap().make(seed)
    }

    #[test]
    fn loads_are_sound_and_repeat_with_the_seed() {
        for (name, _) in NAMES {
            for text in [name.to_owned(), format!("{name}:7"), format!("{name}:1"), format!("{name}:1234")] {
                let load = make(&text, 3);
                assert_eq!(load.tasks.len() as u32, text.parse::<Made>().unwrap().tasks, "{text}");
                assert_eq!(load, make(&text, 3));
                assert!(load.tasks.is_sorted_by(|a, b| a.arrives <= b.arrives), "{text}");
                for (place, task) in load.tasks.iter().enumerate() {
                    assert!(task.run > 0.0 && task.run <= TAIL_MAX && (task.class as usize) < load.classes.len());
                    assert!(task.parents.iter().all(|parent| (*parent as usize) < place), "{text}");
                }
            }
        }
        assert_ne!(make("tail", 1), make("tail", 2));
        assert_eq!(make("burst:50", 1).name, "burst:50");
    }

    #[test]
    fn loads_are_what_their_description_says() {
        let mean = |load: &Workload| load.core_seconds() / load.tasks.len() as f64;
        assert_eq!(mean(&make("burst", 1)), 60.0);
        assert_eq!(make("short", 1).core_seconds(), 10_000.0);
        let long = make("long", 1);
        assert!(long.tasks.iter().all(|task| (1200.0..=3000.0).contains(&task.run)));
        let trickle = make("trickle:3000", 1);
        let every = trickle.tasks[2999].arrives / 3000.0;
        assert!((every - 20.0).abs() < 2.0, "{every}");
        let bursts = make("bursts", 1);
        let times: std::collections::BTreeSet<u64> = bursts.tasks.iter().map(|task| task.arrives.to_bits()).collect();
        assert_eq!(times.len(), 10);
        let mut tail: Vec<f64> = make("tail:3001", 1).tasks.iter().map(|task| task.run).collect();
        tail.sort_by(f64::total_cmp);
        assert!((20.0..50.0).contains(&tail[1500]) && tail[3000] > 3000.0, "{} {}", tail[1500], tail[3000]);
        let phases = make("phases", 1);
        assert_eq!(phases.tasks.iter().filter(|task| task.class == 1).count(), 5);
        assert_eq!(phases.tasks[80].parents, [79]);
        assert_eq!(phases.tasks[79].parents.len(), 79);
    }

    #[test]
    fn names_are_checked() {
        assert_eq!("nothing".parse::<Made>(), Err(None));
        for bad in ["burst:0", "burst:", "burst:x", "burst:1000001", "burst:-1"] {
            assert!(matches!(bad.parse::<Made>(), Err(Some(_))), "{bad}");
        }
    }
}
