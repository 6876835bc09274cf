//! Files that a simulation reads, gzip or not, and what is said when one of them is bad.

use flate2::bufread::MultiGzDecoder;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// Most bytes of a file after decompression; more of it is an accident.
const BYTES_MAX: u64 = 4 << 30;
/// What some editors and spreadsheets put before a text to say that it is UTF-8. It is no part of it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Why a file cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}: {what}", self.place())]
pub struct InputError {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: Option<u64>,
    /// What is wrong, lower case, without a full stop.
    pub what: String,
    /// What to do.
    pub fix: String,
}

impl InputError {
    /// Returns an error about a whole file.
    pub(super) fn new(file: &str, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: None, what: what.into(), fix: fix.into() }
    }

    /// Says in which line it is.
    pub(super) fn at(self, line: u64) -> Self {
        Self { line: Some(line), ..self }
    }

    /// Returns file and line: `log.swf:12`.
    pub fn place(&self) -> String {
        self.line.map_or_else(|| self.file.clone(), |line| format!("{}:{line}", self.file))
    }
}

/// A file's text, decompressed on the way. Whether it is compressed is seen by its first bytes.
pub(super) struct Input {
    pub(super) file: String,
    reader: Box<dyn BufRead>,
}

impl Input {
    /// Opens a file.
    ///
    /// # Errors
    /// It is not there, is a folder, or may not be read.
    pub(super) fn open(path: &Path) -> Result<Self, InputError> {
        let file = path.display().to_string();
        let fail =
            |error: std::io::Error| InputError::new(&file, format!("cannot be read: {error}"), format!("ls -l {file}"));
        if path.is_dir() {
            return Err(InputError::new(&file, "it is a folder", "give a file in it"));
        }
        Self::new(&file, File::open(path).map_err(fail)?)
    }

    /// Takes what a reader gives for a file of this name.
    pub(super) fn new(file: &str, reader: impl Read + 'static) -> Result<Self, InputError> {
        let mut reader = BufReader::with_capacity(1 << 16, reader);
        let gzip = reader.fill_buf().map_err(|error| unreadable(file, &error))?.starts_with(&[0x1f, 0x8b]);
        let mut reader: Box<dyn BufRead> = if gzip {
            Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(reader).take(BYTES_MAX)))
        } else {
            Box::new(reader.take(BYTES_MAX))
        };
        if reader.fill_buf().map_err(|error| unreadable(file, &error))?.starts_with(BYTE_ORDER_MARK) {
            reader.consume(BYTE_ORDER_MARK.len());
        }
        Ok(Self { file: file.to_owned(), reader })
    }

    /// Returns the next bytes without taking them.
    pub(super) fn peek(&mut self) -> Result<&[u8], InputError> {
        let Self { file, reader } = self;
        reader.fill_buf().map_err(|error| unreadable(file, &error))
    }

    /// Reads a line into `line`, without its end; returns false at the end of the file.
    pub(super) fn line(&mut self, line: &mut Vec<u8>) -> Result<bool, InputError> {
        line.clear();
        let read = self.reader.read_until(b'\n', line).map_err(|error| unreadable(&self.file, &error))?;
        line.truncate(line.trim_ascii_end().len());
        Ok(read > 0)
    }

    /// Returns the rest as a reader.
    pub(super) fn rest(self) -> Box<dyn BufRead> {
        self.reader
    }
}

/// Says that reading failed on the way: a disk, or a damaged archive.
fn unreadable(file: &str, error: &std::io::Error) -> InputError {
    let fix = format!("gzip -t {file} (if it is compressed), or fetch it again");
    InputError::new(file, format!("cannot be read: {error}"), fix)
}
