//! A day of `dcluster adapt` on a real Slurm, in minutes: bursts, a tail, a full partition, a node and a
//! controller that fail, and walltimes that tasks barely fit into.
//!
//! What is judged is what Slurm saw (squeue while it goes on, sacct afterwards) and what tasks wrote, not what
//! dcluster says of itself.

use crate::site::{
    Site, bed, boot_node, kill, kill_node, kill_step_manager, node_is_back, slurm, start_controller, stop_controller,
    until,
};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Jobs there are at most.
const MAX: usize = 8;
/// Seconds of the long tasks; a job takes no task in the last 30 s of its 120.
const LONG: u32 = 30;
/// Seconds in which jobs without work must be gone: rent-or-buy of a price of 20 s or a little more, several times.
const DOWN: u64 = 90;

#[test]
fn a_day_that_follows_the_load() {
    let Some(_bed) = bed() else { return };
    let site = Site::new();
    let others = Others::new();
    let watch = Watch::begin(&site);
    // A job takes more than half of a node, so that a node that dies takes one job with it.
    let shape = ["--cores", "13", "--memory", "200MB", "--walltime", "2m"];
    site.ok(&[&["up", "--min", "0", "--max", &MAX.to_string()][..], &shape].concat());

    // A burst in the morning, a wave longer than a walltime leaves; the controller is away for a minute.
    let begun = watch.now();
    let mut tasks = vec![burst(&site, 40, 2, &[]), burst(&site, 56, LONG, &[])];
    until("long tasks run", 60, || (cut(&site.read("runs"), &[]).running > 8).then_some(()));
    let stopped = Instant::now();
    stop_controller();
    std::thread::sleep(Duration::from_secs(60).saturating_sub(stopped.elapsed()));
    start_controller();
    // One task is left that nothing runs beside.
    tasks.push(burst(&site, 1, 25, &[&tasks[1]]));
    finished(&site, &tasks[..2], 150);
    note("the burst is over", begun, &watch);
    let peak = watch.peak(begun);
    assert!(peak > MAX / 2, "{peak} jobs for a burst that would keep {MAX} busy\n{}", told(&site, &watch));
    finished(&site, &tasks[2..], 90);
    let tail = watch.last();
    note("the tail is over", begun, &watch);
    assert!(tail.all() <= MAX / 2, "one task held {tail:?}\n{}", told(&site, &watch));
    down_to_none(&site, &watch);
    note("jobs are gone", begun, &watch);

    // Noon: others have all nodes. Our jobs wait, and start when they go.
    others.fill(25);
    tasks.extend([burst(&site, 20, 2, &[]), burst(&site, 24, LONG, &[])]);
    until("jobs wait", 30, || (watch.last().pending > 0).then_some(()));
    until("the others are gone", 90, || (others.running() == 0).then_some(()));
    note("the others are gone", begun, &watch);

    // Afternoon: a node dies while a long task runs on it.
    let job = site.job_with("a job with a long task", 60, |job| {
        job["state"] == "up" && cut(&site.read("runs"), &[]).jobs.contains(job["name"].as_str().unwrap_or_default())
    });
    let (node, name) = (job["node"].as_str().unwrap().to_owned(), job["name"].as_str().unwrap().to_owned());
    crash(&site, &node, job["id"].as_str().unwrap());
    site.job_with("the node has failed", 120, |job| job["name"] == name && job["state"] == "ended");
    boot_node(&node);
    finished(&site, &tasks[3..], 180);
    note("the second burst is over", begun, &watch);
    down_to_none(&site, &watch);
    node_is_back(&node);
    note("jobs are gone again", begun, &watch);

    // What is left, and what has been.
    let story = told(&site, &watch);
    let status = site.status();
    let counts = &status["tasks"];
    assert_eq!((&counts["finished"], &counts["failed"]), (&141.into(), &0.into()), "{story}");
    let address = site.listening();
    site.ok(&["down"]);
    site.nothing_left(address);
    let seen = watch.samples.lock().unwrap().clone();
    assert!(seen.iter().all(|sample| sample.all() <= MAX), "more than {MAX} jobs\n{story}");
    let billed = accounts(&site);
    assert!(most_at_once(&billed) <= MAX, "{billed:?}\n{story}");
    let runs = cut(&site.read("runs"), std::slice::from_ref(&name));
    assert_eq!(runs.ended.len(), 141, "{story}");
    assert!(runs.ended.values().all(|times| *times == 1), "a task ran to its end twice\n{story}");
    assert!(runs.late.is_empty(), "cut by a walltime although the length was known: {:?}\n{story}", runs.late);
    // Nobody could tidy up on the node that died.
    let letters = name.split_once('-').unwrap().0;
    let left = files_left().into_iter().filter(|file| file.contains(letters));
    let (lost, left): (Vec<_>, Vec<_>) = left.partition(|file| file.contains(&name));
    for file in lost {
        std::fs::remove_dir_all(format!("/tmp/{file}")).unwrap();
    }
    assert!(left.is_empty(), "{left:?}");
    let nothing = billed.iter().filter(|job| !runs.jobs_of_ended.contains(&job.name)).count();
    let wall: u64 = billed.iter().map(|job| job.end.saturating_sub(job.start)).sum();
    let _ = writeln!(
        std::io::stderr(),
        "{} jobs, {nothing} ran nothing, {wall} job-seconds billed, {} runs cut in the first wave",
        billed.len(),
        runs.early
    );
}

