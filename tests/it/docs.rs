//! The documents agree with the program: whatever `dcluster …` line a console block shows can be typed, every
//! command and option is documented, and the table of exit codes is the one of `src/error.rs`.
//! (Links are checked by `tests/links`.)

use clap::{Arg, Command, CommandFactory};
use dcluster::error::Kind;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Pages about things that do not exist yet would be lies, so all of them are read.
fn pages() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = docs.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    paths.push(root.join("README.md"));
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// Returns the commands in a page's console and shell blocks and in its code spans: from `dcluster` to the end of the command.
fn commands(page: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut block: Option<&str> = None;
    for line in page.lines() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            block = if block.is_some() { None } else { Some(language) };
            continue;
        }
        if block.is_none() {
            let spans = line.split('`').skip(1).step_by(2).filter(|span| span.starts_with("dcluster "));
            found.extend(spans.flat_map(parts).filter(|part| part.len() > 1).map(|part| part[1..].to_vec()));
        }
        let typed = match block {
            Some("console") => line.strip_prefix("$ "),
            Some("sh" | "bash") => Some(line),
            _ => None,
        };
        // What follows in a pipe or list is another command, which may be ours, too.
        for part in typed.into_iter().flat_map(parts) {
            // Assignments (`DCLUSTER_BACKEND=slurm`) and what runs us (`salloc`) come first.
            if let Some(at) = part.iter().position(|word| word == "dcluster") {
                found.push(part[at + 1..].to_vec());
            }
        }
    }
    found
}

/// Splits a line into commands and words, as far as a page needs it: quotes, comments, pipes and lists.
fn parts(line: &str) -> Vec<Vec<String>> {
    let mut spaced = String::new();
    let mut quote = None;
    for character in line.chars() {
        match (quote, character) {
            (None, '\'' | '"') => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            (None, '|' | ';' | '>' | '<' | '&') => {
                spaced.extend([' ', character, ' ']);
                continue;
            }
            _ => {}
        }
        spaced.push(character);
    }
    let words = shlex::split(&spaced).unwrap_or_else(|| panic!("unbalanced quotes: {line}"));
    words.split(|word| ["|", ";", ">", "<", "&"].contains(&word.as_str())).map(<[String]>::to_vec).collect()
}

fn longs(arg: &Arg) -> impl Iterator<Item = String> + use<> {
    let aliases: Vec<String> = arg.get_all_aliases().into_iter().flatten().map(str::to_owned).collect();
    arg.get_long().map(str::to_owned).into_iter().chain(aliases)
}

/// Returns what is wrong with a command line, if anything.
fn wrong(root: &Command, words: &[String]) -> Option<String> {
    let mut command = root;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            break;
        }
        let Some(option) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
            if let Some(sub) = command.find_subcommand(word) {
                command = sub;
            } else if command.has_subcommands() {
                return Some(format!("there is no command `{word}`"));
            } else if command.get_positionals().any(Arg::is_trailing_var_arg_set) {
                break;
            }
            continue;
        };
        let (name, value) = option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
        if ["-help", "h", "-version", "V"].contains(&name) {
            continue;
        }
        let args = || command.get_arguments().chain(root.get_arguments().filter(|arg| arg.is_global_set()));
        let arg = match name.strip_prefix('-') {
            Some(long) => args().find(|arg| longs(arg).any(|known| known == long)),
            None => args().find(|arg| arg.get_short().is_some_and(|short| name.starts_with(short))),
        };
        let Some(arg) = arg else {
            return Some(format!("`{}` has no option `{word}`", command.get_name()));
        };
        let joined = value.is_some() || !name.starts_with('-') && name.len() > 1;
        if arg.get_action().takes_values() && !joined {
            words.next();
        }
    }
    None
}

fn root() -> Command {
    let mut root = dcluster::cli::Cli::command();
    root.build();
    root
}

#[test]
fn every_command_line_in_the_documents_exists() {
    let root = root();
    let mut count = 0;
    let mut errors = Vec::new();
    for (path, text) in pages() {
        for words in commands(&text) {
            count += 1;
            if let Some(what) = wrong(&root, &words) {
                errors.push(format!("{}: dcluster {}: {what}", path.display(), words.join(" ")));
            }
        }
    }
    assert!(errors.is_empty(), "{}", errors.join("\n"));
    assert!(count > 60, "only {count} command lines found: are the blocks still marked console or sh?");
}

