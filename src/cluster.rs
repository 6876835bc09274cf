//! A cluster on disk: its folder, identity, keys and addresses, and the rules for the files in it.
//!
//! The folder is private (0700, files 0600) and is refused when it is not: other people are on the
//! same machine. Nothing here talks to a server.

use crate::config::spec::Spec;
use crate::error::{Kind, Problem};
use crate::runtime::transport::{Authority, Credential, KeyError, Role, Secret};
use nix::sys::stat::{Mode, umask};
use nix::unistd::Uid;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Version of the files in the folder; a newer one is refused.
pub const FORMAT: u32 = 1;
/// Largest file of ours that is read whole (identity, access).
const FILE_BYTES_MAX: u64 = 64 << 10;
/// The same for the specification: it holds the prologue, of which a configuration file may have 1 MiB.
const SPEC_BYTES_MAX: u64 = 4 << 20;

/// The folder of one cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Folder {
    path: PathBuf,
    name: String,
}

/// `id`: what never changes about a cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// [`FORMAT`] of the folder.
    pub format: u32,
    /// 128 random bits, hex.
    pub id: String,
    /// Four letters for job names.
    pub letters: String,
    /// Where the folder was made; elsewhere it is a copy (or was moved).
    pub path: PathBuf,
    /// Certificate of its authority (PEM).
    pub authority: String,
}

/// `access` and `worker`: where the server is and how to prove who asks.
#[derive(Serialize, Deserialize)]
struct AccessFile {
    format: u32,
    id: String,
    authority: String,
    certificate: String,
    key: String,
    addresses: Vec<SocketAddr>,
    host: String,
    pid: u32,
}

/// Where a server is and how to prove to it who asks.
pub struct Access {
    /// The cluster's id.
    pub id: String,
    /// Certificate of its authority (PEM).
    pub authority: String,
    /// The credential.
    pub credential: Credential,
    /// Every address of the server's host, most promising first.
    pub addresses: Vec<SocketAddr>,
    /// Host of the server.
    pub host: String,
    /// Its process there.
    pub pid: u32,
}

fn broken(what: String) -> Problem {
    Problem::new(Kind::Unreachable, what)
}

impl Folder {
    /// Returns the folder of the cluster `name`; it need not exist.
    pub fn of(state: &Path, name: &str) -> Self {
        Self { path: state.join(name), name: name.to_owned() }
    }

    /// Returns the folder at a path (as given to server and worker).
    pub fn at(path: &Path) -> Self {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Self { path: path.to_owned(), name }
    }

    /// Returns the names of the clusters in the state folder.
    pub fn names(state: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(state)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| !name.starts_with('.') && state.join(name).join("id").exists())
            .collect();
        names.sort();
        names
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// Returns the cluster's name.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Whether the cluster was ever made.
    pub fn exists(&self) -> bool {
        self.path.join("id").exists()
    }
    /// Returns the server's log.
    pub fn server_log(&self) -> PathBuf {
        self.path.join("server.log")
    }
    /// Returns the folder of the event files.
    pub fn events(&self) -> PathBuf {
        self.path.join("events")
    }
    /// Returns the output of a job's script.
    pub fn job_folder(&self, job: &str) -> PathBuf {
        self.path.join("jobs").join(job)
    }