/// Submits `count` tasks of so many seconds, which write when they began and ended, and returns their id.
fn burst(site: &Site, count: u32, seconds: u32, after: &[&str]) -> String {
    let script = format!(
        "me=\"{seconds} $DCLUSTER_TASK_ID $DCLUSTER_TASK_RUN $DCLUSTER_JOB\"; \
         echo start $me $(date +%s.%N) >> runs; sleep {seconds}; echo end $me $(date +%s.%N) >> runs"
    );
    let array = format!("1-{count}");
    let after: Vec<&str> = after.iter().flat_map(|id| ["--after", id]).collect();
    // Two fit a job.
    let words = [&["submit", "--cores", "6", "--array", &array][..], &after, &["--", "bash", "-c", &script]].concat();
    site.ok(&words).trim().to_owned()
}

/// Waits for tasks, all of which must finish.
fn finished(site: &Site, ids: &[String], seconds: u64) {
    let limit = format!("{seconds}s");
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    site.ok(&[&["wait", "--timeout", &limit][..], &ids].concat());
}

fn down_to_none(site: &Site, watch: &Watch) {
    let since = Instant::now();
    while site.queued() > 0 {
        assert!(since.elapsed().as_secs() < DOWN, "jobs without work\n{}", told(site, watch));
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Takes a node away with all that runs on it.
fn crash(site: &Site, node: &str, id: &str) {
    kill_node(node);
    kill_step_manager(id);
    for (pid, _) in site.processes() {
        let environment = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap_or_default();
        if environment.split('\0').any(|line| line == format!("SLURMD_NODENAME={node}")) {
            kill(pid, "KILL");
        }
    }
}

/// What the tasks wrote.
#[derive(Default, Debug)]
struct Runs {
    /// Long runs that have begun and not ended.
    running: usize,
    /// Jobs of those.
    jobs: BTreeSet<String>,
    /// Tasks, with how often they ran to their end.
    ended: BTreeMap<String, u32>,
    jobs_of_ended: BTreeSet<String>,
    /// Runs without an end that began before any task of their length had ended.
    early: usize,
    /// The others without an end.
    late: Vec<String>,
}

/// Reads what tasks wrote; runs in the jobs of `lost` may have no end.
fn cut(text: &str, lost: &[String]) -> Runs {
    let mut runs = Runs::default();
    let mut open: BTreeMap<Vec<&str>, f64> = BTreeMap::new();
    let mut first_end: BTreeMap<&str, f64> = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        // A line that is being written.
        let [what, seconds, task, run, job, at] = words[..] else { continue };
        let at: f64 = at.parse().unwrap();
        let key = vec![seconds, task, run, job];
        if what == "start" {
            open.insert(key, at);
        } else {
            open.remove(&key);
            *runs.ended.entry(task.to_owned()).or_default() += 1;
            runs.jobs_of_ended.insert(job.to_owned());
            first_end.entry(seconds).or_insert(at);
        }
    }
    for (key, began) in open {
        let [seconds, _, _, job] = key[..] else { continue };
        if seconds == LONG.to_string() {
            runs.running += 1;
            runs.jobs.insert(job.to_owned());
        }
        if lost.iter().any(|lost| lost == job) {
            continue;
        }
        if first_end.get(seconds).is_none_or(|end| began < *end) {
            runs.early += 1;
        } else {
            runs.late.push(format!("{} began at {began:.0}", key.join(" ")));
        }
    }
    runs
}

/// Jobs at one moment, as squeue shows them.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Seconds since the watch began.
    at: f64,
    pending: usize,
    running: usize,
}

impl Sample {
    fn all(&self) -> usize {
        self.pending + self.running
    }
}

