//! Overrides from the environment: `CORELAY_ROOMS_MAX_ROOMS` is `rooms.max_rooms`.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_yaml::Value;

use super::read::{self, Problem};

/// What every override begins with.
pub const PREFIX: &str = "CORELAY_";

/// The variable that overrides the option at `path` (`section.key`).
#[must_use]
pub fn variable(path: &str) -> String {
    format!("{PREFIX}{}", path.replace('.', "_").to_uppercase())
}

/// Every option of one value in `sections`, as `section.key`, in the order of the file.
#[must_use]
pub fn scalar_paths<T: Serialize>(sections: &T) -> Vec<String> {
    fn walk(prefix: &str, value: &Value, paths: &mut Vec<String>) {
        match value {
            Value::Mapping(mapping) => {
                for (key, value) in mapping {
                    let key = key.as_str().unwrap_or_default();
                    let path = match prefix {
                        "" => key.to_owned(),
                        prefix => format!("{prefix}.{key}"),
                    };
                    walk(&path, value, paths);
                }
            }
            Value::Sequence(_) | Value::Null | Value::Tagged(_) => {}
            Value::Bool(_) | Value::Number(_) | Value::String(_) => paths.push(prefix.to_owned()),
        }
    }
    let mut paths = Vec::new();
    walk("", &tree(sections), &mut paths);
    paths
}

/// Applies each variable that names an option of `sections`.
///
/// # Errors
///
/// [`Problem`] names the first variable whose value is not possible.
pub fn apply<T: Serialize + DeserializeOwned>(
    sections: &mut T,
    variables: &[(String, String)],
) -> Result<(), Problem> {
    for path in scalar_paths(sections) {
        let name = variable(&path);
        let Some((_, text)) = variables.iter().find(|(set, _)| *set == name) else {
            continue;
        };
        let mut changed = tree(sections);
        let target = path
            .split('.')
            .try_fold(&mut changed, |value, key| value.get_mut(key))
            .expect("the path was read off the same tree");
        *target = match target {
            Value::String(_) => Value::String(text.clone()),
            _ => serde_yaml::from_str(text).unwrap_or_else(|_| Value::String(text.clone())),
        };
        *sections = serde_yaml::from_value(changed).map_err(|error| {
            let explained = read::explain(&name, &error, &[]);
            Problem {
                key: path,
                ..explained
            }
        })?;
    }
    Ok(())
}

/// What systemd hands over (systemd.exec(5), `LoadCredential=corelay:FOLDER`): the file
/// `corelay_security.token_secret` in `folder` stands for the variable of that option. `paths` are
/// those of all options; files of other names are somebody else's.
#[must_use]
pub fn credentials(folder: &Path, paths: &[String]) -> Vec<(String, String)> {
    let read = |path: &String| {
        let text = std::fs::read_to_string(folder.join(format!("corelay_{path}"))).ok()?;
        Some((variable(path), text.trim_end().to_owned()))
    };
    paths.iter().filter_map(read).collect()
}

/// Variables that were meant as an override but name no option: they begin with the name of a
/// section, or are few letters away from an option. `paths` are those of all options.
#[must_use]
pub fn unknown(
    paths: &[String],
    also_known: &[&str],
    variables: &[(String, String)],
) -> Vec<String> {
    let options: Vec<String> = paths
        .iter()
        .map(|path| variable(path)[PREFIX.len()..].to_owned())
        .collect();
    let known: Vec<&str> = options.iter().map(String::as_str).collect();
    let in_section = |name: &str| {
        paths.iter().any(|path| {
            let section = path.split('.').next().unwrap_or(path);
            name.starts_with(&format!("{}_", section.to_uppercase()))
        })
    };
    let mut told = Vec::new();
    for (full, _) in variables {
        let Some(name) = full.strip_prefix(PREFIX) else {
            continue;
        };
        if known.contains(&name) || also_known.contains(&full.as_str()) {
            continue;
        }
        let nothing = format!("{full} in the environment sets nothing");
        match read::nearest(name, &known) {
            Some(near) => told.push(format!("{nothing}; did you mean {PREFIX}{near}?")),
            None if in_section(name) => told.push(format!("{nothing}: there is no such option")),
            None => {}
        }
    }
    told
}

