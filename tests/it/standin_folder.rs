//! The folder of one stand-in batch system (`tests/standins/batch`): its commands, its state, its own command.

use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A stand-in; what it runs ends with it.
pub(crate) struct StandInFolder {
    folder: TempDir,
}

impl StandInFolder {
    /// Makes the commands; nothing runs yet.
    pub(crate) fn new(commands: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("standin-").tempdir().unwrap();
        // The backends' commands may have a clean environment: they are told here where the stand-in is. Written by a
        // process of its own: what this one has open for writing another thread's child may hold a moment longer,
        // and then it cannot be run.
        let script = r#"
            cd "$1" && mkdir real bin s && shift && program=$1 && shift && umask 022 && for command; do
                ln -s "$program" "real/$command"
                printf '#!/bin/sh\nDCLUSTER_STANDIN="%s" exec "%s" "$@"\n' "$PWD/s" "$PWD/real/$command" > "bin/$command"
                chmod 755 "bin/$command"
            done"#;
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/standins/batch");
        let mut shell = Command::new("sh");
        shell.args(["-euc", script, "sh"]).arg(folder.path()).arg(program).args(commands).arg("standin");
        assert!(shell.status().unwrap().success());
        Self { folder }
    }

    /// The folder of its commands.
    pub(crate) fn bin(&self) -> PathBuf {
        self.folder.path().join("bin")
    }

    /// The folder of what it keeps.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    /// The program behind a command.
    pub(crate) fn real(&self, command: &str) -> PathBuf {
        self.folder.path().join("real").join(command)
    }

    /// `standin WORDS`, and what it prints.
    #[track_caller]
    pub(crate) fn control(&self, words: &[&str]) -> String {
        control(&self.bin(), words)
    }
}

/// `standin WORDS` of the stand-in whose commands are there.
#[track_caller]
pub(crate) fn control(bin: &Path, words: &[&str]) -> String {
    let path = std::env::var_os("PATH").unwrap();
    let output = Command::new(bin.join("standin")).args(words).env_clear().env("PATH", path).output().unwrap();
    assert!(output.status.success(), "standin {words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

impl Drop for StandInFolder {
    fn drop(&mut self) {
        // A test may have stopped it already.
        for words in ["sweep", "kill"] {
            let _ = Command::new(self.bin().join("standin")).arg(words).output();
        }
    }
}
