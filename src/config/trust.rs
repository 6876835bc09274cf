//! Which `./dcluster.toml` may be used. The file can hold a prologue, which is code, and the folder
//! may belong to anybody: it is used only when nobody but me and root can have written it, or when
//! I have said with `dcluster config trust` that I have read it. What is stored then is the whole
//! content, compared byte by byte: no hash that could be made to collide.

use super::problem::{ConfigError, shown_path};
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Largest configuration file, in bytes.
pub const CONFIG_MAX_BYTES: u64 = 1 << 20;

/// Reads a configuration file: `None` when there is none. Returns its owner and mode, as the open
/// file has them, with the content.
pub(super) fn read(path: &Path) -> Result<Option<(Vec<u8>, Access)>, ConfigError> {
    let cannot =
        |error: &io::Error| ConfigError::new("cannot read the configuration file").at(shown_path(path)).because(error);
    // Without O_NONBLOCK, opening a named pipe would wait for ever.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = match opened {
        Ok(file) => file,
        // A link to nowhere is a mistake; no file is not.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => {
            return Ok(None);
        }
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(None),
        Err(error) => return Err(cannot(&error)),
    };
    let data = file.metadata().map_err(|error| cannot(&error))?;
    if !data.is_file() {
        return Err(ConfigError::new("the configuration file is no file").at(shown_path(path)).fix("move it away"));
    }
    let content = read_bounded(&file).map_err(|error| cannot(&error))?;
    let Some(content) = content else {
        return Err(ConfigError::new("the configuration file is too large")
            .at(shown_path(path))
            .because("it has more than 1 MiB")
            .fix("shorten it: a long prologue can be a script that the prologue calls"));
    };
    let link = path.symlink_metadata().map_err(|error| cannot(&error))?;
    let access = Access { owner: data.uid(), mode: data.mode(), link_owner: link.is_symlink().then(|| link.uid()) };
    Ok(Some((content, access)))
}

/// Reads a file up to the limit; `None` when there is more.
fn read_bounded(file: &File) -> io::Result<Option<Vec<u8>>> {
    let mut content = Vec::new();
    file.take(CONFIG_MAX_BYTES + 1).read_to_end(&mut content)?;
    Ok((content.len() as u64 <= CONFIG_MAX_BYTES).then_some(content))
}

/// Who can have written a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Access {
    owner: u32,
    mode: u32,
    /// Owner of the symbolic link that led to the file.
    link_owner: Option<u32>,
}

/// Returns an error unless only `uid` and root can have written the file, or it is trusted.
pub(super) fn check(state: &Path, path: &Path, content: &[u8], access: Access, uid: u32) -> Result<(), ConfigError> {
    let foreign = |owner: u32| owner != uid && owner != 0;
    let (why, fix) = if foreign(access.owner) {
        (format!("user {} owns it, not you", access.owner), None)
    } else if access.link_owner.is_some_and(foreign) {
        ("it is a link that somebody else made".to_owned(), None)
    } else if access.mode & 0o022 != 0 {
        let who = match access.mode & 0o022 {
            0o020 => "everybody of its group",
            _ => "everybody",
        };
        let fix = format!("chmod go-w {}", shown_path(path));
        (format!("{who} can write it"), Some(fix))
    } else {
        return Ok(());
    };
    let (verdict, what) = match trusted_content(state, path, uid) {
        Some(trusted) if trusted == content => return Ok(()),
        Some(_) => ("; it has changed since you trusted it", "dcluster.toml has changed"),
        None => ("", "dcluster.toml is not used: it may be somebody else's"),
    };
    Err(ConfigError::new(what).at(shown_path(path)).because(format!("{why}{verdict}")).fix(match fix {
        Some(fix) => format!("{fix}     or, when you have read it: dcluster config trust"),
        None => "read it, then: dcluster config trust".to_owned(),
    }))
}

/// Trusts a file with the content it has now. Returns its canonical path.
pub fn trust(state: &Path, path: &Path) -> Result<PathBuf, ConfigError> {
    let Some((content, _)) = read(path)? else {
        return Err(ConfigError::new("there is nothing to trust")
            .at(shown_path(path))
            .because("there is no such file"));
    };
    let cannot = |error: io::Error| {
        ConfigError::new("cannot remember that you trust the file").at(shown_path(state)).because(error)
    };
    let canonical = path.canonicalize().map_err(cannot)?;
    store(state, &canonical, &content).map_err(cannot)?;
    Ok(canonical)
}

fn store(state: &Path, canonical: &Path, content: &[u8]) -> io::Result<()> {
    let folder = state.join("trust");
    DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    std::fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
    let mut file = tempfile::Builder::new().permissions(Permissions::from_mode(0o600)).tempfile_in(&folder)?;
    file.write_all(canonical.as_os_str().as_bytes())?;
    file.write_all(b"\0")?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(record(state, canonical))?;
    Ok(())
}

