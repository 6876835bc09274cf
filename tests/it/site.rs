//! An ordinary user of a real batch system with our program: a folder that all nodes see, and what the user types.
//!
//! The beds are those of `tests/clusters/`; there is one of each kind, so its tests run one after the other.

use crate::programs;
use serde_json::Value;
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

static BED: Mutex<()> = Mutex::new(());

/// A variable's value that a task must see as it is.
pub(crate) const ODD: &str = "two  words, 'quotes', $HOME\nand a line";

/// Whoever holds it has a system for one test alone.
pub(crate) type Guard = Box<dyn std::any::Any>;

/// A batch system, as a user's tests need it.
pub(crate) struct System {
    /// Our name of it.
    pub(crate) name: &'static str,
    /// Its command that submits.
    pub(crate) submit: &'static str,
    /// Its command that lists.
    pub(crate) list: &'static str,
    /// Takes it for one test alone; `None` where there is none to test on.
    pub(crate) bed: fn() -> Option<Guard>,
    /// Variables that its commands need.
    pub(crate) variables: &'static [&'static str],
    /// Folder of its commands, where that is none of the usual ones.
    pub(crate) commands: fn() -> Option<PathBuf>,
    /// The ordinary user.
    pub(crate) user: fn() -> String,
    /// That user's jobs that are not over: lines of id, name and state.
    pub(crate) queue: fn() -> String,
    /// The command that cancels a job.
    pub(crate) cancel: &'static str,
    /// The directive by which a job is held; empty where there is none.
    pub(crate) hold: &'static str,
}

pub(crate) static SLURM: System = System {
    name: "slurm",
    submit: "sbatch",
    list: "squeue",
    bed: || Some(Box::new(bed()?)),
    variables: &["SLURM_CONF"],
    commands: || None,
    user,
    queue,
    cancel: "scancel",
    hold: "--hold",
};

