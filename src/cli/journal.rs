//! `dcluster journal`: what is in a cluster's journal, whether it is whole, and what to do when it is not.
//! `check` and `show` change nothing and need no server.

use super::Context;
use super::connect::{cluster_flag, open_disk};
use crate::cluster::{Folder, Identity};
use crate::config::options::ClusterOption;
use crate::error::{Kind, Problem};
use crate::runtime::disk::{Disk, RealDisk};
use crate::runtime::journal::inspect::{Hole, Inspected, Piece, inspect};
use crate::runtime::journal::{JournalError, Part, Recovered, recover};
use crate::runtime::lease::{LeaseState, ServerState, newest_claim, read_claim, read_lease};
use crate::server::describe::Describer;
use crate::server::record::Record;
use crate::server::repair::{Plan, plan, repair};
use crate::server::{core_of, replay};
use crate::ui::words::{count, grouped, size};
use clap::{Args, Subcommand};
use serde::Serialize;
use std::path::PathBuf;

/// Check, show and repair the journal: what the server has acknowledged
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  dcluster journal check
  dcluster journal show | tail
  dcluster journal repair")]
pub(super) struct JournalArgs {
    #[command(subcommand)]
    command: JournalCommand,
}

#[derive(Subcommand, Debug)]
enum JournalCommand {
    /// Read everything, change nothing, and say what is whole; exits with 1 if something is damaged
    #[command(after_help = "Examples:\n  dcluster journal check\n  dcluster journal check --name big --json")]
    Check(PlaceArgs),
    /// Print what the journal says, a record a line; also around damage
    #[command(after_help = "Examples:
  dcluster journal show | tail
  dcluster journal show --json | jq -r 'select(.kind == \"ended\") | .text'")]
    Show(ShowArgs),
    /// Make a new journal from what is readable of a damaged one; keeps the damaged files
    ///
    /// Says what is lost and what can be saved, and changes nothing without --yes. With it, the damaged files
    /// are copied to journal.damaged-TIME in the cluster folder before the new journal is written. Tasks whose
    /// end is lost run again. Refused while a server of the cluster lives.
    #[command(after_help = "Examples:\n  dcluster journal repair\n  dcluster journal repair --yes")]
    Repair(RepairArgs),
}

#[derive(Args, Debug)]
struct PlaceArgs {
    #[command(flatten)]
    cluster: ClusterOption,
    /// Cluster folder, or a copy of one, instead of a name.
    #[arg(value_name = "FOLDER", conflicts_with = "name")]
    folder: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct ShowArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// All parts, not only the one that counts.
    #[arg(long)]
    all: bool,
}

#[derive(Args, Debug)]
struct RepairArgs {
    #[command(flatten)]
    cluster: ClusterOption,
    /// Do it.
    #[arg(long)]
    yes: bool,
}

/// A cluster folder that is only read.
struct Place {
    folder: Folder,
    identity: Identity,
    disk: RealDisk,
}

impl PlaceArgs {
    fn open(&self, context: &Context) -> Result<Place, Problem> {
        let folder = match &self.folder {
            Some(path) => Folder::at(path),
            None => context.folder(&self.cluster)?,
        };
        let identity = if self.folder.is_some() {
            // A copy may be looked at.
            let id = folder.path().join("id");
            serde_json::from_slice(&folder.read("id")?).map_err(|error| {
                Problem::new(Kind::Unreachable, format!("{} is damaged", id.display())).says(error.to_string())
            })?
        } else if folder.exists() {
            folder.open()?
        } else {
            return Err(super::connect::not_up(&folder));
        };
        let disk = open_disk(&folder)?;
        Ok(Place { folder, identity, disk })
    }
}

impl Place {
    /// Reads as a server would. A server that lives may remove a part under the reader: it is read again.
    fn recover(&self, lease: Option<&LeaseState>) -> Result<Recovered, JournalError> {
        let mut tries = 0..3;
        loop {
            match recover(&self.disk, &self.identity.id, lease) {
                Err(JournalError::Io { .. }) if tries.next().is_some() => {}
                other => return other,
            }
        }
    }

    fn inspect(&self) -> Result<Vec<Inspected>, Problem> {
        inspect(&self.disk, &self.identity.id).map_err(|error| {
            Problem::new(Kind::Failed, format!("cannot read the journal in {}", self.folder.path().display()))
                .says(error.to_string())
        })
    }
}

pub(super) fn run(args: &JournalArgs, context: &Context) -> Result<u8, Problem> {
    match &args.command {
        JournalCommand::Check(args) => check(&args.open(context)?, context),
        JournalCommand::Show(args) => show(&args.place.open(context)?, args.all, context),
        JournalCommand::Repair(args) => mend(args, context),
    }
}

