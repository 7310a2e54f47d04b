//! A scenario file: named runs that share some options.

use std::fs;
use std::io;
use std::path::Path;

use serde::Deserialize;
use serde_yaml::{Mapping, Value};

use crate::plan::Plan;

/// A scenario, as its file has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// What it stands for, for people.
    #[expect(
        dead_code,
        reason = "every scenario says what it is for; nothing reads it"
    )]
    about: String,
    /// Options of all runs.
    #[serde(default)]
    base: Mapping,
    /// The runs: options that differ, and a name.
    runs: Vec<Mapping>,
}

/// One run of a scenario.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    pub(crate) name: String,
    /// Its options, by name, as they were written.
    options: Mapping,
}

/// Why a scenario cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScenarioError {
    #[error("{0}: {1}")]
    Read(String, io::Error),
    #[error("{0}: {1}")]
    Parse(String, serde_yaml::Error),
    #[error("{0}: a run without a name")]
    NoName(String),
}

/// Reads a scenario's runs.
pub(crate) fn read(path: &Path) -> Result<Vec<Cell>, ScenarioError> {
    let shown = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|e| ScenarioError::Read(shown.clone(), e))?;
    parse(&shown, &text)
}

fn parse(shown: &str, text: &str) -> Result<Vec<Cell>, ScenarioError> {
    let bad = |error| ScenarioError::Parse(shown.to_owned(), error);
    let file: File = serde_yaml::from_str(text).map_err(bad)?;
    let mut cells = Vec::new();
    for mut run in file.runs {
        let name = run.remove("name");
        let name = name.as_ref().and_then(Value::as_str).map(str::to_owned);
        let name = name.ok_or_else(|| ScenarioError::NoName(shown.to_owned()))?;
        let mut options = file.base.clone();
        options.extend(run);
        let cell = Cell { name, options };
        cell.plan(&Mapping::new()).map_err(bad)?;
        cells.push(cell);
    }
    Ok(cells)
}

impl Cell {
    /// Its plan, with `flags` in place of what the file says.
    pub(crate) fn plan(&self, flags: &Mapping) -> Result<Plan, serde_yaml::Error> {
        let mut options = self.options.clone();
        options.extend(flags.clone());
        serde_yaml::from_value(Value::Mapping(options))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_the_bases_options_its_own_and_those_of_flags() {
        let text = "
about: some
base: {subscribers: 7, pps: 100}
runs:
  - {name: one, pps: 50}
  - {name: two}
";
        let cells = parse("x", text).unwrap();
        let mut flags = Mapping::new();
        flags.insert("duration".into(), 3.into());
        let plan = cells[0].plan(&flags).unwrap();
        assert_eq!((plan.subscribers, plan.pps, plan.duration), (7, 50, 3));
        assert_eq!(cells[1].plan(&flags).unwrap().pps, 100);
    }

    #[test]
    fn a_misspelt_option_is_told() {
        let text = "about: some\nruns: [{name: one, publisher: 2}]";
        assert!(
            parse("x", text)
                .unwrap_err()
                .to_string()
                .contains("publisher")
        );
        assert!(parse("x", "about: a\nruns: [{pps: 2}]").is_err());
    }

    #[test]
    fn every_scenario_of_the_project_can_be_run() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
        let mut count = 0;
        for entry in fs::read_dir(folder).unwrap() {
            for cell in read(&entry.unwrap().path()).unwrap() {
                let plan = cell.plan(&Mapping::new()).unwrap();
                assert_eq!(plan.check(), Ok(()), "{}", cell.name);
                count += 1;
            }
        }
        assert!(count > 10);
    }
}
