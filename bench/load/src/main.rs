//! `corelay-load`: headless clients that load a selective forwarding unit, and what it cost.

mod client;
mod clock;
mod floor;
mod html;
mod plan;
mod publisher;
mod result;
mod run;
mod scenario;
mod server;
mod sfu;
mod socket;
mod stamp;
mod table;
mod tally;
mod websocket;
mod worker;

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use serde_yaml::{Mapping, Value};

use floor::Floor;
use plan::Plan;
use result::Outcome;

const EXAMPLES: &str = "\
Examples:
  corelay-load --subscribers 100 --server-pid $(pidof corelay)
  corelay-load --rooms 10 --publishers 10 --subscribers 0 --meeting --simulcast --audio
  corelay-load --scenario bench/scenarios/one-to-many.yaml --cell 0 --html result.html
  corelay-load table results/*.json
  corelay-load floor --subscribers 100

bench/README.md says what is measured and what the JSON keys mean.
Exit codes: 0 fine, 1 the run failed or the server did something wrong, 2 wrong usage.";

/// Loads an SFU with headless WebRTC clients and says what it cost.
#[derive(Debug, Parser)]
#[command(name = "corelay-load", version, max_term_width = 100, after_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(subcommand)]
    action: Option<Action>,
    /// Take the options from this file; flags outrank it
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// Only this run of the scenario, counted from 0
    #[arg(long, value_name = "N", requires = "scenario")]
    cell: Option<usize>,
    /// What to call the run
    #[arg(long, default_value = "run", value_name = "NAME")]
    name: String,
    #[command(flatten)]
    plan: Plan,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Name the runs of a scenario
    Cells { file: PathBuf },
    /// One table of results written with --json
    Table { files: Vec<PathBuf> },
    /// What the system calls alone cost here, without a server
    Floor(Floor),
}

fn main() -> ExitCode {
    let matches = CommandLine::command().get_matches();
    let line = match CommandLine::from_arg_matches(&matches) {
        Ok(line) => line,
        Err(error) => error.exit(),
    };
    let done = match &line.action {
        Some(Action::Cells { file }) => cells(file),
        Some(Action::Table { files }) => print_table(files),
        Some(Action::Floor(floor)) => print_floor(floor),
        None => runs(&line, &matches).and_then(|runs| run_all(&line, &runs)),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "corelay-load: {error}");
            ExitCode::from(error.code)
        }
    }
}

/// What ends the program, and how.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Stop {
    text: String,
    code: u8,
}

impl Stop {
    fn usage(error: &dyn ToString) -> Self {
        Self {
            text: error.to_string(),
            code: 2,
        }
    }

    fn failed(error: &dyn ToString) -> Self {
        Self {
            text: error.to_string(),
            code: 1,
        }
    }
}

fn cells(file: &Path) -> Result<bool, Stop> {
    for cell in scenario::read(file).map_err(|e| Stop::usage(&e))? {
        say(&cell.name);
    }
    Ok(true)
}

fn print_table(files: &[PathBuf]) -> Result<bool, Stop> {
    let mut outcomes: Vec<Outcome> = Vec::new();
    for file in files {
        let named = |error: &dyn ToString| {
            Stop::usage(&format!("{}: {}", file.display(), error.to_string()))
        };
        let text = fs::read_to_string(file).map_err(|e| named(&e))?;
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            outcomes.push(serde_json::from_str(line).map_err(|e| named(&e))?);
        }
    }
    say(&table::table(&outcomes));
    Ok(outcomes.iter().all(Outcome::is_sound))
}

fn print_floor(floor: &Floor) -> Result<bool, Stop> {
    say(&floor.run().map_err(|e| Stop::failed(&e))?);
    Ok(true)
}

/// The named plans of the command line.
fn runs(line: &CommandLine, matches: &ArgMatches) -> Result<Vec<(String, Plan)>, Stop> {
    let Some(file) = &line.scenario else {
        return Ok(vec![(line.name.clone(), line.plan.clone())]);
    };
    let cells = scenario::read(file).map_err(|e| Stop::usage(&e))?;
    let flags = given(&line.plan, matches).map_err(|e| Stop::usage(&e))?;
    let mut runs = Vec::new();
    for (number, cell) in cells.iter().enumerate() {
        if line.cell.is_none_or(|wanted| wanted == number) {
            let mut plan = cell.plan(&flags).map_err(|e| Stop::usage(&e))?;
            plan.token = line.plan.token.clone();
            plan.json = line.plan.json;
            plan.html = line.plan.html.clone();
            runs.push((cell.name.clone(), plan));
        }
    }
    if runs.is_empty() {
        let text = format!("{} has {} runs", file.display(), cells.len());
        return Err(Stop::usage(&text));
    }
    Ok(runs)
}

/// The options that stand on the command line.
fn given(plan: &Plan, matches: &ArgMatches) -> Result<Mapping, serde_yaml::Error> {
    let Value::Mapping(all) = serde_yaml::to_value(plan)? else {
        return Ok(Mapping::new());
    };
    let is_given = |name: &Value| {
        let source = name.as_str().and_then(|name| matches.value_source(name));
        source == Some(ValueSource::CommandLine)
    };
    Ok(all.into_iter().filter(|(name, _)| is_given(name)).collect())
}

fn run_all(line: &CommandLine, runs: &[(String, Plan)]) -> Result<bool, Stop> {
    let mut sound = true;
    for (name, plan) in runs {
        let outcome = run::run(name, plan).map_err(|e| Stop::failed(&e))?;
        sound &= outcome.is_sound();
        if line.plan.json {
            let json = serde_json::to_string(&outcome).map_err(|e| Stop::failed(&e))?;
            say(&json);
        } else {
            say(&format!("{name}\n{}\n", outcome.summary()));
        }
        if let Some(file) = &line.plan.html {
            fs::write(file, html::page(&outcome))
                .map_err(|e| Stop::failed(&format!("{}: {e}", file.display())))?;
        }
    }
    Ok(sound)
}

/// Writes to the standard output. That nobody reads it is no reason to end.
fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}