/// Takes the Slurm for this test alone; `None`, said on stderr, where there is none to test on.
pub(crate) fn bed() -> Option<MutexGuard<'static, ()>> {
    let asked = std::env::var_os("DCLUSTER_TEST_SLURM").is_some_and(|v| v == "1");
    if !asked || std::env::var_os("SLURM_CONF").is_none() {
        #[expect(clippy::print_stderr, reason = "a skipped test must say so")]
        {
            eprintln!("skipped: DCLUSTER_TEST_SLURM=1 and SLURM_CONF are not set");
        }
        return None;
    }
    Some(BED.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The folder of the bed.
pub(crate) fn bed_folder() -> PathBuf {
    let conf = std::env::var("SLURM_CONF").unwrap();
    Path::new(&conf).ancestors().nth(2).unwrap().to_owned()
}

/// Whether jobs live in cgroups, so that memory is enforced.
pub(crate) fn has_cgroups() -> bool {
    std::fs::read_to_string(bed_folder().join("etc/slurm.conf")).unwrap().contains("proctrack/cgroup")
}

/// Runs a command of Slurm as root, and returns what it prints.
pub(crate) fn slurm(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Ends the daemon of a node, as a crash would.
pub(crate) fn kill_node(node: &str) {
    let pid = std::fs::read_to_string(bed_folder().join(format!("run/slurmd-{node}.pid"))).unwrap();
    kill(pid.trim().parse().unwrap(), "KILL");
}

/// Ends the controller in order: killed, it would forget what it did last.
pub(crate) fn stop_controller() {
    let pid = std::fs::read_to_string(bed_folder().join("run/slurmctld.pid")).unwrap();
    kill(pid.trim().parse().unwrap(), "TERM");
    let exe = format!("/proc/{}/exe", pid.trim());
    until("the controller is down", 60, || std::fs::read_link(&exe).is_err().then_some(()));
}

pub(crate) fn start_controller() {
    slurm(&["slurmctld"]);
    until("the controller is back", 60, || {
        Command::new("scontrol").arg("ping").output().unwrap().status.success().then_some(())
    });
}

/// Starts the daemon of a node, and waits until the node can be used.
pub(crate) fn start_node(node: &str) {
    boot_node(node);
    node_is_back(node);
}

/// Starts the daemon of a node as `tests/clusters/slurm/up` does.
pub(crate) fn boot_node(node: &str) {
    let script = "hostname \"$1\" && mount --bind \"$2\" /etc/hosts && exec slurmd -N \"$1\"";
    let hosts = bed_folder().join("etc/hosts");
    let hosts = hosts.to_str().unwrap();
    slurm(&["unshare", "--uts", "--mount", "--propagation", "slave", "sh", "-c", script, "slurmd", node, hosts]);
}

pub(crate) fn node_is_back(node: &str) {
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut nudge = Instant::now() + Duration::from_secs(20);
    loop {
        let shown = slurm(&["scontrol", "show", "node", node]);
        let state = shown.split_once("State=").map_or("", |(_, rest)| rest.split_whitespace().next().unwrap_or(""));
        // A job of ours may be there already.
        if ["IDLE", "MIXED", "ALLOCATED"].contains(&state) {
            return;
        }
        assert!(Instant::now() < deadline, "{node} is not back within 120 s:\n{shown}");
        if Instant::now() >= nudge {
            // A job that ran there may be completing for minutes, until the new daemon is asked for it. That is what
            // administrators do about it.
            let node = format!("nodename={node}");
            slurm(&["scontrol", "update", &node, "state=down", "reason=test"]);
            slurm(&["scontrol", "update", &node, "state=resume"]);
            nudge += Duration::from_secs(20);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Ends the step manager of a job, which would tell the controller of the script's end.
pub(crate) fn kill_step_manager(id: &str) {
    let conf = std::env::var("SLURM_CONF").unwrap();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let read = |name: &str| {
            String::from_utf8_lossy(&std::fs::read(entry.path().join(name)).unwrap_or_default()).into_owned()
        };
        if read("cmdline").starts_with(&format!("slurmstepd: [{id}.")) && read("environ").contains(&conf) {
            kill(entry.file_name().to_string_lossy().parse().unwrap(), "KILL");
        }
    }
}

pub(crate) fn kill(pid: u32, signal: &str) {
    // It may have ended by itself.
    let _ = Command::new("kill").args(["-s", signal, &pid.to_string()]).stderr(Stdio::null()).status();
}

/// Waits for a condition.
pub(crate) fn until<T>(what: &str, seconds: u64, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {seconds} s: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A folder of the user.
pub(crate) struct Site {
    _outer: tempfile::TempDir,
    pub(crate) folder: PathBuf,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) system: &'static System,
}

impl Site {
    /// A user of Slurm.
    pub(crate) fn new() -> Self {
        Self::on(&SLURM)
    }
    pub(crate) fn on(system: &'static System) -> Self {
        let outer = tempfile::Builder::new().prefix("days.").tempdir_in("/var/tmp").unwrap();
        let folder = outer.path().to_owned();
        let open = |path: &Path| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        open(&folder);
        std::fs::create_dir(folder.join("shims")).unwrap();
        programs::copy(Path::new(env!("CARGO_BIN_EXE_dcluster")), &folder.join("dcluster"));
        let user = nix::unistd::User::from_name(&(system.user)()).unwrap().unwrap();
        for name in ["", "shims", "home"] {
            std::fs::create_dir_all(folder.join(name)).unwrap();
            open(&folder.join(name));
            chown(folder.join(name), Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
        }
        let site = Self { _outer: outer, folder, environment: Vec::new(), system };
        if !system.submit.is_empty() {
            site.shim(system.submit, "");
        }
        site
    }
    /// Puts a program of this name before the real one on the PATH: it counts its calls, then runs `body`,
    /// then becomes the real one.
    pub(crate) fn shim(&self, program: &str, body: &str) {
        let calls = self.folder.join(format!("home/calls.{program}"));
        let calls = calls.display();
        let real = self.real(program);
        let script = format!("#!/bin/bash\necho \"$*\" >> {calls}\n{body}\nexec {real} \"$@\"\n");
        // Renamed into place: a script that runs must not change under the shell's feet.
        let path = self.folder.join("shims").join(program);
        let new = path.with_extension("new");
        programs::write(&new, &script);
        std::fs::rename(new, path).unwrap();
    }
    /// Path of a command of the system.
    pub(crate) fn real(&self, program: &str) -> String {
        let own = (self.system.commands)().map(|folder| folder.to_str().unwrap().to_owned());
        let usual = ["/usr/local/bin", "/usr/bin", "/bin"].map(str::to_owned);
        let paths = own.into_iter().chain(usual).map(|folder| format!("{folder}/{program}"));
        paths.into_iter().find(|path| Path::new(path).exists()).unwrap()
    }
    /// What the user has on the PATH.
    pub(crate) fn path(&self) -> String {
        let own = (self.system.commands)().map(|folder| format!("{}:", folder.display())).unwrap_or_default();
        format!("{}:{own}/usr/local/bin:/usr/bin:/bin", self.folder.join("shims").display())
    }
    /// How often a program with a shim was called.
    pub(crate) fn calls(&self, program: &str) -> usize {
        let calls = self.folder.join(format!("home/calls.{program}"));
        std::fs::read_to_string(calls).unwrap_or_default().lines().count()
    }
    /// A command of the user, in the user's home.
    pub(crate) fn command(&self, program: &str) -> Command {
        let uid = nix::unistd::geteuid();
        let own = nix::unistd::User::from_uid(uid).unwrap().is_some_and(|own| own.name == (self.system.user)());
        let mut command = Command::new(if own { program } else { "/usr/bin/setpriv" });
        let home = self.folder.join("home");
        let user = (self.system.user)();
        if !own {
            command.args(["--reuid", &user, "--regid", &user, "--init-groups", program]);
        }
        command.env_clear();
        command.env("HOME", &home).env("USER", user).env("PATH", self.path());
        command.envs(self.system.variables.iter().map(|name| (name, std::env::var_os(name).unwrap())));
        command.env("DCLUSTER_STATE", home.join("state")).env("DCLUSTER_BACKEND", self.system.name);
        command.env("DCLUSTER_ADDRESS", "127.0.0.1");
        command.envs(self.environment.iter().map(|(k, v)| (k, v)));
        command.current_dir(home).stdin(Stdio::null());
        command
    }
    /// `dcluster WORDS`, ready to run.
    pub(crate) fn dcluster(&self, words: &[&str]) -> Command {
        let mut command = self.command(self.folder.join("dcluster").to_str().unwrap());
        command.args(words);
        command
    }
    /// Runs `dcluster WORDS`.
    pub(crate) fn run(&self, words: &[&str]) -> Ran {
        let output = self.dcluster(words).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }
    /// Runs `dcluster WORDS`, which must succeed, and returns what it prints.
    pub(crate) fn ok(&self, words: &[&str]) -> String {
        let ran = self.run(words);
        assert_eq!(ran.code, 0, "{words:?}: {ran:?}\n{}", self.story());
        ran.out
    }
    /// `dcluster up` with a small job of so much time, and more.
    pub(crate) fn up(&self, more: &[&str]) {
        self.ok(&[&["up", "--cores", "1", "--memory", "200MB"], more].concat());
    }
    /// Starts a command whose output is read at its end.
    pub(crate) fn spawn(&self, words: &[&str]) -> Child {
        self.dcluster(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }
    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.ok(&["status", "--json"])).unwrap()
    }
    /// The last job of which this is true.
    pub(crate) fn job(&self, pick: impl Fn(&Value) -> bool) -> Option<Value> {
        self.status()["jobs"].as_array().unwrap().iter().rfind(|job| pick(job)).cloned()
    }
    /// Waits for a job of which this is true.
    pub(crate) fn job_with(&self, what: &str, seconds: u64, pick: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        loop {
            if let Some(job) = self.job(&pick) {
                return job;
            }
            assert!(Instant::now() < deadline, "not within {seconds} s: {what}\n{}", self.story());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    /// Waits for a job in this state.
    pub(crate) fn job_in(&self, state: &str) -> Value {
        self.job_with(state, 60, |job| job["state"] == state)
    }
    pub(crate) fn task(&self, id: &str) -> Value {
        serde_json::from_str(&self.ok(&["tasks", "--json", id])).unwrap()
    }
    /// Waits until a task is in this state.
    pub(crate) fn task_in(&self, id: &str, state: &str) -> Value {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let task = self.task(id);
            if task["state"] == state {
                return task;
            }
            assert!(Instant::now() < deadline, "task {id} is not {state}: {task}\n{}", self.story());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    /// Submits a shell script as a task and returns its id.
    pub(crate) fn submit(&self, script: &str) -> String {
        self.ok(&["submit", "--", "bash", "-c", script]).trim().to_owned()
    }
    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.join("home").join(name)).unwrap_or_default()
    }
    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.join("home").join(name), text).unwrap();
    }
    /// What has happened, for the message of a failed test.
    pub(crate) fn story(&self) -> String {
        let text =
            |words: &[&str]| String::from_utf8_lossy(&self.dcluster(words).output().unwrap().stdout).into_owned();
        let log = self.read("state/default/server.log");
        let log = log.lines().rev().take(15).collect::<Vec<_>>().join("\n");
        format!("{}\n{}\nlast lines of server.log, newest first:\n{log}", text(&["status", "-v"]), text(&["events"]))
    }
    /// Lines of the private keys of the cluster.
    fn secrets(&self) -> Vec<String> {
        let mut secrets = Vec::new();
        for name in ["ca.key", "access", "worker"] {
            let text = self.read(&format!("state/default/{name}")).replace("\\n", "\n");
            let mut inside = false;
            for line in text.lines() {
                inside |= line.contains("BEGIN PRIVATE KEY");
                if inside && !line.contains("-----") {
                    secrets.push(line.to_owned());
                }
                inside &= !line.contains("END PRIVATE KEY");
            }
        }
        assert!(secrets.len() >= 3 && secrets.iter().all(|line| line.len() > 20), "{secrets:?}");
        secrets
    }
    /// Asserts that what others can read, these texts and how our processes were started, holds no private key, and
    /// the texts nothing of the environment that [`ODD`] was put into.
    pub(crate) fn nobody_reads_secrets(&self, public: &[&str]) {
        let mut read: Vec<_> = public.iter().map(|text| (*text).to_owned()).collect();
        assert!(read.iter().all(|text| !text.contains("two  words")), "{read:?}");
        for (pid, line) in self.processes() {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            read.extend([line, String::from_utf8_lossy(&environment).into_owned()]);
        }
        let kept = |secret: &String| read.iter().all(|text| !text.contains(secret));
        assert!(self.secrets().iter().all(kept));
    }
    /// Takes the cluster down; nothing of it may be left.
    pub(crate) fn down(&self) {
        let address = self.listening();
        self.ok(&["down"]);
        self.nothing_left(address);
    }
    /// Where the server listens.
    pub(crate) fn listening(&self) -> String {
        let access: Value = serde_json::from_str(&self.read("state/default/access")).unwrap();
        access["addresses"][0].as_str().unwrap().to_owned()
    }
    /// The beginning of the names of the cluster's jobs.
    pub(crate) fn letters(&self) -> String {
        let id: Value = serde_json::from_str(&self.read("state/default/id")).unwrap_or_default();
        format!("dc{}-", id["letters"].as_str().unwrap_or("????"))
    }
    /// Jobs of the cluster that the system lists as not over.
    pub(crate) fn queued(&self) -> usize {
        let letters = self.letters();
        (self.system.queue)().lines().filter(|line| line.contains(&letters)).count()
    }
    /// Asserts that no job, no process and no listener is left.
    pub(crate) fn nothing_left(&self, address: String) {
        assert_eq!(self.queued(), 0, "{}", (self.system.queue)());
        until(&format!("no process left: {:?}", self.processes()), 5, || self.processes().is_empty().then_some(()));
        assert!(TcpStream::connect(address).is_err());
    }
    /// Processes that know this folder: number and command line.
    pub(crate) fn processes(&self) -> Vec<(u32, String)> {
        let folder = self.folder.to_str().unwrap();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
            let text = |name: &str| {
                let bytes = std::fs::read(entry.path().join(name)).unwrap_or_default();
                String::from_utf8_lossy(&bytes).replace('\0', " ")
            };
            let line = text("cmdline");
            // Slurm's own step manager names the folder too.
            let ours = line.contains(folder) || text("environ").contains(folder);
            if ours && !line.is_empty() && !line.starts_with("slurmstepd") {
                found.push((pid, line));
            }
        }
        found
    }
    /// The process of our program whose command line contains this.
    pub(crate) fn process(&self, what: &str) -> u32 {
        let processes = self.processes();
        let program = self.folder.join("dcluster").display().to_string();
        let found = processes.iter().find(|(_, line)| line.starts_with(&program) && line.contains(what));
        found.unwrap_or_else(|| panic!("no process {what} in {processes:?}")).0
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // After a failure; the folder can be deleted once nothing writes into it. Servers go before jobs, which
        // they would replace.
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let processes = self.processes();
            let jobs = (self.system.queue)();
            if processes.is_empty() && !jobs.contains(&self.letters()) || Instant::now() > deadline {
                return;
            }
            for (pid, _) in processes {
                kill(pid, "KILL");
            }
            let ids =
                jobs.lines().filter(|line| line.contains(&self.letters())).filter_map(|line| line.split(' ').next());
            for id in ids {
                let _ = Command::new(self.system.cancel).arg(id).stdout(Stdio::null()).status();
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Jobs of the user that are not over.
fn queue() -> String {
    let output = Command::new("squeue").args(["-h", "-r", "-u", &user(), "-o", "%i %j %T"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn user() -> String {
    std::env::var("SLURM_BED_USER").unwrap_or_else(|_| "hpc".to_owned())
}
