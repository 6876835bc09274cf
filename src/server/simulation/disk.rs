//! The simulated disk as one server process sees it: the process may be killed before any of its file
//! operations, and stopped in the middle of a piece of work while others go on.

use super::simdisk::{SimDisk, SimFile, World as DiskWorld};
use crate::runtime::disk::{Disk, DiskFile};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

#[derive(Default)]
struct State {
    /// Operations until the process is stopped, or killed.
    stop_in: Option<u32>,
    kill_in: Option<u32>,
    stopped: bool,
    dead: bool,
    finished: bool,
    /// The operation before which it was stopped.
    before: String,
}

#[derive(Default)]
struct Signals {
    state: Mutex<State>,
    changed: Condvar,
}

impl Signals {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&'a self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Every operation passes here.
    fn enter(&self, what: &str, path: &str) -> io::Result<()> {
        let mut state = self.lock();
        if let Some(left) = &mut state.stop_in {
            if *left > 0 {
                *left -= 1;
            } else {
                state.stop_in = None;
                state.stopped = true;
                state.before = format!("{what} {path}");
                self.changed.notify_all();
                while state.stopped {
                    state = self.wait(state);
                }
            }
        }
        match &mut state.kill_in {
            Some(0) => state.dead = true,
            Some(left) => *left -= 1,
            None => {}
        }
        if state.dead { Err(io::Error::other("killed")) } else { Ok(()) }
    }
}

/// The disk of a process.
#[derive(Clone)]
pub(super) struct ProcessDisk {
    inner: SimDisk,
    signals: Arc<Signals>,
}

/// A file it has open.
pub(super) struct ProcessFile {
    inner: SimFile,
    signals: Arc<Signals>,
    path: String,
}

/// Work that was stopped in its middle.
pub(super) type Halted<T> = JoinHandle<T>;

/// What came of a piece of work.
pub(super) enum Work<T> {
    Done(T),
    Halted(Halted<T>),
}

struct Finish(Arc<Signals>);
impl Drop for Finish {
    fn drop(&mut self) {
        self.0.lock().finished = true;
        self.0.changed.notify_all();
    }
}

impl ProcessDisk {
    pub(super) fn new(world: Arc<Mutex<DiskWorld>>, host: u8) -> Self {
        Self { inner: SimDisk { world, client: host, gate: None }, signals: Arc::default() }
    }

    /// Does some work, which is stopped before its operation number `stop_in`, or killed.
    pub(super) fn run<T: Send + 'static>(
        &self,
        stop_in: Option<u32>,
        kill_in: Option<u32>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Work<T> {
        self.signals.lock().kill_in = kill_in;
        if stop_in.is_none() {
            return Work::Done(work());
        }
        {
            let mut state = self.signals.lock();
            (state.stop_in, state.finished) = (stop_in, false);
        }
        let finish = Finish(Arc::clone(&self.signals));
        let halted = std::thread::spawn(move || {
            let _finish = finish;
            work()
        });
        let mut state = self.signals.lock();
        while !state.stopped && !state.finished {
            state = self.signals.wait(state);
        }
        let stopped = state.stopped;
        state.stop_in = None;
        drop(state);
        if stopped { Work::Halted(halted) } else { Work::Done(join(halted)) }
    }

    /// The process goes on, and its work comes to its end.
    pub(super) fn resume<T>(&self, halted: Halted<T>) -> T {
        self.signals.lock().stopped = false;
        self.signals.changed.notify_all();
        join(halted)
    }

    /// From now on no operation is done.
    pub(super) fn kill(&self) {
        self.signals.lock().dead = true;
    }

    /// Whether the process was killed before an operation.
    pub(super) fn is_dead(&self) -> bool {
        self.signals.lock().dead
    }

    /// Before which operation it was stopped.
    pub(super) fn stopped_before(&self) -> String {
        self.signals.lock().before.clone()
    }

    fn file(&self, inner: SimFile, path: &str) -> ProcessFile {
        ProcessFile { inner, signals: Arc::clone(&self.signals), path: path.to_owned() }
    }
}

fn join<T>(halted: Halted<T>) -> T {
    halted.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

impl Disk for ProcessDisk {
    type File = ProcessFile;
    fn create(&self, path: &str) -> io::Result<ProcessFile> {
        self.signals.enter("create", path)?;
        Ok(self.file(self.inner.create(path)?, path))
    }
    fn open_write(&self, path: &str) -> io::Result<ProcessFile> {
        self.signals.enter("open", path)?;
        Ok(self.file(self.inner.open_write(path)?, path))
    }
    fn read(&self, path: &str, limit: u64) -> io::Result<Vec<u8>> {
        self.signals.enter("read", path)?;
        self.inner.read(path, limit)
    }
    fn read_tail(&self, path: &str, limit: u64) -> io::Result<(u64, Vec<u8>)> {
        self.signals.enter("read", path)?;
        self.inner.read_tail(path, limit)
    }
    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.signals.enter("list", folder)?;
        self.inner.list(folder)
    }
    fn make_folder(&self, path: &str) -> io::Result<()> {
        self.signals.enter("make", path)?;
        self.inner.make_folder(path)
    }
    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.signals.enter("link", to)?;
        self.inner.link(from, to)
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        self.signals.enter("remove", path)?;
        self.inner.remove(path)
    }
    fn sync_folder(&self, path: &str) -> io::Result<()> {
        self.signals.enter("sync folder", path)?;
        self.inner.sync_folder(path)
    }
}

impl DiskFile for ProcessFile {
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.signals.enter("write", &self.path)?;
        self.inner.write_at(offset, data)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.signals.enter("sync", &self.path)?;
        self.inner.sync()
    }
    fn close(self) -> io::Result<()> {
        self.signals.enter("close", &self.path)?;
        self.inner.close()
    }
}
