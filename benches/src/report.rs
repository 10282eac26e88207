//! The outcome of a run: JSON for programs, a table for people.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::case::size_label;
use crate::machine::Machine;
use crate::op::Roof;
use crate::sample::median;
use crate::step::StepRow;

/// One measured row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The kernel: `fill_mask`, `forward`, `backward`, `replay`.
    pub op: String,
    /// The element type: `f32`, `f64`, `bf16`, `f16`.
    pub dtype: String,
    /// The backend; `peer:NAME` for another library, `sorix-NAME` for sorix's layer in it.
    pub backend: String,
    /// The number of threads the call and the copy may use.
    pub threads: usize,
    /// The number of elements.
    pub elements: usize,
    /// The drop probability.
    pub p: f64,
    /// The median time of a call, in nanoseconds per element.
    pub ns_per_element: f64,
    /// The median time of the copy, or of another roof, in nanoseconds per element.
    pub copy_ns_per_element: f64,
    /// The median of the ratios of a call to the copy after it, or to another roof.
    pub ratio: f64,
    /// What the call is compared with: `copy`, or `p=0`, the same call without dropout.
    #[serde(default = "copy")]
    pub roof: String,
    /// How many times as long the copy took as the median of the copies of its size, where that is
    /// more than twice or less than half: then the ratio says little.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_strays: Option<f64>,
}

fn copy() -> String {
    Roof::Copy.name().to_owned()
}

/// Says of each row whose copy strays far from the others of its size.
///
/// A copy of the same bytes by the same threads takes about the same time beside whatever it is
/// measured with. Where it does not, something else had the machine, or the threads of what it was
/// measured with were not at rest.
#[must_use]
pub fn with_stray_copies_named(mut rows: Vec<Row>) -> Vec<Row> {
    let size = |row: &Row| {
        let op = (row.roof != Roof::Copy.name()).then(|| row.op.clone());
        (row.dtype.clone(), row.elements, row.threads, op)
    };
    let usual: Vec<f64> = rows
        .iter()
        .map(|row| {
            let alike = rows.iter().filter(|other| size(other) == size(row));
            median(alike.map(|other| other.copy_ns_per_element))
        })
        .collect();
    for (row, usual) in rows.iter_mut().zip(usual) {
        let times = row.copy_ns_per_element / usual;
        row.copy_strays = (!(0.5..=2.0).contains(&times)).then_some(times);
    }
    rows
}

impl Row {
    /// The kernel, with what it is compared with unless that is a copy.
    #[must_use]
    pub fn label(&self) -> String {
        if self.roof == Roof::Copy.name() {
            self.op.clone()
        } else {
            format!("{} / {}", self.op, self.roof)
        }
    }

    /// The ratio, with a star where the copy strays.
    #[must_use]
    pub fn cell(&self) -> String {
        let star = if self.copy_strays.is_some() { "*" } else { "" };
        ratio(self.ratio) + star
    }
}

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Where it was measured.
    pub machine: Machine,
    /// What was measured.
    pub rows: Vec<Row>,
    /// Training steps, and fused operations: each is compared with another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepRow>,
}

