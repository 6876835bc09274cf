//! The log of a server: one line per event in a private file, set aside at 16 MiB, four files in all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use tracing_subscriber::fmt::MakeWriter;

const FILE_BYTES_MAX: u64 = 16 << 20;
/// `server.log.1` to `server.log.3` are older and older.
const OLD_FILES: u32 = 3;
const LINE_BYTES_MAX: usize = 8 << 10;

/// A file that is set aside when it has grown.
#[derive(Debug)]
pub struct Log(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    file: File,
    length: u64,
}

/// Opens the log for appending, private and never through a link.
///
/// # Errors
///
/// What the system says.
pub fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path)
}

impl Log {
    /// Opens the log.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        let length = file.metadata()?.len();
        Ok(Self(Mutex::new(Inner { path: path.to_owned(), file, length })))
    }
}

impl Inner {
    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.length >= FILE_BYTES_MAX {
            for number in (1..OLD_FILES).rev() {
                // The first times there are fewer.
                let _ = fs::rename(self.aside(number), self.aside(number + 1));
            }
            fs::rename(&self.path, self.aside(1))?;
            self.file = open(&self.path)?;
            self.length = 0;
        }
        let (line, end): (&[u8], &[u8]) =
            if line.len() > LINE_BYTES_MAX { (&line[..LINE_BYTES_MAX], "…\n".as_bytes()) } else { (line, b"") };
        self.file.write_all(line)?;
        self.file.write_all(end)?;
        self.length += line.len() as u64;
        Ok(())
    }

    fn aside(&self, number: u32) -> PathBuf {
        self.path.with_extension(format!("log.{number}"))
    }
}

/// Writes one event; the subscriber hands over whole lines.
#[derive(Debug)]
pub struct Line<'a>(&'a Log);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Ok(mut inner) = self.0.0.lock() {
            inner.write_line(line)?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_files_are_set_aside_and_long_lines_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server.log");
        let log = Log::open(&path).unwrap();
        for round in 0..6u8 {
            log.0.lock().unwrap().length = FILE_BYTES_MAX;
            log.make_writer().write_all(&[b'a' + round, b'\n']).unwrap();
        }
        let text = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(
            [text("server.log"), text("server.log.1"), text("server.log.2"), text("server.log.3")],
            ["f\n", "e\n", "d\n", "c\n"]
        );
        assert!(!folder.path().join("server.log.4").exists());
        log.make_writer().write_all(&[b'x'; LINE_BYTES_MAX + 5]).unwrap();
        assert!(text("server.log").ends_with("x…\n"));
    }
}
