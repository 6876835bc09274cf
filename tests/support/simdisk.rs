//! A disk in memory that says what a crash may leave of it.
//!
//! Every write is cut at sectors, every change of a name stands for itself, and each of them may or
//! may not survive until the matching sync; so may the file's size without its content, and then
//! the hole may show what the blocks held before. A failed sync drops pages, and the next one says
//! yes. Clients (hosts) see each other's data only after a flush, and cache listings until they
//! change the folder themselves.

use dcluster::runtime::disk::{Disk, DiskFile};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Smaller than any disk's, so that frames tear in more ways.
const SECTOR: usize = 64;

/// A host.
pub(crate) type Client = u8;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Entry {
    File(usize),
    Folder,
}

#[derive(Clone)]
enum NameChange {
    Add(String, Entry),
    Remove(String),
}

#[derive(Clone)]
struct Piece {
    client: Client,
    /// Other clients see it.
    flushed: bool,
    /// The kernel dropped it after a failed sync: seen until the crash, never written.
    dropped: bool,
    offset: usize,
    /// Empty: only the size grows to `offset`.
    data: Vec<u8>,
}

#[derive(Clone, Default)]
struct Inode {
    stable: Arc<Vec<u8>>,
    pieces: Vec<Piece>,
}

#[derive(Clone, Default)]
struct Folder {
    stable: BTreeMap<String, Entry>,
    pending: Vec<NameChange>,
    cached: BTreeMap<Client, Vec<String>>,
}

impl Folder {
    fn entries(&self) -> BTreeMap<String, Entry> {
        let mut entries = self.stable.clone();
        self.pending.iter().for_each(|change| apply(&mut entries, change));
        entries
    }

    fn change(&mut self, client: Client, change: NameChange) {
        self.cached.remove(&client);
        self.pending.push(change);
    }
}

fn apply(entries: &mut BTreeMap<String, Entry>, change: &NameChange) {
    match change {
        NameChange::Add(name, entry) => entries.insert(name.clone(), *entry),
        NameChange::Remove(name) => entries.remove(name),
    };
}

fn put(content: &mut Vec<u8>, piece: &Piece, hole: &[u8]) {
    let end = piece.offset + piece.data.len();
    while content.len() < end {
        let filler = match hole {
            [] => 0,
            hole => hole[content.len() % hole.len()],
        };
        content.push(filler);
    }
    content[piece.offset..end].copy_from_slice(&piece.data);
}

/// What goes wrong, in how many of a thousand operations.
pub(crate) struct Faults {
    pub(crate) random: fastrand::Rng,
    pub(crate) per_mille: u32,
}

/// Looks at the disk after every operation that changed it.
pub(crate) type Observer = Box<dyn FnMut(&World) + Send>;

/// The storage and the caches of all its clients.
pub(crate) struct World {
    inodes: Vec<Inode>,
    folders: BTreeMap<String, Folder>,
    pub(crate) capacity: Option<usize>,
    pub(crate) faults: Faults,
    /// Operations that a client has left before it is killed.
    pub(crate) budgets: BTreeMap<Client, u32>,
    pub(crate) links_supported: bool,
    /// Situations that were reached.
    pub(crate) marks: BTreeSet<&'static str>,
    pub(crate) observer: Option<Observer>,
}

