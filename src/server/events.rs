//! The events of a cluster as files of JSON lines, one file per epoch: they outlive the server and
//! are read without it. A disk that refuses them loses events, never work.

use super::core::EventLine;
use crate::adapt::Entry;
use crate::cluster::private_folder;
use crate::ledger::Moment;
use crate::ui::words::iso_time;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// One event, as `events --json` prints it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Event {
    /// ISO 8601, UTC.
    pub time: String,
    /// Kind, for programs.
    pub kind: String,
    /// Number of the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<u32>,
    /// Id of the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The sentence.
    pub text: String,
    /// The decision of the scaling loop, with the figures it rests on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<serde_json::Value>,
}

/// Writes events.
#[derive(Debug)]
pub struct EventFile {
    file: Option<File>,
}

impl EventFile {
    /// Opens the file of an epoch.
    pub fn open(folder: &Path, epoch: u32) -> Self {
        let open = || {
            private_folder(folder)?;
            let path = folder.join(format!("{epoch:06}.jsonl"));
            OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path)
        };
        let file = open().map_err(|error| tracing::warn!(%error, "events are not kept")).ok();
        Self { file }
    }

    /// Appends events.
    pub fn write(&mut self, lines: Vec<EventLine>, now: Moment) {
        let mut text = String::new();
        for line in lines {
            tracing::info!(kind = line.kind, "{}", line.text);
            let event = Event {
                time: iso_time(Timestamp::from_millisecond(now.wall.cast_signed()).unwrap_or_default()),
                kind: line.kind.to_owned(),
                job: line.job.map(|job| job.0),
                task: line.task,
                text: line.text,
                decision: None,
            };
            text.push_str(&serde_json::to_string(&event).unwrap_or_default());
            text.push('\n');
        }
        self.append(&text);
    }

    /// Appends a decision of the scaling loop.
    pub fn write_decision(&mut self, entry: &Entry) {
        tracing::info!(kind = "scaling", "{}", entry.decision.reason);
        let event = Event {
            time: iso_time(Timestamp::from_millisecond(entry.at.cast_signed()).unwrap_or_default()),
            kind: "scaling".to_owned(),
            job: None,
            task: None,
            text: entry.decision.reason.clone(),
            decision: serde_json::to_value(&entry.decision).ok(),
        };
        self.append(&format!("{}\n", serde_json::to_string(&event).unwrap_or_default()));
    }

    fn append(&mut self, text: &str) {
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(text.as_bytes())
        {
            tracing::debug!(%error, "events not written");
        }
    }
}
