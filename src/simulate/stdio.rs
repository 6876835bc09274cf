//! The controller for somebody else's simulator: settings on the first line, then an observation a line in and
//! a decision a line out. What was learned is said when it is asked for. `check` says what may stand in them.

mod check;

use crate::adapt::{Controller, Decision, Learned, Observation, Settings};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, Read};

/// Longest line in bytes: an observation of a hundred thousand jobs.
const LINE_MAX: u64 = 64 << 20;

/// The line that asks for what was learned.
const ASK_LEARNED: &str = r#""learned""#;

/// What a line is answered with.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// What to do after an observation.
    Decision(Box<Decision>),
    /// What was learned so far, under the key by which another process takes it.
    Learned {
        /// All of it.
        learned: Learned,
    },
}

/// Why it ended early.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StdioError<E> {
    /// The settings are wrong.
    #[error("the settings are wrong: {0}")]
    Settings(String),
    /// An observation is wrong.
    #[error("line {line} is no observation: {what}")]
    Observation {
        /// Its line, from 1.
        line: u64,
        /// What is wrong.
        what: String,
    },
    /// The input cannot be read.
    #[error("cannot read: {0}")]
    Input(String),
    /// A decision could not be written.
    #[error("cannot write")]
    Output(E),
}

/// The first line, if it says more than settings.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Start {
    settings: Settings,
    #[serde(default)]
    learned: Learned,
}

/// Reads until the end of the input, and gives every answer to `tell` before it reads on.
///
/// # Errors
/// A line is wrong, too long or cannot be read; or what `tell` says.
pub fn serve<E>(mut input: impl BufRead, mut tell: impl FnMut(&Answer) -> Result<(), E>) -> Result<(), StdioError<E>> {
    let mut session: Option<Session> = None;
    let mut bytes = Vec::new();
    let mut line = 0;
    loop {
        bytes.clear();
        let read = input.by_ref().take(LINE_MAX).read_until(b'\n', &mut bytes);
        if read.map_err(|error| StdioError::Input(error.to_string()))? == 0 {
            break;
        }
        line += 1;
        let text = text(&bytes);
        if text == Ok("") {
            continue;
        }
        match &mut session {
            None => session = Some(text.and_then(Session::start).map_err(StdioError::Settings)?),
            Some(session) => {
                let answer = text.and_then(|text| session.answer(text));
                let answer = answer.map_err(|what| StdioError::Observation { line, what })?;
                tell(&answer).map_err(StdioError::Output)?;
            }
        }
    }
    if session.is_none() { Err(StdioError::Settings("there is no line with them".to_owned())) } else { Ok(()) }
}

/// Returns what stands in a line, without its end.
fn text(bytes: &[u8]) -> Result<&str, String> {
    if bytes.len() as u64 == LINE_MAX && !bytes.ends_with(b"\n") {
        return Err(format!("it is longer than {} MiB", LINE_MAX >> 20));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| format!("byte {} is no UTF-8", error.valid_up_to() + 1))?;
    Ok(text.trim_end())
}

/// A controller, and what its driver must keep to.
struct Session {
    controller: Controller,
    pools: BTreeSet<String>,
    /// `now` of the last observation.
    before: f64,
}

impl Session {
    fn start(text: &str) -> Result<Self, String> {
        let value: Value = parse(text)?;
        let start: Start = if value.get("settings").is_some() {
            known(value)?
        } else {
            Start { settings: known(value)?, learned: Learned::default() }
        };
        check::settings(&start.settings)?;
        check::learned(&start.learned)?;
        let pools = start.settings.pools.iter().map(|pool| pool.name.clone()).collect();
        Ok(Self { controller: Controller::new(start.settings, start.learned), pools, before: f64::NEG_INFINITY })
    }

    fn answer(&mut self, text: &str) -> Result<Answer, String> {
        if text.trim_start() == ASK_LEARNED {
            return Ok(Answer::Learned { learned: self.controller.learned() });
        }
        let seen: Observation = parse(text)?;
        check::observation(&seen, &self.pools)?;
        if seen.now < self.before {
            return Err(format!("`now` is {:?}, and was {:?} before", seen.now, self.before));
        }
        self.before = seen.now;
        Ok(Answer::Decision(Box::new(self.controller.decide(&seen))))
    }
}