impl World {
    /// An empty disk.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            inodes: Vec::new(),
            folders: BTreeMap::from([(String::new(), Folder::default())]),
            capacity: None,
            faults: Faults { random: fastrand::Rng::with_seed(seed), per_mille: 0 },
            budgets: BTreeMap::new(),
            links_supported: true,
            marks: BTreeSet::new(),
            observer: None,
        }
    }

    /// What is there after the machine came back with `image`.
    pub(crate) fn boot(&mut self, image: &Image) {
        self.inodes.clear();
        self.folders.clear();
        self.folders.insert(String::new(), Folder::default());
        for name in &image.folders {
            self.folders.insert(name.clone(), Folder::default());
            if !name.is_empty() {
                let root = self.folders.entry(String::new()).or_default();
                root.stable.insert(name.clone(), Entry::Folder);
            }
        }
        for (path, content) in &image.files {
            self.inodes.push(Inode { stable: content.clone(), pieces: Vec::new() });
            let (folder, leaf) = split(path);
            let entry = Entry::File(self.inodes.len() - 1);
            let folder = self.folders.entry(folder.to_owned()).or_default();
            folder.stable.insert(leaf.to_owned(), entry);
        }
    }

    /// How many things may or may not survive a crash now.
    pub(crate) fn uncertain(&self) -> usize {
        let pieces = self.inodes.iter().flat_map(|inode| &inode.pieces);
        let names: usize = self.folders.values().map(|f| f.pending.len()).sum();
        pieces.filter(|piece| !piece.dropped).count() + names
    }

    /// The disk after a crash that `keep` chose the survivors of, by number.
    pub(crate) fn image(&self, mut keep: impl FnMut(usize) -> bool, hole: &[u8]) -> Image {
        let mut number = 0;
        let mut kept = || {
            number += 1;
            keep(number - 1)
        };
        let contents: Vec<Arc<Vec<u8>>> = self
            .inodes
            .iter()
            .map(|inode| {
                if inode.pieces.is_empty() {
                    return inode.stable.clone();
                }
                let mut content = (*inode.stable).clone();
                for piece in inode.pieces.iter().filter(|piece| !piece.dropped) {
                    if kept() {
                        put(&mut content, piece, hole);
                    }
                }
                Arc::new(content)
            })
            .collect();
        let mut image = Image::default();
        let mut trees = BTreeMap::new();
        for (name, folder) in &self.folders {
            let mut entries = folder.stable.clone();
            for change in &folder.pending {
                if kept() {
                    apply(&mut entries, change);
                }
            }
            trees.insert(name, entries);
        }
        for (folder, entries) in &trees {
            let there = folder.is_empty() || trees[&String::new()].get(*folder) == Some(&Entry::Folder);
            if !there {
                continue;
            }
            image.folders.insert((*folder).clone());
            for (leaf, entry) in entries {
                if let Entry::File(inode) = entry {
                    let path = if folder.is_empty() { leaf.clone() } else { format!("{folder}/{leaf}") };
                    image.files.insert(path, contents[*inode].clone());
                }
            }
        }
        image
    }

    /// Content of some file that was removed: what free blocks hold.
    pub(crate) fn stale_content(&self) -> Vec<u8> {
        let mut free: BTreeSet<usize> = (0..self.inodes.len()).collect();
        for folder in self.folders.values() {
            for entry in folder.entries().values() {
                if let Entry::File(inode) = entry {
                    free.remove(inode);
                }
            }
        }
        let mut journal = free.iter().map(|&inode| &self.inodes[inode].stable);
        journal.rfind(|content| content.starts_with(b"DCJ1")).map_or_else(Vec::new, |content| (**content).clone())
    }

    /// Runs the observer.
    pub(crate) fn observe(&mut self) {
        if let Some(mut observer) = self.observer.take() {
            observer(self);
            self.observer = Some(observer);
        }
    }

    fn fault(&mut self) -> bool {
        self.faults.per_mille > 0 && self.faults.random.u32(..1000) < self.faults.per_mille
    }

    fn error(&mut self) -> io::Error {
        let codes = [libc::EIO, libc::EIO, libc::ENOSPC, libc::EDQUOT, libc::ESTALE];
        let random = &mut self.faults.random;
        io::Error::from_raw_os_error(codes[random.usize(..codes.len())])
    }

    fn folder(&mut self, name: &str) -> io::Result<&mut Folder> {
        let there = name.is_empty() || self.folders[""].entries().get(name) == Some(&Entry::Folder);
        let folder = self.folders.get_mut(name).filter(|_| there);
        folder.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn inode(&mut self, path: &str) -> io::Result<usize> {
        let (folder, leaf) = split(path);
        match self.folder(folder)?.entries().get(leaf) {
            Some(Entry::File(inode)) => Ok(*inode),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn content(&self, client: Client, inode: usize) -> Vec<u8> {
        let inode = &self.inodes[inode];
        let mut content = (*inode.stable).clone();
        for piece in &inode.pieces {
            if piece.client == client || piece.flushed {
                put(&mut content, piece, &[]);
            }
        }
        content
    }

    /// Bytes in use; blocks of removed files are free.
    pub(crate) fn used(&self) -> usize {
        let files: BTreeSet<usize> = self
            .folders
            .values()
            .flat_map(|folder| folder.entries().into_values())
            .filter_map(|entry| match entry {
                Entry::File(inode) => Some(inode),
                Entry::Folder => None,
            })
            .collect();
        let size = |inode: &Inode| {
            let ends = inode.pieces.iter().map(|p| p.offset + p.data.len());
            ends.max().unwrap_or(0).max(inode.stable.len())
        };
        files.iter().map(|&inode| size(&self.inodes[inode])).sum()
    }

    fn write(&mut self, client: Client, inode: usize, offset: usize, data: &[u8]) -> io::Result<()> {
        let mut pieces = vec![];
        let end = offset + data.len();
        let mut at = offset;
        while at < end {
            let next = ((at / SECTOR + 1) * SECTOR).min(end);
            pieces.push((at, data[at - offset..next - offset].to_vec()));
            at = next;
        }
        let mut result = Ok(());
        if self.fault() {
            let error = self.error();
            pieces.truncate(self.faults.random.usize(..=pieces.len()));
            self.marks.insert("write failed");
            result = Err(error);
        }
        let room = self.capacity.map_or(usize::MAX, |all| all.saturating_sub(self.used()));
        let size = self.content(client, inode).len();
        if end.saturating_sub(size) > room {
            pieces.retain(|(at, data)| at + data.len() <= size + room);
            self.marks.insert("disk full");
            result = Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        let written = pieces.last().map_or(0, |(at, data)| at + data.len());
        let mut add = |offset, data| {
            self.inodes[inode].pieces.push(Piece { client, flushed: false, dropped: false, offset, data });
        };
        if written > size {
            add(written, Vec::new());
        }
        pieces.into_iter().for_each(|(at, data)| add(at, data));
        result
    }

    fn sync(&mut self, client: Client, inode: usize) -> io::Result<()> {
        let failed = self.fault();
        let error = failed.then(|| self.error());
        let random = &mut self.faults.random;
        let inode = &mut self.inodes[inode];
        let mut stable = (*inode.stable).clone();
        inode.pieces.retain_mut(|piece| {
            if piece.dropped || !(piece.client == client || piece.flushed) {
                return true;
            }
            if failed && random.bool() {
                piece.dropped = true;
                return true;
            }
            put(&mut stable, piece, &[]);
            false
        });
        inode.stable = Arc::new(stable);
        match error {
            None => Ok(()),
            Some(error) => {
                self.marks.insert("sync failed");
                Err(error)
            }
        }
    }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// Lets the clients run their operations in a given order, one at a time.
pub(crate) struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

struct GateState {
    plan: VecDeque<(Client, u32)>,
    running: BTreeSet<Client>,
    /// An operation is under way.
    busy: bool,
}

impl GateState {
    fn turn(&mut self) -> Option<Client> {
        while let Some((client, count)) = self.plan.front() {
            if *count > 0 && self.running.contains(client) {
                return Some(*client);
            }
            self.plan.pop_front();
        }
        self.running.first().copied()
    }
}

impl Gate {
    /// Runs so many operations of each client in turn; at last the rest, lowest client first.
    pub(crate) fn new(clients: &[Client], plan: &[(Client, u32)]) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(GateState {
                plan: plan.iter().copied().collect(),
                running: clients.iter().copied().collect(),
                busy: false,
            }),
            changed: Condvar::new(),
        })
    }

    fn enter(&self, client: Client) {
        let mut state = lock(&self.state);
        while state.busy || state.turn() != Some(client) {
            state = self.changed.wait(state).expect("no client panics here");
        }
        state.busy = true;
        if let Some((_, count)) = state.plan.front_mut() {
            *count -= 1;
        }
    }

    fn leave(&self) {
        lock(&self.state).busy = false;
        self.changed.notify_all();
    }

    /// The client has come to its end.
    pub(crate) fn finish(&self, client: Client) {
        lock(&self.state).running.remove(&client);
        self.changed.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The disk as one client sees it.
#[derive(Clone)]
pub(crate) struct SimDisk {
    pub(crate) world: Arc<Mutex<World>>,
    pub(crate) client: Client,
    pub(crate) gate: Option<Arc<Gate>>,
}

/// A file that a client has open.
pub(crate) struct SimFile {
    disk: SimDisk,
    inode: usize,
}

impl SimDisk {
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }

    fn run<T>(&self, operation: impl FnOnce(&mut World) -> io::Result<T>) -> io::Result<T> {
        if let Some(gate) = &self.gate {
            gate.enter(self.client);
        }
        let mut world = self.world();
        let result = match world.budgets.get_mut(&self.client) {
            Some(0) => Err(io::Error::other("killed")),
            Some(left) => {
                *left -= 1;
                operation(&mut world)
            }
            None => operation(&mut world),
        };
        drop(world);
        if let Some(gate) = &self.gate {
            gate.leave();
        }
        result
    }

    /// Runs an operation that changes something, and then the observer.
    fn change<T>(&self, operation: impl FnOnce(&mut World) -> io::Result<T>) -> io::Result<T> {
        self.run(|world| {
            let result = operation(world);
            world.observe();
            result
        })
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn create(&self, path: &str) -> io::Result<SimFile> {
        let inode = self.change(|world| {
            if world.fault() {
                return Err(world.error());
            }
            let (folder, leaf) = split(path);
            let inode = world.inodes.len();
            let folder = world.folder(folder)?;
            if folder.entries().contains_key(leaf) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            folder.change(self.client, NameChange::Add(leaf.to_owned(), Entry::File(inode)));
            world.inodes.push(Inode::default());
            Ok(inode)
        })?;
        Ok(SimFile { disk: self.clone(), inode })
    }

    fn open_write(&self, path: &str) -> io::Result<SimFile> {
        let inode = self.run(|world| {
            if world.fault() {
                return Err(world.error());
            }
            world.inode(path)
        })?;
        Ok(SimFile { disk: self.clone(), inode })
    }

    fn read(&self, path: &str, limit: u64) -> io::Result<Vec<u8>> {
        let content = self.run(|world| {
            if world.fault() {
                return Err(world.error());
            }
            let inode = world.inode(path)?;
            Ok(world.content(self.client, inode))
        })?;
        if content.len() as u64 > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(content)
    }

    fn read_tail(&self, path: &str, limit: u64) -> io::Result<(u64, Vec<u8>)> {
        let content = self.read(path, u64::MAX)?;
        let offset = content.len().saturating_sub(limit as usize);
        Ok((offset as u64, content[offset..].to_vec()))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.run(|world| {
            if world.fault() {
                return Err(world.error());
            }
            let folder = world.folder(folder)?;
            let names = folder.entries().into_keys().collect();
            Ok(folder.cached.entry(self.client).or_insert(names).clone())
        })
    }

    fn make_folder(&self, path: &str) -> io::Result<()> {
        self.change(|world| {
            if world.folder(path).is_ok() {
                return Ok(());
            }
            world.folders.entry(path.to_owned()).or_default();
            let change = NameChange::Add(path.to_owned(), Entry::Folder);
            world.folder("")?.change(self.client, change);
            Ok(())
        })
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(|world| {
            if !world.links_supported {
                world.marks.insert("no hard links");
                return Err(io::Error::from_raw_os_error(libc::EPERM));
            }
            let inode = world.inode(from)?;
            let failed = world.fault();
            if failed && world.faults.random.bool() {
                return Err(world.error());
            }
            let (folder, leaf) = split(to);
            let folder = world.folder(folder)?;
            if folder.entries().contains_key(leaf) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            folder.change(self.client, NameChange::Add(leaf.to_owned(), Entry::File(inode)));
            if failed {
                // Done, but the reply was lost; the repeated request finds the name taken.
                world.marks.insert("link repeated");
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            Ok(())
        })
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.change(|world| {
            if world.fault() {
                return Err(world.error());
            }
            let (folder, leaf) = split(path);
            world.inode(path)?;
            if leaf == "reserve" {
                world.marks.insert("reserve freed");
            }
            let change = NameChange::Remove(leaf.to_owned());
            world.folder(folder)?.change(self.client, change);
            Ok(())
        })
    }

    fn sync_folder(&self, path: &str) -> io::Result<()> {
        self.change(|world| {
            if world.fault() {
                world.marks.insert("folder sync failed");
                return Err(world.error());
            }
            let folder = world.folder(path)?;
            for change in std::mem::take(&mut folder.pending) {
                apply(&mut folder.stable, &change);
            }
            Ok(())
        })
    }
}

impl DiskFile for SimFile {
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (client, inode) = (self.disk.client, self.inode);
        self.disk.change(|world| world.write(client, inode, offset as usize, data))
    }

    fn sync(&mut self) -> io::Result<()> {
        let (client, inode) = (self.disk.client, self.inode);
        self.disk.change(|world| world.sync(client, inode))
    }

    fn close(self) -> io::Result<()> {
        let (client, inode) = (self.disk.client, self.inode);
        self.disk.change(|world| {
            // On a network file system closing flushes, and shows what that met.
            for piece in &mut world.inodes[inode].pieces {
                piece.flushed |= piece.client == client;
            }
            if world.fault() {
                world.marks.insert("close failed");
                return Err(world.error());
            }
            Ok(())
        })
    }
}

/// The disk after a crash: read-only.
#[derive(Clone, Default)]
pub(crate) struct Image {
    pub(crate) files: BTreeMap<String, Arc<Vec<u8>>>,
    pub(crate) folders: BTreeSet<String>,
}

/// There are no files to write in an [`Image`].
pub(crate) enum NoFile {}

impl Disk for Image {
    type File = NoFile;
    fn create(&self, _: &str) -> io::Result<NoFile> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn open_write(&self, _: &str) -> io::Result<NoFile> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn read(&self, path: &str, _: u64) -> io::Result<Vec<u8>> {
        let file = self.files.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok((**file).clone())
    }
    fn read_tail(&self, path: &str, limit: u64) -> io::Result<(u64, Vec<u8>)> {
        let file = self.files.get(path).ok_or(io::ErrorKind::NotFound)?;
        let offset = file.len().saturating_sub(limit as usize);
        Ok((offset as u64, file[offset..].to_vec()))
    }
    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        if !self.folders.contains(folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let paths = self.files.keys().map(|path| split(path));
        let inside = paths.filter(|(of, _)| *of == folder);
        Ok(inside.map(|(_, leaf)| leaf.to_owned()).collect())
    }
    fn make_folder(&self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn link(&self, _: &str, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn remove(&self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn sync_folder(&self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

impl DiskFile for NoFile {
    fn write_at(&mut self, _: u64, _: &[u8]) -> io::Result<()> {
        match *self {}
    }
    fn sync(&mut self) -> io::Result<()> {
        match *self {}
    }
    fn close(self) -> io::Result<()> {
        match self {}
    }
}