/// What `check` found.
#[derive(Serialize)]
struct Checked {
    cluster: String,
    folder: String,
    whole: bool,
    problem: Option<String>,
    lease: Option<CheckedLease>,
    claims: usize,
    parts: Vec<CheckedPart>,
}

#[derive(Serialize)]
struct CheckedLease {
    epoch: u32,
    state: &'static str,
    host: String,
    pid: u32,
    durable: u64,
}

#[derive(Serialize)]
struct CheckedPart {
    part: String,
    /// `in_use`, `older`, `unfinished` (never used by a server) or `foreign`.
    state: &'static str,
    bytes: u64,
    frames: usize,
    first: Option<u64>,
    last: Option<u64>,
    records: usize,
    closed: bool,
    torn_bytes: u64,
    damage: Vec<CheckedHole>,
}

#[derive(Serialize)]
struct CheckedHole {
    offset: u64,
    bytes: u64,
    after: u64,
    before: Option<u64>,
}

impl From<Hole> for CheckedHole {
    fn from(Hole { offset, bytes, after, before }: Hole) -> Self {
        Self { offset, bytes, after, before }
    }
}

fn check(place: &Place, context: &Context) -> Result<u8, Problem> {
    let lease = read_lease(&place.disk);
    let parts = place.inspect()?;
    let in_use = parts.iter().rfind(|part| part.served()).map(|part| part.part);
    let mut problems = Vec::new();
    let claims = place.disk.list("epochs").unwrap_or_default();
    let newest = newest_claim(&place.disk).map_err(|error| error.to_string());
    match newest {
        Ok(newest) if newest > 0 && read_claim(&place.disk, newest).is_ok_and(|claim| claim.is_none()) => {
            problems.push(format!("epochs/{newest} is not whole"));
        }
        Ok(_) => {}
        Err(error) => problems.push(error),
    }
    if let Err(error) = &lease {
        problems.push(error.to_string());
    }
    match place.recover(lease.as_ref().ok().and_then(Option::as_ref)) {
        Ok(read) => problems.extend(sense(place, &read)),
        Err(error) => problems.push(error.to_string()),
    }
    let checked = Checked {
        cluster: place.folder.name().to_owned(),
        folder: place.folder.path().display().to_string(),
        whole: problems.is_empty(),
        problem: problems.first().cloned(),
        lease: lease.ok().flatten().map(|lease| CheckedLease {
            epoch: lease.epoch,
            state: match lease.state {
                ServerState::Serving => "serving",
                ServerState::Closed => "closed",
            },
            host: lease.holder.host,
            pid: lease.holder.pid,
            durable: lease.durable,
        }),
        claims: claims.iter().filter(|name| name.parse::<u32>().is_ok()).count(),
        parts: parts.iter().map(|part| checked_part(part, in_use)).collect(),
    };
    if context.printer.json {
        context.printer.data_json(&checked)?;
    } else {
        print_checked(&checked, &parts, context)?;
    }
    if checked.whole {
        context.printer.note("the journal is whole");
        return Ok(0);
    }
    if !context.printer.json {
        let option = cluster_flag(&place.folder);
        context.printer.error(
            &Problem::new(Kind::Failed, "the journal is damaged")
                .says(problems.join("; "))
                .done("nothing was changed")
                .fix(format!("dcluster journal show{option}  (what it says)"))
                .fix(format!("dcluster journal repair{option}  (says what would be lost; --yes does it)")),
        );
    }
    Ok(Kind::Failed as u8)
}

/// Looks whether the records say something that can be.
fn sense(place: &Place, read: &Recovered) -> Option<String> {
    for bytes in read.records.iter() {
        if let Err(error) = Record::decode(bytes) {
            return Some(format!("a record of an unknown kind: {error}; a newer dcluster may have written it"));
        }
    }
    // A copy without the cluster's specification: the records alone must do.
    let mut core = core_of(&place.folder, &place.identity, u32::MAX >> 8, 1).ok()?;
    let replayed = replay(&place.folder, &place.disk, &place.identity, None, &mut core);
    replayed.err().and_then(|problem| problem.says).map(String::from)
}

fn checked_part(part: &Inspected, in_use: Option<Part>) -> CheckedPart {
    let mut numbers = part.frames().map(|(_, sequence, _)| sequence);
    let first = numbers.next();
    CheckedPart {
        part: part.part.to_string(),
        state: if part.foreign {
            "foreign"
        } else if Some(part.part) == in_use {
            "in_use"
        } else if part.served() {
            "older"
        } else {
            "unfinished"
        },
        bytes: part.bytes,
        frames: part.frames().count(),
        first,
        last: numbers.last().or(first),
        records: part.frames().map(|(_, _, records)| records.len()).sum(),
        closed: part.is_closed(),
        torn_bytes: part.torn_bytes(),
        damage: part.damage().map(CheckedHole::from).collect(),
    }
}