/// Returns the content that was trusted for a file.
fn trusted_content(state: &Path, path: &Path, uid: u32) -> Option<Vec<u8>> {
    let canonical = path.canonicalize().ok()?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW)
        .open(record(state, &canonical))
        .ok()?;
    let data = file.metadata().ok()?;
    if !data.is_file() || data.uid() != uid || data.mode() & 0o077 != 0 {
        return None;
    }
    let head_len = canonical.as_os_str().len() + 1;
    let mut bytes = Vec::new();
    file.take(CONFIG_MAX_BYTES + head_len as u64).read_to_end(&mut bytes).ok()?;
    let content = bytes.strip_prefix(canonical.as_os_str().as_bytes())?.strip_prefix(b"\0")?;
    Some(content.to_vec())
}

/// Returns the record of a path. Two paths may share one: then only the last is trusted.
fn record(state: &Path, canonical: &Path) -> PathBuf {
    let checksum = crc32fast::hash(canonical.as_os_str().as_bytes());
    state.join("trust").join(format!("{checksum:08x}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const MODE: u32 = 0o100_644;

    fn access(owner: u32, mode: u32) -> Access {
        Access { owner, mode, link_owner: None }
    }

    #[test]
    fn only_my_files_and_roots() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("dcluster.toml");
        let check = |access| check(folder.path(), &file, b"", access, 1000);
        assert_eq!(check(access(1000, MODE)), Ok(()));
        assert_eq!(check(access(0, MODE)), Ok(()));

        let error = check(access(1001, MODE)).expect_err("foreign");
        assert_eq!(error.what, "dcluster.toml is not used: it may be somebody else's");
        assert_eq!(error.why.as_deref(), Some("user 1001 owns it, not you"));
        assert_eq!(error.fix.as_deref(), Some("read it, then: dcluster config trust"));
        let why = |access| check(access).expect_err("refused").why.unwrap_or_default();
        assert_eq!(why(access(1000, 0o100_664)), "everybody of its group can write it");
        assert_eq!(why(access(1000, 0o100_646)), "everybody can write it");
        let link = Access { link_owner: Some(1001), ..access(1000, MODE) };
        assert_eq!(why(link), "it is a link that somebody else made");
        let mine = Access { link_owner: Some(1000), ..access(0, MODE) };
        assert_eq!(check(mine), Ok(()));
    }

    #[test]
    fn trust_holds_until_the_content_changes() {
        let folder = tempfile::tempdir().expect("folder");
        let (state, file) = (folder.path().join("state"), folder.path().join("dcluster.toml"));
        let uid = nix::unistd::Uid::effective().as_raw();
        let verdict = || {
            let (content, access) = read(&file).expect("readable").expect("there");
            check(&state, &file, &content, access, uid)
        };
        fs::write(&file, "cores = 2\n").expect("write");
        fs::set_permissions(&file, Permissions::from_mode(0o666)).expect("chmod");
        assert!(verdict().is_err());
        assert_eq!(trust(&state, &file).expect("trusted"), file.canonicalize().expect("path"));
        assert_eq!(verdict(), Ok(()));
        let mode = |path: &Path| path.metadata().expect("metadata").mode() & 0o777;
        assert_eq!(mode(&state.join("trust")), 0o700);
        let record = record(&state, &file.canonicalize().expect("path"));
        assert_eq!(mode(&record), 0o600);

        fs::write(&file, "cores = 3\n").expect("write");
        let error = verdict().expect_err("changed");
        assert_eq!(error.what, "dcluster.toml has changed");
        assert!(trust(&state, &file).is_ok());
        assert_eq!(verdict(), Ok(()));
        // A record that somebody else could have written is none.
        fs::set_permissions(&record, Permissions::from_mode(0o622)).expect("chmod");
        assert!(verdict().is_err());
    }

    #[test]
    fn odd_files() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("f");
        assert_eq!(read(&path), Ok(None));
        assert_eq!(read(&path.join("below/nothing")), Ok(None));
        assert_eq!(read(folder.path()).expect_err("folder").what, "the configuration file is no file");
        fs::write(&path, vec![b'#'; 1 << 20]).expect("write");
        assert!(read(&path).is_ok());
        fs::write(&path, vec![b'#'; (1 << 20) + 1]).expect("write");
        assert_eq!(read(&path).expect_err("large").what, "the configuration file is too large");
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("pipe");
        assert!(read(&pipe).is_err());
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).expect("link");
        assert!(read(&link).is_err());
        assert!(trust(folder.path(), &folder.path().join("none")).is_err());
    }
}
