//! Tables of p-values, and the verdict over all of them.

use std::fmt;

use crate::finding::holm;

/// A failure is a corrected p-value below this: it happens to sound masks in one run of a thousand
/// seeds.
pub const LEVEL: f64 = 1e-3;

/// One table.
#[derive(Clone, Debug)]
pub struct Table {
    /// What it shows.
    pub title: String,
    /// Names of the columns that say what a row is.
    pub labels: Vec<String>,
    /// Names of the columns of p-values.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<Row>,
}

/// A row of a table.
#[derive(Clone, Debug)]
pub struct Row {
    /// What it is about.
    pub labels: Vec<String>,
    /// One for each column; none where too little was seen to tell.
    pub p_values: Vec<Option<f64>>,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |cells: Vec<String>| format!("| {} |", cells.join(" | "));
        writeln!(f, "### {}\n", self.title)?;
        writeln!(f, "{}", line([&self.labels[..], &self.columns].concat()))?;
        let rules = self.labels.iter().map(|_| "---".to_owned());
        let right = self.columns.iter().map(|_| "---:".to_owned());
        writeln!(f, "|{}|", rules.chain(right).collect::<Vec<_>>().join("|"))?;
        for row in &self.rows {
            let p_value = |p: &Option<f64>| p.map_or("-".into(), show);
            let p_values = row.p_values.iter().map(p_value).collect();
            writeln!(f, "{}", line([row.labels.clone(), p_values].concat()))?;
        }
        Ok(())
    }
}

/// A p-value, to as many digits as are of use.
fn show(p: f64) -> String {
    if p < 1e-3 {
        format!("{p:.1e}")
    } else {
        format!("{p:.3}")
    }
}

/// What all tests say together.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// How many p-values there are.
    pub tests: usize,
    /// How many of them are below 0.05, uncorrected: about a twentieth for sound masks.
    pub below_a_twentieth: usize,
    /// The smallest p-value.
    pub smallest: f64,
    /// The same, corrected for the number of tests.
    pub smallest_corrected: f64,
    /// What failed: table, row and column, p-value and corrected p-value.
    pub failures: Vec<String>,
}

impl Verdict {
    /// Corrects all p-values for their number, and judges.
    #[must_use]
    pub fn over(tables: &[Table]) -> Self {
        let mut names = Vec::new();
        let mut p_values = Vec::new();
        for table in tables {
            for row in &table.rows {
                for (column, p_value) in table.columns.iter().zip(&row.p_values) {
                    if let Some(p_value) = *p_value {
                        names.push(format!("{}, {column}", row.labels.join(", ")));
                        p_values.push(p_value);
                    }
                }
            }
        }
        let corrected = holm(&p_values);
        let least = |values: &[f64]| values.iter().copied().fold(1.0, f64::min);
        let all = names.iter().zip(&p_values).zip(&corrected);
        let failed = all.filter(|(_, corrected)| **corrected < LEVEL);
        Self {
            tests: p_values.len(),
            below_a_twentieth: p_values.iter().filter(|p| **p < 0.05).count(),
            smallest: least(&p_values),
            smallest_corrected: least(&corrected),
            failures: failed
                .map(|((name, p), corrected)| {
                    format!("{name}: {}, corrected {}", show(*p), show(*corrected))
                })
                .collect(),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            tests,
            below_a_twentieth,
            ..
        } = self;
        writeln!(
            f,
            "{tests} tests, {below_a_twentieth} p-values below 0.05 ({:.0} expected); the smallest is \
             {}, corrected for the number of tests {}",
            *tests as f64 / 20.0,
            show(self.smallest),
            show(self.smallest_corrected)
        )?;
        if self.failures.is_empty() {
            return write!(f, "no corrected p-value is below {LEVEL}: passed");
        }
        writeln!(f, "{} below {LEVEL}:", self.failures.len())?;
        for failure in &self.failures {
            writeln!(f, "  {failure}")?;
        }
        write!(
            f,
            "FAILED. Do not change the seed: run again with others (--seed) and more elements \
             (--long). What fails there too is a defect."
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(p_values: &[f64]) -> Table {
        let row = |&p: &f64| Row {
            labels: vec!["0.1".into(), "lag 8".into()],
            p_values: vec![Some(p), None],
        };
        Table {
            title: "Streams".into(),
            labels: vec!["p".into(), "test".into()],
            columns: vec!["along elements".into(), "along tiles".into()],
            rows: p_values.iter().map(row).collect(),
        }
    }

    #[test]
    fn tables_are_markdown() {
        let expected = "### Streams\n\n| p | test | along elements | along tiles |\n|---|---|---:|---:|\n\
                        | 0.1 | lag 8 | 0.250 | - |\n| 0.1 | lag 8 | 1.2e-9 | - |\n";
        assert_eq!(table(&[0.25, 1.2e-9]).to_string(), expected);
    }

    #[test]
    fn the_verdict_corrects_for_the_number_of_tests() {
        // One of five hundred may be 1e-5, and one alone may not be 1e-7.
        let mut p_values = [0.5; 500];
        p_values[7] = 1e-5;
        let verdict = Verdict::over(&[table(&p_values)]);
        assert_eq!((verdict.tests, verdict.below_a_twentieth), (500, 1));
        assert_eq!(verdict.failures, [""; 0]);
        p_values[7] = 1e-7;
        let verdict = Verdict::over(&[table(&p_values)]);
        assert_eq!(
            verdict.failures,
            ["0.1, lag 8, along elements: 1.0e-7, corrected 5.0e-5"]
        );
    }
}