    /// Makes the folder whole or not at all: it is built under another name and renamed. Of two that
    /// try at once, one wins; the other gets `Ok(false)`.
    pub fn create(&self, spec: &Spec, environment: &[u8]) -> Result<bool, Problem> {
        let state = self.path.parent().unwrap_or(Path::new("/"));
        let fail = |error: &dyn std::fmt::Display| {
            broken(format!("cannot create the cluster folder {}", self.path.display()))
                .says(error.to_string())
                .done("nothing was started")
                .fix("set DCLUSTER_STATE to a folder you can write that the nodes share")
        };
        make_private(state).map_err(|error| fail(&error))?;
        check_private(state, "the state folder")?;
        let random: [u8; 16] = random()?;
        let id: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let letters: String = random.iter().take(4).map(|byte| char::from(b'a' + byte % 26)).collect();
        let building = Self { path: state.join(format!(".{}.{letters}", self.name)), name: self.name.clone() };
        let authority = Authority::create(&id).map_err(|error| fail(&error))?;
        let identity = Identity {
            format: FORMAT,
            id,
            letters,
            path: self.path.clone(),
            authority: authority.certificate().to_owned(),
        };
        let build = || -> io::Result<bool> {
            private_folder(&building.path)?;
            for folder in ["epochs", "journal", "jobs", "tasks", "events"] {
                private_folder(&building.path.join(folder))?;
            }
            building.write("ca.key", authority.key().reveal().as_bytes())?;
            building.write("spec", &serde_json::to_vec_pretty(spec)?)?;
            building.write("env.sh", environment)?;
            building.write("id", &serde_json::to_vec_pretty(&identity)?)?;
            match fs::rename(&building.path, &self.path) {
                Ok(()) => sync_folder(state).map(|()| true),
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTEMPTY | libc::EEXIST)) => Ok(false),
                Err(error) => Err(error),
            }
        };
        let built = build();
        if !matches!(built, Ok(true)) {
            // What was half made goes away again; if even that fails, the name says what it was.
            let _ = fs::remove_dir_all(&building.path);
        }
        built.map_err(|error| fail(&error))
    }

    /// Checks owner and mode, and that this is the folder that was made here and not a copy.
    pub fn open(&self) -> Result<Identity, Problem> {
        check_private(&self.path, "the cluster folder")?;
        let bytes = self.read("id")?;
        let identity: Identity = serde_json::from_slice(&bytes).map_err(|error| {
            broken(format!("the cluster folder {} is damaged", self.path.display()))
                .says(format!("id: {error}"))
                .fix(format!("start afresh under another name, or move the folder away: mv {} …", self.path.display()))
        })?;
        if identity.format > FORMAT {
            return Err(broken(format!("the cluster folder {} was made by a newer dcluster", self.path.display()))
                .says(format!("format {}; this version reads up to {FORMAT}", identity.format))
                .fix("use that version"));
        }
        let here = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let there = fs::canonicalize(&identity.path).unwrap_or_else(|_| identity.path.clone());
        if here != there && there.join("id").exists() {
            return Err(broken(format!(
                "{} is a copy of the cluster folder {}",
                self.path.display(),
                identity.path.display()
            ))
            .why("two servers of one cluster would start its jobs twice")
            .fix(format!("use the original, or remove the copy: rm -r {}", self.path.display())));
        }
        Ok(identity)
    }

    /// Reads a small file of ours, refusing one that others can read or that is a link.
    pub fn read(&self, file: &str) -> Result<Vec<u8>, Problem> {
        let limit = if file == "spec" { SPEC_BYTES_MAX } else { FILE_BYTES_MAX };
        let path = self.path.join(file);
        let fail = |error: io::Error| broken(format!("cannot read {}", path.display())).says(error.to_string());
        let opened =
            OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC).open(&path).map_err(fail)?;
        let meta = opened.metadata().map_err(fail)?;
        if meta.uid() != Uid::effective().as_raw() || meta.mode() & 0o077 != 0 {
            return Err(broken(format!("refusing {}: others could read or change it", path.display()))
                .why(format!("owner {}, mode {:04o}; it must be yours and 0600", meta.uid(), meta.mode() & 0o7777))
                .fix(format!("chmod 600 {}", path.display())));
        }
        let mut bytes = Vec::new();
        opened.take(limit + 1).read_to_end(&mut bytes).map_err(fail)?;
        if bytes.len() as u64 > limit {
            return Err(broken(format!("{} is larger than any file of ours", path.display()))
                .why(format!("it has more than {} KiB", limit >> 10)));
        }
        Ok(bytes)
    }

    /// Replaces a file: temporary in the same folder, fsync, rename, fsync of the folder.
    pub fn write(&self, file: &str, bytes: &[u8]) -> io::Result<()> {
        let temporary = self.path.join(format!(".{file}.{}", std::process::id()));
        let mut out = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&temporary)?;
        out.set_permissions(fs::Permissions::from_mode(0o600))?;
        let done = out
            .write_all(bytes)
            .and_then(|()| out.sync_all())
            .and_then(|()| fs::rename(&temporary, self.path.join(file)));
        if done.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        done?;
        sync_folder(&self.path)
    }

    /// Returns the specification the cluster was made with.
    pub fn spec(&self) -> Result<Spec, Problem> {
        serde_json::from_slice(&self.read("spec")?)
            .map_err(|error| broken(format!("{} is damaged", self.path.join("spec").display())).says(error.to_string()))
    }

    /// Returns the authority, for the server alone.
    pub fn authority(&self, identity: &Identity) -> Result<Authority, Problem> {
        let key =
            String::from_utf8(self.read("ca.key")?).map_err(|error| broken(format!("ca.key is damaged: {error}")))?;
        Ok(Authority::load(&identity.id, identity.authority.clone(), Secret::new(key)))
    }

    /// Publishes where the server is: `access` for clients, `worker` for workers.
    pub fn publish(
        &self,
        identity: &Identity,
        authority: &Authority,
        addresses: &[SocketAddr],
        host: &str,
    ) -> Result<(), Problem> {
        for (file, role) in [("access", Role::Client), ("worker", Role::Worker)] {
            let credential = authority.issue(role).map_err(|error: KeyError| broken(error.to_string()))?;
            let access = AccessFile {
                format: FORMAT,
                id: identity.id.clone(),
                authority: identity.authority.clone(),
                certificate: credential.certificate,
                key: credential.key.reveal().to_owned(),
                addresses: addresses.to_vec(),
                host: host.to_owned(),
                pid: std::process::id(),
            };
            let bytes = zeroize::Zeroizing::new(serde_json::to_vec(&access).unwrap_or_default());
            self.write(file, &bytes).map_err(|error| {
                broken(format!("cannot write {}", self.path.join(file).display())).says(error.to_string())
            })?;
        }
        Ok(())
    }

    /// Reads where the server is, as a client or a worker.
    pub fn access(&self, role: Role) -> Result<Access, Problem> {
        let file = if role == Role::Worker { "worker" } else { "access" };
        let bytes = zeroize::Zeroizing::new(self.read(file)?);
        let access: AccessFile = serde_json::from_slice(&bytes).map_err(|error| {
            broken(format!("{} is damaged", self.path.join(file).display())).says(error.to_string())
        })?;
        Ok(Access {
            id: access.id,
            authority: access.authority,
            credential: Credential { certificate: access.certificate, key: Secret::new(access.key) },
            addresses: access.addresses,
            host: access.host,
            pid: access.pid,
        })
    }

    /// Returns a path to the unix socket that fits into 107 bytes whatever the folder is called, and
    /// the open folder it goes through.
    pub fn socket(&self) -> io::Result<(PathBuf, File)> {
        let folder = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(&self.path)?;
        Ok((PathBuf::from(format!("/proc/self/fd/{}/sock", folder.as_raw_fd())), folder))
    }
}