fn print_checked(checked: &Checked, parts: &[Inspected], context: &Context) -> Result<(), Problem> {
    let printer = context.printer;
    let lease = checked.lease.as_ref().map_or_else(
        || "none".to_owned(),
        |lease| {
            let CheckedLease { epoch, state, host, pid, durable } = lease;
            format!("epoch {epoch}, {state}, {host} (pid {pid}); durable up to frame {durable}")
        },
    );
    printer.data(format!("lease  {lease}"))?;
    printer.data(format!("claims {}", checked.claims))?;
    for (shown, part) in checked.parts.iter().zip(parts) {
        let state = match shown.state {
            "in_use" => "in use",
            "foreign" => "belongs to another cluster",
            other => other,
        };
        let frames = match (shown.first, shown.last) {
            (Some(first), Some(last)) => format!("{} ({first} to {last})", count(shown.frames as u64, "frame")),
            _ => "no frame".to_owned(),
        };
        let closed = if shown.closed { ", closed" } else { "" };
        printer.data(format!(
            "{}: {state}, {}, {frames}, {}{closed}",
            shown.part,
            size(shown.bytes),
            count(shown.records as u64, "record")
        ))?;
        let unread = if shown.state == "older" { "; nothing reads it any more" } else { "" };
        for hole in part.damage() {
            printer.data(format!("  damaged: {}{unread}", hole_words(hole)))?;
        }
        if shown.torn_bytes > 0 {
            printer
                .data(format!("  {} at the end are no frame: never acknowledged", count(shown.torn_bytes, "byte")))?;
        }
    }
    Ok(())
}

/// Says where a hole is and which frames stood there.
fn hole_words(hole: Hole) -> String {
    let Hole { offset, bytes, after, before } = hole;
    let place = format!("bytes {} to {} are no frame", grouped(offset), grouped(offset + bytes.saturating_sub(1)));
    match before {
        Some(before) if after == 0 => format!("{place} (frames before {before})"),
        Some(before) if before == after + 2 => format!("{place} (frame {})", after + 1),
        Some(before) => format!("{place} (frames {} to {})", after + 1, before - 1),
        None => format!("{place} (after frame {after})"),
    }
}

/// A line of `show --json`.
#[derive(Serialize)]
struct Shown<'a> {
    part: String,
    offset: u64,
    sequence: Option<u64>,
    frame: Option<crate::runtime::journal::Kind>,
    kind: &'a str,
    submission: Option<u32>,
    text: &'a str,
}

fn show(place: &Place, all: bool, context: &Context) -> Result<u8, Problem> {
    let parts = place.inspect()?;
    let counts = parts.iter().rposition(|part| part.served());
    let from = if all { 0 } else { counts.unwrap_or(0) };
    let to = if all { parts.len() } else { counts.map_or(parts.len(), |at| at + 1) };
    for part in &parts[from..to] {
        if !context.printer.json {
            context.printer.note(&format!("{} (frame, offset, what it says)", part.part));
        }
        let mut describer = Describer::default();
        for piece in &part.pieces {
            match piece {
                Piece::Frame { offset, kind, sequence, records } => {
                    for bytes in records {
                        let (word, submission, text) = match Record::decode(bytes) {
                            Ok(record) => {
                                let described = describer.describe(&record);
                                (described.kind, described.submission, described.text)
                            }
                            Err(error) => ("unknown", None, format!("a record of an unknown kind: {error}")),
                        };
                        let shown = Shown {
                            part: part.part.to_string(),
                            offset: *offset,
                            sequence: Some(*sequence),
                            frame: Some(*kind),
                            kind: word,
                            submission,
                            text: &text,
                        };
                        print_shown(&shown, context)?;
                    }
                }
                Piece::Hole(hole) => {
                    let shown = Shown {
                        part: part.part.to_string(),
                        offset: hole.offset,
                        sequence: None,
                        frame: None,
                        kind: "unreadable",
                        submission: None,
                        text: &hole_words(*hole),
                    };
                    print_shown(&shown, context)?;
                }
            }
        }
    }
    Ok(0)
}

