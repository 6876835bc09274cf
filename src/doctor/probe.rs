//! The probe: what the doctor's job does on its node, in place of a worker. It notes what it sees there, tries every
//! address of the doctor's host, and then waits to be cancelled, noting each signal. Its notes are lines of JSON in
//! a file of the job's folder, which the doctor reads as they come: a folder that is not shared shows by itself.

use super::greeting::{FRAME_BYTES_MAX, Greeting};
use super::host::{Limits, Place};
use crate::cluster::{Access, Folder};
use crate::config::host;
use crate::error::{Kind, Problem};
use crate::runtime::dial::dial;
use crate::runtime::ids::JobName;
use crate::runtime::transport::{Channel, Role};
use crate::server::clock;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// File of the cluster folder that says whose probe this is; while it is there the probe goes on.
pub const MARK: &str = "probe";
/// A probe that nobody cancels ends by itself.
const LIFE: Duration = Duration::from_secs(120);
/// How often it looks whether it is still wanted.
const LOOK: Duration = Duration::from_secs(1);
/// After the first signal it stays so long to see others.
const LINGER: Duration = Duration::from_secs(1);
/// Most bytes of notes that are read.
const NOTES_BYTES_MAX: u64 = 256 << 10;
/// Signals by which batch systems announce an end, and what they are called.
const SIGNALS: &[(i32, &str)] = &[
    (libc::SIGHUP, "HUP"),
    (libc::SIGINT, "INT"),
    (libc::SIGQUIT, "QUIT"),
    (libc::SIGTERM, "TERM"),
    (libc::SIGUSR1, "USR1"),
    (libc::SIGUSR2, "USR2"),
    (libc::SIGXCPU, "XCPU"),
];

/// What a probe notes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Note {
    /// It runs.
    Started(Box<Started>),
    /// What came of one address.
    Address(Reached),
    /// All is noted; it waits to be cancelled.
    Ready,
    /// A signal came.
    Signal {
        /// Its name, without SIG.
        name: String,
    },
    /// It ends by itself.
    Left,
}

/// What a probe sees first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Started {
    /// The node.
    pub host: String,
    /// Cores it may use.
    pub cores: u32,
    /// Bytes of memory it may use.
    pub memory_bytes: Option<u64>,
    /// Its limits.
    pub limits: Limits,
    /// The user's home there.
    pub home: Option<Place>,
    /// The node's folder for temporary files.
    pub temporary: Place,
    /// Milliseconds since 1970 by the node's clock.
    pub wall_milliseconds: u64,
}

/// What came of one address.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reached {
    /// The address.
    pub address: SocketAddr,
    /// What it said, when it could not be reached.
    pub refused: Option<String>,
    /// How long it took.
    pub milliseconds: u64,
    /// The doctor's clock less the node's.
    pub skew_milliseconds: Option<i64>,
}

/// Whether a cluster folder is a doctor's.
pub fn is_probe(folder: &Folder) -> bool {
    folder.path().join(MARK).exists()
}

/// Returns the file of a job's notes.
pub fn notes_file(folder: &Folder, job: &JobName) -> PathBuf {
    folder.job_folder(job.as_str()).join(MARK)
}

/// Reads the notes that are there; a line that is not whole yet is left out.
pub fn read_notes(path: &Path) -> Vec<Note> {
    let mut text = Vec::new();
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    if let Ok(file) = opened {
        // What was read before an error is still true.
        let _ = file.take(NOTES_BYTES_MAX).read_to_end(&mut text);
    }
    text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

/// Runs the probe in its job.
///
/// # Errors
///
/// If its notes cannot be written.
pub fn run(folder: &Folder, job: &JobName, home: Option<&Path>, temporary: &Path) -> Result<u8, Problem> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Problem::new(Kind::Internal, "cannot start the event loop").says(error.to_string()))?;
    let path = notes_file(folder, job);
    let failed = |error: io::Error| {
        Problem::new(Kind::Unreachable, format!("cannot write {}", path.display())).says(error.to_string())
    };
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let notes = Notes(options.open(&path).map_err(failed)?);
    let access = folder.access(Role::Worker)?;
    runtime.block_on(probe(folder, notes, access, home, temporary)).map_err(failed)?;
    Ok(0)
}

struct Notes(File);

impl Notes {
    fn add(&mut self, note: &Note) -> io::Result<()> {
        let mut line = serde_json::to_vec(note)?;
        line.push(b'\n');
        // Synced: what a kill without a warning leaves is what there is to see.
        self.0.write_all(&line).and_then(|()| self.0.sync_data())
    }
}

async fn probe(
    folder: &Folder,
    mut notes: Notes,
    access: Access,
    home: Option<&Path>,
    temporary: &Path,
) -> io::Result<()> {
    let mut signals = signals()?;
    notes.add(&Note::Started(Box::new(Started {
        host: clock::host(),
        cores: host::cores(),
        memory_bytes: host::memory_bytes(),
        limits: Limits::of_process(),
        home: home.filter(|home| home.is_dir()).map(Place::of),
        temporary: Place::of(temporary),
        wall_milliseconds: clock::now().wall,
    })))?;
    let begun = Instant::now();
    let tries = access.addresses.iter().map(|address| reach(&access, *address));
    let mut tries: FuturesUnordered<_> = tries.collect();
    loop {
        tokio::select! {
            reached = tries.next() => match reached {
                Some(reached) => notes.add(&Note::Address(reached))?,
                None => break,
            },
            Some(name) = signals.recv() => return linger(name, signals, notes).await,
        }
    }
    notes.add(&Note::Ready)?;
    while begun.elapsed() < LIFE && is_probe(folder) {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            Some(name) = signals.recv() => return linger(name, signals, notes).await,
        }
    }
    notes.add(&Note::Left)
}

