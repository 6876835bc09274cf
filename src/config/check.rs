//! What `config check` finds: all problems of all files, of the settings in force and of every
//! profile, each once.

use super::host::Facts;
use super::layers::Layers;
use super::problem::ConfigError;
use super::resolve::resolve_all;

/// Returns all problems; none means that every command would accept this configuration, with any
/// of its profiles.
pub fn check(layers: &Layers, facts: &Facts) -> Vec<ConfigError> {
    let mut problems = layers.problems.clone();
    // A problem of reading has been said; beyond it, the profile asked for may be unknown.
    let readable = Layers { problems: Vec::new(), ..layers.clone() };
    let asked = readable.settings();
    let profiles = layers.profile_names().map(|name| Ok(readable.merged(Some(name))));
    // Each file by itself, too: what a stronger layer hides is still wrong.
    let files = layers.files.iter().map(|file| {
        let alone = Layers { files: vec![file.clone()], ..Layers::default() };
        Ok(alone.merged(None))
    });
    for settings in std::iter::once(asked).chain(profiles).chain(files) {
        let found = match settings {
            Ok(settings) => resolve_all(&settings, facts).err().unwrap_or_default(),
            Err(problem) => vec![problem],
        };
        for problem in found {
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file;
    use crate::config::host::Found;
    use crate::config::keys::Key;
    use crate::config::spec::BackendKind;
    use std::path::Path;

    fn facts() -> Facts {
        let found = Found { kind: BackendKind::Slurm, why: String::new() };
        Facts { host_cores: 8, host_memory_bytes: None, found }
    }

    fn layers(texts: &[&str]) -> Layers {
        let mut layers = Layers::default();
        for (number, text) in texts.iter().enumerate() {
            let path = format!("/{number}.toml");
            let (layer, problems) = file::parse(Path::new(&path), text);
            layers.files.push(layer);
            layers.problems.extend(problems);
        }
        layers
    }

    #[test]
    fn nothing_wrong() {
        let layers = layers(&["cores = 2", "[profile.big]\ncores = 48\nwalltime = \"2 days\""]);
        assert_eq!(check(&layers, &facts()), vec![]);
    }

    #[test]
    fn everything_wrong_is_said_once() {
        let layers = layers(&[
            "cores = 0\nqueu = \"x\"",
            "cores = 2\ndefault-profile = \"small\"\n[profile.big]\nmemory = 5\n[profile.two]\nmemory = \"5B\"",
        ]);
        let places: Vec<String> = check(&layers, &facts())
            .into_iter()
            .map(|problem| format!("{} @ {}", problem.what, problem.location.unwrap_or_default()))
            .collect();
        assert_eq!(
            places,
            [
                "unknown key \"queu\" @ /0.toml:2, key \"queu\"",
                "there is no profile \"small\" @ /1.toml:2, key \"default-profile\"",
                "\"5\" has no unit: Slurm would read megabytes, PBS bytes, LSF kilobytes @ /1.toml:4, key \"memory\" of profile \"big\"",
                "a job needs at least 1 MiB of memory @ /1.toml:6, key \"memory\" of profile \"two\"",
                "0 cores are too few @ /0.toml:1, key \"cores\"",
            ]
        );
    }

    #[test]
    fn the_example_of_the_guide_is_right() {
        let guide = include_str!("../../docs/configuration.md");
        let (_, rest) = guide.split_once("```toml\n").expect("an example");
        let (example, _) = rest.split_once("```").expect("its end");
        let layers = layers(&[example]);
        assert_eq!(layers.profile_names().collect::<Vec<_>>(), ["big", "gpu"]);
        assert_eq!(check(&layers, &facts()), vec![]);
        for key in Key::ALL {
            assert!(guide.contains(&format!("\n| `{}` |", key.name())), "{key:?}");
            assert!(guide.contains(&format!("`{}", key.flag())), "{key:?}");
        }
    }
}