fn print_shown(shown: &Shown<'_>, context: &Context) -> Result<(), Problem> {
    if context.printer.json {
        return context.printer.data_json(shown);
    }
    let sequence = shown.sequence.map_or_else(|| "-".to_owned(), |sequence| sequence.to_string());
    context.printer.data(format!("{sequence:>8} {:>10}  {}", shown.offset, shown.text))
}

/// What `repair` would do, or did.
#[derive(Serialize)]
struct Mended {
    cluster: String,
    done: bool,
    submissions: u64,
    records: u64,
    lost_submissions: Vec<u32>,
    damage: Vec<MendedHole>,
    missing_end: Option<(u64, u64)>,
    left_out: Vec<LeftOut>,
    saved: Option<String>,
    epoch: Option<u32>,
}

#[derive(Serialize)]
struct MendedHole {
    part: String,
    offset: u64,
    bytes: u64,
    after: u64,
    before: Option<u64>,
}

#[derive(Serialize)]
struct LeftOut {
    sequence: u64,
    text: String,
}

fn mend(args: &RepairArgs, context: &Context) -> Result<u8, Problem> {
    let place = PlaceArgs { cluster: args.cluster.clone(), folder: None }.open(context)?;
    let lease = read_lease(&place.disk).map_err(|error| {
        let lease = place.folder.path().join("lease");
        Problem::new(Kind::Failed, "the lease cannot be read, so nobody knows whether a server lives")
            .says(error.to_string())
            .done("nothing was changed")
            .fix(format!("if you are sure that none does: mv {0} {0}.damaged", lease.display()))
    })?;
    let whole = place.recover(lease.as_ref()).is_ok_and(|read| sense(&place, &read).is_none());
    if whole {
        context.printer.note("the journal is whole: there is nothing to repair");
        return Ok(0);
    }
    let (plan, repaired) = if args.yes {
        let waiting = |seconds| {
            context.printer.note(&format!("waiting for proof that no server lives: at most {seconds} s"));
        };
        let (plan, repaired) = repair(&place.folder, &place.identity, &place.disk, waiting)?;
        (plan, Some(repaired))
    } else {
        (plan(&place.folder, &place.identity, &place.disk)?, None)
    };
    if context.printer.json {
        let hole = |(part, hole): &(Part, Hole)| MendedHole {
            part: part.to_string(),
            offset: hole.offset,
            bytes: hole.bytes,
            after: hole.after,
            before: hole.before,
        };
        let left_out = |(sequence, text): &(u64, String)| LeftOut { sequence: *sequence, text: text.clone() };
        context.printer.data_json(&Mended {
            cluster: place.folder.name().to_owned(),
            done: repaired.is_some(),
            submissions: plan.submissions,
            records: plan.records,
            lost_submissions: plan.lost_submissions.clone(),
            damage: plan.holes.iter().map(hole).collect(),
            missing_end: plan.missing_end,
            left_out: plan.left_out.iter().map(left_out).collect(),
            saved: repaired.as_ref().map(|repaired| repaired.saved.display().to_string()),
            epoch: repaired.as_ref().map(|repaired| repaired.epoch),
        })?;
        return Ok(0);
    }
    for line in lines(&plan) {
        context.printer.data(line)?;
    }
    let option = cluster_flag(&place.folder);
    match repaired {
        None => context.printer.note(&format!("nothing was changed; to do it: dcluster journal repair{option} --yes")),
        Some(repaired) => {
            context.printer.note(&format!("the damaged files are in {}", repaired.saved.display()));
            context.printer.note(&format!("repaired; dcluster up{option} goes on"));
        }
    }
    Ok(0)
}

/// The plan in words: what is lost first.
fn lines(plan: &Plan) -> Vec<String> {
    let mut lines = Vec::new();
    for (part, hole) in &plan.holes {
        lines.push(format!("lost: {part}: {}", hole_words(*hole)));
    }
    if let Some((newest, older)) = plan.base_from {
        lines.push(format!("the beginning of {newest} is damaged; what it said is taken from {older}"));
    }
    if let Some((first, last)) = plan.missing_end {
        lines.push(format!("lost: frames {first} to {last} at the end, which the lease says were durable"));
    }
    for id in &plan.lost_submissions {
        lines.push(format!("lost: task {id} (the whole submission): submit it again"));
    }
    for (sequence, text) in &plan.left_out {
        lines.push(format!("left out: frame {sequence}: {text}"));
    }
    if !plan.holes.is_empty() || plan.missing_end.is_some() {
        lines
            .push("tasks whose end stood in what is lost run again; jobs may run of which nothing is known".to_owned());
    }
    let (submissions, records) = (count(plan.submissions, "submission"), count(plan.records, "record"));
    lines.push(format!("saved: {submissions}, {records}"));
    lines
}