/// Takes a value none of whose keys is unknown. A server skips those of its file, which a newer one may have written;
/// a driver must have misspelt it.
fn known<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    let mut unknown = None;
    let taken = serde_ignored::deserialize(value, |path| unknown = unknown.take().or(Some(path.to_string())));
    let taken = taken.map_err(|error: serde_json::Error| error.to_string())?;
    unknown.map_or(Ok(taken), |path| Err(format!("unknown field `{path}`")))
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    // The parser counts lines of its own: only the column means something here.
    serde_json::from_str(text).map_err(|error| error.to_string().replace(" at line 1 column ", " at column "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: &str = r#"{"min": 0, "max": 4, "pools": [{"cores": 2}]}"#;
    const SEEN: &str = r#"{"now": 10, "classes": [{"name": "a", "ready": 9}]}"#;

    fn run(lines: &[&str]) -> Result<Vec<Decision>, StdioError<String>> {
        let mut decisions = Vec::new();
        let text = lines.join("\n");
        serve(text.as_bytes(), |answer| {
            if let Answer::Decision(decision) = answer {
                decisions.push(Decision::clone(decision));
            }
            Ok(())
        })?;
        Ok(decisions)
    }

    #[test]
    fn decides_what_the_controller_decides() {
        let settings: Settings = serde_json::from_str(SETTINGS).unwrap();
        let mut controller = Controller::new(settings, Learned::default());
        let want = controller.decide(&serde_json::from_str(SEEN).unwrap());
        assert!(!want.submit.is_empty());
        let start = format!(r#"{{"settings": {SETTINGS}, "learned": {{}}}}"#);
        let want = [want];
        assert_eq!(run(&[SETTINGS, "", SEEN]).unwrap(), want);
        assert_eq!(run(&[&start, SEEN, ""]).unwrap(), want);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (lines, words) in [
            (&[][..], "there is no line"),
            (&["{"], "the settings are wrong: EOF while parsing an object at column 1"),
            (&[r#"{"min": 0, "max": 4, "pools": []}"#], "`pools` is empty"),
            (&[r#"{"min": 5, "max": 4, "pools": [{"cores": 2}]}"#], "`min` is 5"),
            (&[r#"{"min": 0, "max": 4, "pools": [{"cores": 2}], "efficiency": 2}"#], "`efficiency` is 2"),
            (&[r#"{"min": 0, "max": 4, "pool": [{"cores": 2}]}"#], "unknown field `pool`"),
            (&[r#"{"min": 0, "max": 4294967295, "pools": [{"cores": 2}]}"#], "`max` is 4294967295, more than"),
            (&[SETTINGS, "", SEEN, r#"{"nou": 1}"#], "line 4 is no observation: unknown field `nou`"),
            (&[SETTINGS, r#"{"now": 1"#, SEEN], "line 2 is no observation: EOF while parsing an object at column 9"),
            (&[SETTINGS, "nonsense"], "line 2 is no observation: expected"),
        ] {
            let error = run(lines).unwrap_err();
            assert!(error.to_string().contains(words), "{lines:?}: {error}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_said_with_their_line() {
        let run = |bytes: &[u8]| serve(bytes, |_| Ok::<(), String>(())).unwrap_err().to_string();
        assert_eq!(run(b"{\"min\xff"), "the settings are wrong: byte 6 is no UTF-8");
        let bytes = [SETTINGS.as_bytes(), b"\n\n\xff\n", SEEN.as_bytes()].concat();
        assert_eq!(run(&bytes), "line 3 is no observation: byte 1 is no UTF-8");
        let long = [SETTINGS.as_bytes(), b"\n", &vec![b'['; LINE_MAX as usize + 1]].concat();
        assert_eq!(run(&long), "line 2 is no observation: it is longer than 64 MiB");
    }

    #[test]
    fn settings_that_make_no_sense_are_refused_by_their_key() {
        for (more, words) in [
            (r#""rate_per_minute": 0"#, "`rate_per_minute` is 0.0: write more than 0"),
            (r#""rate_per_minute": 1e308"#, "`rate_per_minute` is 1e308"),
            (r#""idle_timeout": -1"#, "`idle_timeout` is -1.0, not 0 to"),
            (r#""idle_timeout": 1e308"#, "`idle_timeout` is 1e308"),
        ] {
            let line = SETTINGS.replace(r#""min""#, &format!(r#"{more}, "min""#));
            let error = run(&[&line]).unwrap_err();
            assert!(matches!(&error, StdioError::Settings(what) if what.contains(words)), "{line}: {error}");
        }
        for (pool, words) in [
            (r#""cores": 0"#, "pool `default`: `cores` is 0"),
            (r#""cores": 2, "walltime": 0"#, "pool `default`: `walltime` is 0"),
            (r#""cores": 2, "walltime": -5"#, "`walltime` is -5.0"),
            (r#""cores": 2, "walltime": 1e308"#, "`walltime` is 1e308"),
            (r#""cores": 2, "drain_lead": -5"#, "`drain_lead` is -5.0"),
            (r#""cores": 2, "walltime_choices": [60, 0]"#, "`walltime_choices` is 0"),
            (r#""cores": 2, "name": "a"}, {"cores": 3, "name": "a""#, "two of `pools` have the name `a`"),
        ] {
            let line = SETTINGS.replace(r#""cores": 2"#, pool);
            let error = run(&[&line]).unwrap_err();
            assert!(matches!(&error, StdioError::Settings(what) if what.contains(words)), "{line}: {error}");
        }
        for (learned, words) in [
            (
                r#""durations": {"a": {"ended": 1, "mean": -1, "p90": 1, "longest": 1}}"#,
                "class `a` in `learned`: `mean`",
            ),
            (r#""pools": {"default": {"waits": [[1e308, 60]]}}"#, "pool `default` in `learned`: `waits` is 1e308"),
            (r#""pools": {"default": {"gaps": [-1]}}"#, "`gaps` is -1.0"),
            (r#""foo": 1"#, "unknown field `learned.foo`"),
            (r#""pools": {"default": {"wait": []}}"#, "unknown field `learned.pools.default.wait`"),
        ] {
            let line = format!(r#"{{"settings": {SETTINGS}, "learned": {{{learned}}}}}"#);
            let error = run(&[&line]).unwrap_err();
            assert!(matches!(&error, StdioError::Settings(what) if what.contains(words)), "{line}: {error}");
        }
    }

    #[test]
    fn observations_that_cannot_be_are_refused() {
        let durations = |mean: &str| format!(r#""durations": {{"ended": 3, "mean": {mean}, "p90": 2, "longest": 2}}"#);
        let (long, negative) = (durations("1e308"), durations("-1"));
        for (class, words) in [
            (r#""cores": 0"#, "class `a`: `cores` is 0"),
            (r#""nodes": 0"#, "class `a`: `nodes` is 0"),
            (r#""time_request": -1"#, "class `a`: `time_request` is -1.0"),
            (r#""running": [{"job": 1, "elapsed": -1}]"#, "class `a`: `elapsed` is -1.0"),
            (r#""running": [{"job": 1, "elapsed": 1e308}]"#, "class `a`: `elapsed` is 1e308"),
            (&long, "class `a`: `mean` is 1e308"),
            (&negative, "class `a`: `mean` is -1.0"),
            (&negative.replace("-1", "1").replace(r#""p90": 2"#, r#""p90": -2"#), "class `a`: `p90` is -2.0"),
            (&negative.replace("-1", "1").replace(r#""longest": 2"#, r#""longest": -2"#), "`longest` is -2.0"),
            (&negative.replace("3", "18446744073709551615, \"cut\": 1"), "`ended` and `cut`"),
        ] {
            refused(&SEEN.replace(r#""ready": 9"#, class), words);
        }
        for (jobs, words) in [
            (r#"{"id": 1, "phase": "up"}, {"id": 1, "phase": "pending"}"#, "two of `jobs` have the id 1"),
            (r#"{"id": 1, "phase": "up", "pool": "b"}"#, "job 1: there is no pool `b`, only default"),
            (r#"{"id": 1, "phase": "up", "submitted_at": 5, "started_at": 4}"#, "job 1: `started_at` is 4.0, before"),
            (r#"{"id": 1, "phase": "up", "submitted_at": 5, "up_at": 4}"#, "job 1: `up_at` is 4.0, before"),
            (r#"{"id": 1, "phase": "up", "submitted_at": -1e308}"#, "job 1: `submitted_at` is -1e308, farther"),
            (r#"{"id": 1, "phase": "up", "idle_since": 1e308}"#, "job 1: `idle_since` is 1e308"),
            (r#"{"id": 1, "phase": "up", "walltime": -1}"#, "job 1: `walltime` is -1.0"),
        ] {
            refused(&format!(r#"{{"now": 10, "jobs": [{jobs}]}}"#), words);
        }
        for (waits, words) in [
            (r#"{"wait": -1}"#, "`expected_waits`: `wait` is -1.0"),
            (r#"{"wait": 1, "pool": "b"}"#, "`expected_waits`: there is no pool `b`"),
        ] {
            refused(&format!(r#"{{"now": 10, "expected_waits": [{waits}]}}"#), words);
        }
        refused(r#"{"now": 1e308}"#, "`now` is 1e308");
    }

    fn refused(observation: &str, words: &str) {
        let error = run(&[SETTINGS, observation]).unwrap_err();
        let said = matches!(&error, StdioError::Observation { line: 2, what } if what.contains(words));
        assert!(said, "{observation}: {error}");
    }

    #[test]
    fn where_no_pool_is_said_it_is_the_first() {
        let settings = SETTINGS.replace(r#""cores": 2"#, r#""cores": 2, "name": "small"}, {"cores": 4, "name": "b""#);
        let job = r#"{"now": 10, "jobs": [{"id": 1, "phase": "up", "submitted_at": 0, "ends_at": 1e300}]}"#;
        assert_eq!(run(&[&settings, job]).unwrap()[0].numbers.up, 1);
        assert!(run(&[&settings, &job.replace(r#""id""#, r#""pool": "b", "id""#)]).is_ok());
    }

    #[test]
    fn what_was_learned_is_said_and_taken_again() {
        let job = r#"{"now": 50, "classes": [{"name": "a", "durations": {"ended": 3, "mean": 4, "p90": 5, "longest": 6}}],
            "jobs": [{"id": 1, "phase": "up", "submitted_at": 0, "started_at": 30, "up_at": 42, "idle_since": 45}]}"#;
        let job = job.replace('\n', " ");
        let learned = |start: &str, lines: &[&str]| {
            let mut said = Vec::new();
            let text = [&[start], lines].concat().join("\n");
            serve(text.as_bytes(), |answer| {
                said.push(serde_json::to_value(answer).unwrap());
                Ok::<(), String>(())
            })
            .unwrap();
            said.pop().unwrap()
        };
        let mut first = learned(SETTINGS, &[&job, ASK_LEARNED]);
        assert_eq!(first["learned"]["pools"]["default"]["waits"], serde_json::json!([[30.0, 0.0]]));
        assert_eq!(first["learned"]["durations"]["a"]["mean"], 4.0);
        first["settings"] = serde_json::from_str(SETTINGS).unwrap();
        let second = learned(&first.to_string(), &[ASK_LEARNED]);
        assert_eq!(second["learned"], first["learned"]);
        assert_eq!(learned(&first.to_string(), &[SEEN])["numbers"]["startup"], 12.0);
    }

    #[test]
    fn a_reader_that_left_ends_it() {
        let ended = serve(format!("{SETTINGS}\n{SEEN}\n{SEEN}").as_bytes(), |_| Err("left"));
        assert_eq!(ended, Err(StdioError::Output("left")));
    }
}
