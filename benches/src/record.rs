//! `--record`: the tables of the machines that were met, a file for each processor model.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::machine::Machine;
use crate::report::{self, Report};

/// Where the tables are.
const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/record");

/// Appends the table of a report to the file of its processor, and returns the file's path.
///
/// # Errors
///
/// If the file cannot be read or written.
pub fn write(report: &Report) -> Result<PathBuf> {
    let directory = Path::new(DIRECTORY);
    fs::create_dir_all(directory).with_context(|| DIRECTORY.to_owned())?;
    let path = directory.join(file_name(&report.machine));
    let before = if path.exists() {
        fs::read_to_string(&path).with_context(|| path.display().to_string())?
    } else {
        format!("# {}\n", title(&report.machine))
    };
    report::write(&path, &format!("{before}\n{}", section(report)))?;
    Ok(path)
}

fn title(machine: &Machine) -> String {
    let Machine { cpu, model, .. } = machine;
    if model.is_empty() {
        cpu.clone()
    } else {
        format!("{cpu} ({model})")
    }
}

/// A file name of lower-case letters, digits and dashes.
fn file_name(machine: &Machine) -> String {
    let plain = title(machine).replace("(R)", "").replace("(TM)", "");
    let words = plain
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty());
    let words: Vec<String> = words.map(str::to_ascii_lowercase).collect();
    format!("{}.md", words.join("-"))
}

/// What was measured, and on what.
fn section(report: &Report) -> String {
    let Machine {
        cores,
        llc_bytes,
        os,
        rustc,
        sorix,
        unix_time,
        ..
    } = &report.machine;
    format!(
        "## Unix time {unix_time}\n\n\
         sorix {sorix}, {rustc}, {os}; {cores} threads at once, {} MiB of last-level cache reported; \
         `cargo xtask bench --record`. Ratios to a copy of the same bytes by the same threads.\n\n\
         ```text\n{}```\n",
        llc_bytes >> 20,
        report.table()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_has_a_file() {
        let mut machine = Machine::here(false);
        machine.cpu = "Intel(R) Xeon(R) Processor".into();
        machine.model = "6-173-1".into();
        assert_eq!(file_name(&machine), "intel-xeon-processor-6-173-1.md");
        let report = Report {
            machine,
            rows: Vec::new(),
            steps: Vec::new(),
        };
        assert!(section(&report).contains("cargo xtask bench --record"));
    }
}