/// Notes a signal and those that come soon after it.
async fn linger(first: &'static str, mut signals: mpsc::Receiver<&'static str>, mut notes: Notes) -> io::Result<()> {
    notes.add(&Note::Signal { name: first.to_owned() })?;
    let until = tokio::time::Instant::now() + LINGER;
    while let Ok(Some(name)) = tokio::time::timeout_at(until, signals.recv()).await {
        notes.add(&Note::Signal { name: name.to_owned() })?;
    }
    Ok(())
}

fn signals() -> io::Result<mpsc::Receiver<&'static str>> {
    let (to, from) = mpsc::channel(SIGNALS.len());
    for (number, name) in SIGNALS {
        let mut stream = signal(SignalKind::from_raw(*number))?;
        let to = to.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                if to.send(*name).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(from)
}

async fn reach(access: &Access, address: SocketAddr) -> Reached {
    let one = Access {
        id: access.id.clone(),
        authority: access.authority.clone(),
        credential: access.credential.clone(),
        addresses: vec![address],
        host: access.host.clone(),
        pid: access.pid,
    };
    let begun = Instant::now();
    let greeted = async {
        let (stream, _) = dial(&one, None).await?;
        let before = clock::now().wall;
        let mut channel = Channel::new(stream, FRAME_BYTES_MAX);
        let greeting = channel.receive::<Greeting>().await?.unwrap_or_default().into_iter().next();
        let greeting = greeting.ok_or(io::ErrorKind::UnexpectedEof)?;
        let signed = |time: u64| i64::try_from(time).unwrap_or(i64::MAX);
        Ok::<_, io::Error>(signed(greeting.wall_milliseconds) - signed(before).midpoint(signed(clock::now().wall)))
    };
    let greeted = greeted.await;
    Reached {
        address,
        milliseconds: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        skew_milliseconds: greeted.as_ref().ok().copied(),
        // `dial` says the address, too.
        refused: greeted.err().map(|error| {
            let text = error.to_string();
            text.strip_prefix(&format!("{address}: ")).unwrap_or(&text).to_owned()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::greeting;
    use super::*;
    use crate::config::spec::{BackendKind, PoolSpec, Spec};
    use crate::runtime::ids::JobSeq;

    fn cluster(state: &Path) -> (Folder, crate::cluster::Identity, JobName) {
        let spec = Spec::new(BackendKind::Local, PoolSpec::new(1));
        let folder = Folder::of(state, ".doctor-test");
        folder.create(&spec, b"").unwrap();
        folder.write(MARK, b"").unwrap();
        let identity = folder.open().unwrap();
        let job = JobName::new(&identity.letters, JobSeq(1));
        std::fs::create_dir(folder.job_folder(job.as_str())).unwrap();
        (folder, identity, job)
    }

    #[tokio::test]
    async fn notes_what_it_sees_and_leaves_when_nobody_wants_it() {
        let state = tempfile::tempdir().unwrap();
        std::fs::set_permissions(state.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let (folder, identity, job) = cluster(state.path());
        let (addresses, _greeters) = greeting::open(&folder, &identity).await.unwrap();
        // One that nobody listens on, beside the right one.
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut access = folder.access(Role::Worker).unwrap();
        access.addresses.push(closed);
        let path = notes_file(&folder, &job);
        let notes = Notes(OpenOptions::new().append(true).create(true).open(&path).unwrap());
        let wanted = async {
            while !read_notes(&path).contains(&Note::Ready) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            std::fs::remove_file(folder.path().join(MARK)).unwrap();
        };
        let done = tokio::time::timeout(Duration::from_secs(60), async {
            tokio::join!(probe(&folder, notes, access, None, state.path()), wanted).0
        });
        done.await.expect("in time").unwrap();
        let notes = read_notes(&path);
        assert!(
            matches!(&notes[0], Note::Started(started) if started.cores > 0 && started.home.is_none()),
            "{notes:?}"
        );
        let reached = |wanted: SocketAddr| {
            notes.iter().find_map(|note| match note {
                Note::Address(reached) if reached.address == wanted => Some(reached.clone()),
                _ => None,
            })
        };
        let good = reached(addresses[0]).unwrap();
        assert!(good.refused.is_none() && good.skew_milliseconds.unwrap().abs() < 60_000, "{good:?}");
        let bad = reached(closed).unwrap();
        assert!(bad.skew_milliseconds.is_none() && bad.refused.unwrap().contains("refused"));
        assert_eq!(notes.last(), Some(&Note::Left));
    }

    #[test]
    fn notes_are_read_as_far_as_they_are_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("probe");
        assert_eq!(read_notes(&path), []);
        std::fs::write(&path, "\"ready\"\n{\"signal\":{\"name\":\"TERM\"}}\nrubbish\n\"le").unwrap();
        assert_eq!(read_notes(&path), [Note::Ready, Note::Signal { name: "TERM".into() }]);
    }
}