/// Asks squeue all the time.
struct Watch {
    begun: Instant,
    samples: Arc<Mutex<Vec<Sample>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    fn begin(site: &Site) -> Self {
        let (samples, over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let begun = Instant::now();
        let mut squeue = site.command("/usr/bin/squeue");
        squeue.args(["-h", "-r", "--me", "-t", "PD,CF,R", "-o", "%T"]).stderr(Stdio::null());
        let (into, stop) = (samples.clone(), over.clone());
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let output = squeue.output().unwrap();
                // The controller is away for a while.
                if output.status.success() {
                    let text = String::from_utf8(output.stdout).unwrap();
                    let pending = text.lines().filter(|state| *state == "PENDING").count();
                    let running = text.lines().count() - pending;
                    into.lock().unwrap().push(Sample { at: begun.elapsed().as_secs_f64(), pending, running });
                }
                std::thread::sleep(Duration::from_millis(300));
            }
        });
        Self { begun, samples, over, thread: Some(thread) }
    }
    fn now(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }
    fn last(&self) -> Sample {
        self.samples.lock().unwrap().last().copied().unwrap_or(Sample { at: 0.0, pending: 0, running: 0 })
    }
    fn peak(&self, since: f64) -> usize {
        self.samples.lock().unwrap().iter().filter(|sample| sample.at >= since).map(Sample::all).max().unwrap_or(0)
    }
    /// The samples at which something changed, a line each.
    fn story(&self) -> String {
        let mut lines = String::new();
        let mut last = (0, 0);
        for sample in self.samples.lock().unwrap().iter() {
            if (sample.pending, sample.running) != last {
                last = (sample.pending, sample.running);
                lines.push_str(&format!("{:6.1} s  {} pending, {} running\n", sample.at, last.0, last.1));
            }
        }
        lines
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Another user of the cluster.
struct Others {
    name: String,
}

impl Others {
    fn new() -> Self {
        Self { name: std::env::var("SLURM_BED_OTHER").unwrap_or_else(|_| "hpc2".to_owned()) }
    }
    /// Takes every node for so many seconds.
    fn fill(&self, seconds: u32) {
        let wrap = format!("--wrap=sleep {seconds}");
        let mut sbatch = Command::new("/usr/bin/setpriv");
        sbatch.args(["--reuid", &self.name, "--regid", &self.name, "--init-groups", "sbatch", "--exclusive"]);
        sbatch.args(["--nodes=1", "--time=5", "--array=1-16", "--chdir=/", "--output=/dev/null", &wrap]);
        let output = sbatch.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        until("the partition is full", 60, || (self.running() == 16).then_some(()));
    }
    fn running(&self) -> usize {
        slurm(&["squeue", "-h", "-r", "-u", &self.name, "-t", "R", "-o", "%i"]).lines().count()
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        let _ = Command::new("scancel").args(["-u", &self.name]).status();
    }
}

/// A job as it was accounted for, its times in seconds since 1970.
#[derive(Debug)]
struct Billed {
    name: String,
    submitted: u64,
    start: u64,
    end: u64,
}

/// What sacct knows of the cluster's jobs.
fn accounts(site: &Site) -> Vec<Billed> {
    let user = std::env::var("SLURM_BED_USER").unwrap_or_else(|_| "hpc".to_owned());
    let mut sacct = Command::new("sacct");
    sacct.env("SLURM_TIME_FORMAT", "%s").args(["-X", "-n", "-P", "-u", &user, "-S", "now-1hours"]);
    let output = sacct.args(["-o", "JobName,Submit,Start,End,State"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let mut found = Vec::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let fields: Vec<&str> = line.split('|').collect();
        if !fields[0].starts_with(&site.letters()) {
            continue;
        }
        let end = fields[3].parse().unwrap_or_else(|_| panic!("it is not over: {line}"));
        // A job that was cancelled while pending never started.
        let start = fields[2].parse().unwrap_or(end);
        found.push(Billed { name: fields[0].to_owned(), submitted: fields[1].parse().unwrap(), start, end });
    }
    found
}

/// Jobs that were pending or running at once, at most; one that ends within a second makes room in it.
fn most_at_once(jobs: &[Billed]) -> usize {
    let at = |moment: u64| jobs.iter().filter(|job| job.submitted <= moment && moment < job.end).count();
    jobs.iter().map(|job| at(job.submitted)).max().unwrap_or(0)
}

/// Names in /tmp.
fn files_left() -> Vec<String> {
    let entries = std::fs::read_dir("/tmp").unwrap().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// All that helps to see why.
fn told(site: &Site, watch: &Watch) -> String {
    let adapt = site.run(&["adapt"]).out;
    format!("{}\n{adapt}\n{}", watch.story(), site.story())
}

fn note(what: &str, since: f64, watch: &Watch) {
    // Captured by the test runner unless it fails or --nocapture is given.
    let _ = writeln!(std::io::stderr(), "{:6.1} s: {what}; {:?}", watch.now() - since, watch.last());
}
