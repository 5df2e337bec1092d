//! The table of figures, with a description of the machine.

use std::fmt;
use std::process::Command;

use crate::charts::{self, PAGE};
use crate::database::{Backend, Database};

/// The lines around the figures in the file.
const MARKS: [&str; 2] = ["<!-- figures: written by benches/run -->\n", "<!-- end of figures -->"];

/// A figure with its target and its measured value.
pub struct Row {
    figure: String,
    backend: &'static str,
    /// `None` if the figure has no target and only explains others.
    target: Option<String>,
    measured: f64,
    unit: &'static str,
    holds: bool,
    shown: String,
}

impl Row {
    /// Creates a row for a figure on a database.
    pub fn of(figure: impl Into<String>, backend: Backend) -> Self {
        let backend = match backend {
            Backend::Sqlite => "SQLite",
            Backend::Postgres => "PostgreSQL",
        };
        let figure = figure.into();
        Self { figure, backend, target: None, measured: f64::NAN, unit: "", holds: true, shown: String::new() }
    }

    /// Sets the target to at least this value.
    pub fn at_least(self, least: f64, measured: f64) -> Self {
        Self { target: Some(format!("≥ {least}")), measured, holds: measured >= least, ..self }
    }

    /// Sets the target to at most this value.
    pub fn at_most(self, most: f64, measured: f64) -> Self {
        Self { target: Some(format!("≤ {most}")), measured, holds: measured <= most, ..self }
    }

    /// Sets the measured value without a target.
    pub fn without_target(self, measured: f64) -> Self {
        Self { measured, ..self }
    }

    /// Sets the unit. A figure without a unit is a ratio.
    pub fn unit(self, unit: &'static str) -> Self {
        Self { unit, ..self }
    }

    /// Sets the values behind the figure.
    pub fn showing(self, shown: String) -> Self {
        Self { shown, ..self }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { figure, backend, target, measured, unit, shown, .. } = self;
        let (target, holds) = match (target, self.holds) {
            (None, _) => ("none", ""),
            (Some(target), true) => (target.as_str(), "yes"),
            (Some(target), false) => (target.as_str(), "**no**"),
        };
        let digits = if unit.is_empty() { 2 } else { 1 };
        write!(f, "| {figure} | {backend} | {target} {unit} | {measured:.digits$} {unit} | {holds} | {shown} |")
    }
}

/// All figures of a run.
#[derive(Default)]
pub struct Report(Vec<Row>);

impl Report {
    /// Adds a figure and prints it at once, because a run takes long.
    pub fn add(&mut self, row: Row) {
        println!("{row}");
        self.0.push(row);
    }

    /// Prints a summary.
    pub fn print(&self) {
        let missed = self.0.iter().filter(|row| !row.holds).count();
        println!("{} figures, {missed} of them miss their target. {}", self.0.len(), machine());
    }

    /// Writes the figures to the documentation, and draws the charts.
    pub fn write(&self) {
        let page = std::fs::read_to_string(PAGE).expect("the page exists");
        let (before, rest) = page.split_once(MARKS[0]).expect("the page has the start marker");
        let (_, after) = rest.split_once(MARKS[1]).expect("the page has the end marker");
        let rows: String = self.0.iter().map(|row| format!("{row}\n")).collect();
        let table = format!("| figure | database | target | measured | holds | |\n|---|---|---|---|---|---|\n{rows}");
        let figures = format!("{}\n{}\n\n{table}", MARKS[0], machine());
        std::fs::write(PAGE, format!("{before}{figures}\n{}{after}", MARKS[1])).expect("the page can be written");
        charts::write();
    }
}

/// Describes the versions and the machine in one line.
fn machine() -> String {
    let first_line = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        // wrk prints its version before an error message.
        let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().next().unwrap_or("unknown").trim().to_owned()
    };
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{}, on {cores} cores of {}, Linux {}. {}. {}. {}.",
        first_line("date", &["+%F"]),
        processor.trim_start_matches([' ', '\t', ':']),
        first_line("uname", &["-r"]),
        first_line(env!("CARGO_BIN_EXE_latchkey"), &["--version"]),
        postgres(),
        first_line("wrk", &["-v"]).split(" Copyright").next().unwrap_or_default(),
    )
}

fn postgres() -> String {
    let Some(database) = Database::create(Backend::Postgres) else {
        return "Without PostgreSQL".to_owned();
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let version = runtime.block_on(database.rows("SELECT current_setting('server_version') AS row"));
    format!("PostgreSQL {}", version[0])
}