/// Returns 16 random bytes of the system.
pub fn random() -> Result<[u8; 16], Problem> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Problem::new(Kind::Internal, "the system gives no random numbers").says(error.to_string()))?;
    Ok(bytes)
}

/// Returns 128 random bits in hex.
pub fn random_hex() -> Result<String, Problem> {
    Ok(random()?.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Makes a folder 0700, whatever the umask.
pub fn private_folder(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(0o700)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Sets the umask of this process so that nothing it makes is for others; returns the user's.
pub fn private_umask() -> u32 {
    umask(Mode::from_bits_truncate(0o077)).bits()
}

fn make_private(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn check_private(path: &Path, what: &str) -> Result<(), Problem> {
    let meta = fs::metadata(path)
        .map_err(|error| broken(format!("cannot use {what} {}", path.display())).says(error.to_string()))?;
    if meta.uid() != Uid::effective().as_raw() {
        return Err(broken(format!(
            "refusing {what} {}: it belongs to another user (uid {})",
            path.display(),
            meta.uid()
        ))
        .fix("set DCLUSTER_STATE to a folder of your own"));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(broken(format!(
            "refusing {what} {}: others can write into it (mode {:04o})",
            path.display(),
            meta.mode() & 0o7777
        ))
        .fix(format!("chmod 700 {}", path.display())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_file_is_bounded() {
        let root = tempfile::tempdir().expect("folder");
        let folder = Folder::at(root.path());
        let write = |file: &str, bytes: u64| folder.write(file, &vec![b' '; usize::try_from(bytes).expect("small")]);
        for (file, bound) in [("access", FILE_BYTES_MAX), ("worker", FILE_BYTES_MAX), ("spec", SPEC_BYTES_MAX)] {
            write(file, bound).expect("written");
            assert!(folder.read(file).is_ok(), "{file} at the bound");
            write(file, bound + 1).expect("written");
            let problem = folder.read(file).expect_err("one past the bound");
            assert!(problem.what.contains("larger than any file of ours"), "{file}");
        }
    }
}