impl Report {
    /// The report as JSON.
    ///
    /// # Errors
    ///
    /// If a figure is no number.
    pub fn json(&self) -> Result<String> {
        let finite = |row: &Row| row.ratio.is_finite() && row.ns_per_element.is_finite();
        ensure!(
            self.rows.iter().all(finite),
            "a measured figure is not a number"
        );
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// The ratios as a table in plain text: a line per kernel, probability, dtype, backend and
    /// number of threads, a column per size.
    #[must_use]
    pub fn table(&self) -> String {
        let mut sizes: Vec<usize> = self.rows.iter().map(|row| row.elements).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let widest = |field: fn(&Row) -> String, title: &str| {
            self.rows
                .iter()
                .map(|row| field(row).len())
                .chain([title.len()])
                .max()
                .unwrap_or(0)
        };
        let op_width = widest(Row::label, "op");
        let backend_width = widest(|row| row.backend.clone(), "backend");

        let mut table = format!(
            "{:op_width$}    p  dtype  {:backend_width$}  threads",
            "op", "backend"
        );
        for &size in &sizes {
            let _ = write!(table, " {:>8}", size_label(size));
        }
        for line in self.lines() {
            let first = line[0];
            let _ = write!(
                table,
                "\n{:op_width$} {:>4}  {:5}  {:backend_width$}  {:>7}",
                first.label(),
                first.p,
                first.dtype,
                first.backend,
                first.threads
            );
            for &size in &sizes {
                let cell = line
                    .iter()
                    .find(|row| row.elements == size)
                    .map_or_else(|| "-".into(), |row| row.cell());
                let _ = write!(table, " {cell:>8}");
            }
        }
        table.push('\n');
        table
    }

    /// The rows, those that differ in size alone together, by kernel, probability and dtype.
    fn lines(&self) -> Vec<Vec<&Row>> {
        let mut lines: Vec<Vec<&Row>> = Vec::new();
        let key = |row: &Row| {
            (
                row.op.clone(),
                row.p.to_bits(),
                row.dtype.clone(),
                row.backend.clone(),
                row.threads,
                row.roof.clone(),
            )
        };
        for row in &self.rows {
            match lines.iter_mut().find(|line| key(line[0]) == key(row)) {
                Some(line) => line.push(row),
                None => lines.push(vec![row]),
            }
        }
        let op = |row: &Row| self.rows.iter().position(|first| first.op == row.op);
        let dtype = |row: &Row| self.rows.iter().position(|first| first.dtype == row.dtype);
        lines.sort_by(|a, b| {
            let (a, b) = (a[0], b[0]);
            op(a)
                .cmp(&op(b))
                .then(a.p.total_cmp(&b.p))
                .then(dtype(a).cmp(&dtype(b)))
        });
        lines
    }
}

/// A ratio with the digits worth reading.
#[must_use]
pub fn ratio(ratio: f64) -> String {
    match ratio {
        r if r < 0.095 => format!("{r:.3}"),
        r if r < 9.95 => format!("{r:.2}"),
        r if r < 99.5 => format!("{r:.1}"),
        r => format!("{r:.0}"),
    }
}

/// Makes sure that a file can be written at `path`, so that a long run does not end in an error.
///
/// # Errors
///
/// If `path` is a directory, or no file can be made beside it.
pub fn check_writable(path: &Path) -> Result<()> {
    ensure!(
        !path.is_dir(),
        "cannot write {}: it is a directory",
        path.display()
    );
    beside(path).map(drop)
}

/// Writes a file whole or not at all.
///
/// # Errors
///
/// If it cannot be written; what was there before is then still there.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let mut file = beside(path)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.as_file().sync_all());
    written.with_context(|| format!("cannot write {}", path.display()))?;
    file.persist(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

/// An unnamed file in the directory of `path`, to be renamed to it.
fn beside(path: &Path) -> Result<NamedTempFile> {
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    // Readable by others as far as the user's file mode mask allows, like any file they make.
    #[cfg(unix)]
    let builder = builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder
        .tempfile_in(directory)
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(op: &str, dtype: &str, backend: &str, elements: usize, ratio: f64) -> Row {
        Row {
            op: op.into(),
            dtype: dtype.into(),
            backend: backend.into(),
            threads: 1,
            elements,
            p: 0.1,
            ns_per_element: 0.2,
            copy_ns_per_element: 0.1,
            ratio,
            roof: copy(),
            copy_strays: None,
        }
    }

    fn report() -> Report {
        Report {
            machine: Machine::here(true),
            rows: vec![
                row("forward", "f32", "avx2", 1 << 16, 1.256),
                row("backward", "f32", "avx2", 1 << 16, 1.0),
                row("forward", "bf16", "avx2", 1 << 16, 1.9),
                row("forward", "f32", "avx2", 1 << 20, 0.05),
                row("forward", "f32", "peer:candle", 1 << 20, 116.2),
            ],
            steps: Vec::new(),
        }
    }

    #[test]
    fn json_has_the_keys_that_programs_read() {
        let report = report();
        let json = report.json().unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        let keys = |value: &serde_json::Value| -> Vec<String> {
            value.as_object().unwrap().keys().cloned().collect()
        };
        assert_eq!(keys(&value), ["machine", "rows"]);
        let mut expected = [
            "op",
            "dtype",
            "backend",
            "threads",
            "elements",
            "p",
            "ns_per_element",
            "copy_ns_per_element",
            "ratio",
            "roof",
        ];
        expected.sort_unstable();
        let mut got = keys(&value["rows"][0]);
        got.sort_unstable();
        assert_eq!(got, expected);
        assert_eq!(value["rows"][4]["backend"], "peer:candle");
    }

    #[test]
    fn a_copy_that_strays_from_the_others_of_its_size_is_named() {
        let mut rows: Vec<Row> = ["a", "b", "peer:c", "d"]
            .map(|backend| row("forward", "f32", backend, 1 << 16, 1.5))
            .into();
        rows.push(row("forward", "f32", "a", 1 << 20, 1.5));
        let copies = [0.25, 0.25, 3.75, 0.0625, 1.0];
        for (row, copy) in rows.iter_mut().zip(copies) {
            row.copy_ns_per_element = copy;
        }
        // The last is of another size, which has a median of its own.
        let rows = with_stray_copies_named(rows);
        let strays: Vec<_> = rows.iter().map(|row| row.copy_strays).collect();
        assert_eq!(strays, [None, None, Some(15.0), Some(0.25), None]);

        let report = Report { rows, ..report() };
        assert_eq!(report.table().matches("1.50*").count(), 2);
        let json: serde_json::Value = serde_json::from_str(&report.json().unwrap()).unwrap();
        assert_eq!(json["rows"][2]["copy_strays"], 15.0);
        assert_eq!(json["rows"][0].get("copy_strays"), None);
    }

    #[test]
    fn a_figure_that_is_no_number_is_an_error() {
        let mut report = report();
        report.rows[0].ratio = f64::NAN;
        assert!(report.json().is_err());
    }

    #[test]
    fn the_table_has_a_column_per_size_and_keeps_a_dtype_together() {
        let table = report().table();
        let lines: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            lines[0],
            ["op", "p", "dtype", "backend", "threads", "64Ki", "1Mi"]
        );
        assert_eq!(
            lines[1],
            ["forward", "0.1", "f32", "avx2", "1", "1.26", "0.050"]
        );
        assert_eq!(
            lines[2],
            ["forward", "0.1", "f32", "peer:candle", "1", "-", "116"]
        );
        assert_eq!(
            lines[3],
            ["forward", "0.1", "bf16", "avx2", "1", "1.90", "-"]
        );
        assert_eq!(
            lines[4],
            ["backward", "0.1", "f32", "avx2", "1", "1.00", "-"]
        );
    }

    #[test]
    fn files_are_written_whole_and_refused_early() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.json");
        check_writable(&path).unwrap();
        assert!(!path.exists());
        write(&path, "one").unwrap();
        write(&path, "two").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);

        let nowhere = directory.path().join("none/out.json");
        let error = check_writable(&nowhere).unwrap_err().to_string();
        assert_eq!(error, format!("cannot write {}", nowhere.display()));
        assert!(check_writable(directory.path()).is_err());
    }
}