#[test]
fn the_check_can_fail() {
    let root = root();
    let check = |line: &str| commands(&format!("```console\n$ {line}\n```\n")).iter().find_map(|w| wrong(&root, w));
    for good in [
        "dcluster",
        "dcluster up --cores 4 --wait=2",
        "dcluster map -j4 'x --no {}' ::: --yes | sort --nosuch",
        "DCLUSTER_BACKEND=local dcluster submit --wait -- ls --all",
        "dcluster --json config show --profile big > a",
        "salloc dcluster worker join --cores 8",
        "dcluster help up",
        "ls --nosuch",
    ] {
        assert_eq!(check(good), None, "{good}");
    }
    for bad in [
        "dcluster upp",
        "dcluster up --corse 4",
        "dcluster status -x",
        "true; dcluster config shows",
        "dcluster submit --nosuch -- ls",
        "ls | dcluster map --nosuch gzip",
        "dcluster worker join --nosuch",
    ] {
        assert!(check(bad).is_some(), "{bad}");
    }
}

#[test]
fn every_command_and_option_is_documented() {
    fn walk(command: &Command, path: &str, text: &str, missing: &mut BTreeSet<String>) {
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
            let path = format!("{path} {}", sub.get_name());
            if !text.contains(&path) {
                missing.insert(path.clone());
            }
            for arg in sub.get_arguments().filter(|arg| !arg.is_hide_set() && !arg.is_global_set()) {
                // Either is enough: `-j` or `--max-tasks`.
                let short = arg.get_short().map(|short| format!("`-{short}"));
                let long = arg.get_long().filter(|long| !["help", "version"].contains(long));
                let known = |name: &str| text.contains(&format!("--{name}"));
                if let Some(long) = long
                    && !known(long)
                    && !short.is_some_and(|short| text.contains(&short))
                {
                    missing.insert(format!("{path} --{long}"));
                }
            }
            walk(sub, &path, text, missing);
        }
    }
    let text: String = pages().into_iter().map(|(_, text)| text + "\n").collect();
    let root = root();
    let mut missing = BTreeSet::new();
    walk(&root, "dcluster", &text, &mut missing);
    for arg in root.get_arguments().filter(|arg| arg.is_global_set()) {
        let name = format!("--{}", arg.get_long().unwrap());
        if !text.contains(&name) {
            missing.insert(name);
        }
    }
    assert!(missing.is_empty(), "not in the documents: {missing:?}");
}

/// The sources whose tests the documents may name.
fn sources(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|end| end == "rs") {
            text.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_test_that_a_promise_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut code = String::new();
    sources(&root.join("src"), &mut code);
    sources(&root.join("tests"), &mut code);
    let mut count = 0;
    for page in ["ARCHITECTURE.md", "docs/reliability.md", "docs/security.md"] {
        let text = std::fs::read_to_string(root.join(page)).unwrap();
        for name in text.split('`').skip(1).step_by(2) {
            // Tests are named by sentences; what has fewer words is something else.
            let is_sentence =
                name.matches('_').count() >= 2 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            if is_sentence {
                count += 1;
                assert!(code.contains(&format!("fn {name}(")), "{page}: there is no test `{name}`");
            }
        }
    }
    assert!(count > 20, "only {count} tests are named");
}

#[test]
fn the_table_of_exit_codes_is_that_of_the_code() {
    let kinds = [
        Kind::OutputClosed,
        Kind::Failed,
        Kind::Usage,
        Kind::Unreachable,
        Kind::Internal,
        Kind::TryAgain,
        Kind::Config,
        Kind::TimeOut,
        Kind::Interrupted,
    ];
    // A new kind does not compile here until it is in the list above.
    for kind in kinds {
        match kind {
            Kind::OutputClosed | Kind::Failed | Kind::Usage | Kind::Unreachable | Kind::Internal => {}
            Kind::TryAgain | Kind::Config | Kind::TimeOut | Kind::Interrupted => {}
        }
    }
    let name = |kind: Kind| serde_json::to_value(kind).unwrap().as_str().unwrap().to_owned();
    let code: BTreeMap<u8, String> = kinds.into_iter().map(|kind| (kind as u8, name(kind))).collect();
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/exit-codes.md")).unwrap();
    let documented: BTreeMap<u8, String> = page
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let code = cells.get(1)?.parse().ok()?;
            Some((code, cells.get(2)?.trim_matches('`').to_owned()))
        })
        .collect();
    assert_eq!(documented, code);
    // And `dcluster --help` names the same ones.
    let help = root().get_after_help().unwrap().to_string();
    let said: BTreeSet<u8> = help.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
    assert_eq!(said, code.keys().copied().collect());
}