fn tree<T: Serialize>(sections: &T) -> Value {
    serde_yaml::to_value(sections).expect("sections are maps with text keys, lists and scalars")
}

#[cfg(test)]
mod tests {
    use super::super::media::MediaFile;
    use super::super::sections::WebrtcFile;
    use super::*;

    fn set(name: &str, value: &str) -> Vec<(String, String)> {
        vec![(name.to_owned(), value.to_owned())]
    }

    #[test]
    fn a_credential_stands_for_the_option_that_it_is_named_after() {
        let folder =
            std::env::temp_dir().join(format!("corelay-credentials-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("corelay_security.token_secret"), "north\n").unwrap();
        std::fs::write(folder.join("corelay_tls.key"), "no option").unwrap();
        let found = credentials(&folder, &["security.token_secret".to_owned()]);
        std::fs::remove_dir_all(&folder).unwrap();
        let expected = (
            "CORELAY_SECURITY_TOKEN_SECRET".to_owned(),
            "north".to_owned(),
        );
        assert_eq!(found, [expected]);
    }

    #[test]
    fn every_scalar_option_can_be_set_in_the_environment() {
        let mut paths = scalar_paths(&WebrtcFile::default());
        paths.extend(scalar_paths(&MediaFile::default()));
        assert!(paths.contains(&"security.rate_limit.max_rooms_per_ip".to_owned()));
        assert!(paths.contains(&"audio.processing.echo_cancellation".to_owned()));
        let mut names: Vec<String> = paths.iter().map(|path| variable(path)).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), paths.len(), "two options share a variable");
    }

    #[test]
    fn the_environment_outranks_the_file() {
        let mut file = WebrtcFile::default();
        apply(&mut file, &set("CORELAY_RECORDING_PATH", "12")).unwrap();
        assert_eq!(file.recording.path, "12");
        apply(&mut file, &set("CORELAY_ROOMS_MAX_PARTICIPANTS", "7")).unwrap();
        assert_eq!(file.rooms.max_participants.value(), 7);
        apply(&mut file, &set("CORELAY_ROOMS_AUTO_CREATE", "false")).unwrap();
        assert!(!file.rooms.auto_create);
        apply(
            &mut file,
            &set("CORELAY_WEBRTC_ANNOUNCED_IP", "203.0.113.9"),
        )
        .unwrap();
        assert_eq!(
            serde_yaml::to_string(&file.webrtc.announced_ip)
                .unwrap()
                .trim(),
            "203.0.113.9"
        );
    }

    #[test]
    fn an_impossible_override_is_told_by_its_variable() {
        let mut file = WebrtcFile::default();
        let said = apply(&mut file, &set("CORELAY_SERVER_PORT", "tcp://10.0.0.1:80"))
            .unwrap_err()
            .to_string();
        assert!(
            said.starts_with("CORELAY_SERVER_PORT: server.port: "),
            "{said}"
        );
        assert!(said.contains("a whole number from 0 to 65535"), "{said}");
        assert_eq!(file, WebrtcFile::default());
    }

    #[test]
    fn a_variable_that_names_no_option_is_told() {
        let paths = scalar_paths(&WebrtcFile::default());
        let told = unknown(&paths, &[], &set("CORELAY_SERVER_PROT", "1"));
        assert_eq!(told.len(), 1);
        assert!(
            told[0].contains("did you mean CORELAY_SERVER_PORT"),
            "{}",
            told[0]
        );
        assert!(unknown(&paths, &[], &set("CORELAY_SERVER_PORT", "1")).is_empty());
        assert!(unknown(&paths, &[], &set("PATH", "/bin")).is_empty());
        let told = unknown(&paths, &[], &set("CORELAY_ROOMS_COLOUR_OF_THE_WALLS", "1"));
        assert!(told[0].ends_with("there is no such option"), "{}", told[0]);
        assert!(unknown(&paths, &[], &set("CORELAY_BIN", "x")).is_empty());
    }
}
