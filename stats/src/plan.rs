//! [`Plan`]: which tests are made, of how many elements.

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use sorix_kernels::{DropRate, Error, MaskKey};

use crate::check;
use crate::finding::Finding;
use crate::keep::{count, keep_probability};
use crate::pairs;
use crate::report::{Row, Table};
use crate::stream::{Along, Source, Stream};

/// The p whose kept elements are counted: both ends, multiples of 2^-8 and of no power of two.
const COUNTED: [f64; 17] = [
    1.0 / (1_u64 << 30) as f64,
    1.0 / (1_u64 << 20) as f64,
    1e-4,
    0.01,
    0.1,
    0.2,
    0.25,
    0.3,
    1.0 / 3.0,
    0.5,
    0.7,
    0.75,
    0.9,
    0.99,
    0.9999,
    1.0 - 1.0 / (1_u64 << 20) as f64,
    1.0 - 1.0 / (1_u64 << 30) as f64,
];

/// The p whose streams are checked.
const STREAMS: [f64; 4] = [0.5, 0.25, 0.1, 0.9];

/// The p whose masks are compared.
const PAIRS: [f64; 2] = [0.5, 0.1];

/// How many tests of how many elements. Every number of elements is a power of two, a chunk at
/// least where tests follow each other along the stream.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed of the masks.
    pub seed: u64,
    /// Elements of each p that is counted.
    pub counted: u64,
    /// Elements of each stream.
    pub stream: u64,
    /// Elements of each pair of masks.
    pub pair: u64,
    /// Elements of each of the masks compared each with each.
    pub successive: u64,
}

impl Plan {
    /// Seconds, optimised.
    #[must_use]
    pub fn quick(seed: u64) -> Self {
        Self {
            seed,
            counted: 1 << 28,
            stream: 1 << 23,
            pair: 1 << 23,
            successive: 1 << 15,
        }
    }

    /// A minute or two.
    #[must_use]
    pub fn usual(seed: u64) -> Self {
        Self {
            seed,
            counted: 1 << 34,
            stream: 1 << 28,
            pair: 1 << 28,
            successive: 1 << 19,
        }
    }

    /// Eight times that.
    #[must_use]
    pub fn long(seed: u64) -> Self {
        Self {
            seed,
            counted: 1 << 37,
            stream: 1 << 31,
            pair: 1 << 31,
            successive: 1 << 22,
        }
    }

    /// Makes all tests.
    ///
    /// # Errors
    ///
    /// As [`Source::fill`].
    pub fn run(&self, source: &dyn Source) -> Result<Vec<Table>, Error> {
        Ok(vec![
            self.count(source)?,
            self.check_streams(source)?,
            self.compare(source)?,
        ])
    }

    /// Every test has a mask of its own: offsets from here on.
    fn key(&self, test: usize) -> MaskKey {
        MaskKey::new(self.seed, (test as u64 + 1) << 40)
    }

    fn count(&self, source: &dyn Source) -> Result<Table, Error> {
        let mut rows = Vec::new();
        for (i, p) in COUNTED.into_iter().enumerate() {
            let rate = DropRate::new(p).expect("a probability");
            let count = count(source, rate, self.key(i), self.counted)?;
            rows.push(Row {
                labels: vec![
                    name(p),
                    name(count.elements as f64),
                    format!("{:.1}", count.expected),
                    count.dropped.to_string(),
                ],
                p_values: vec![Some(count.p_value)],
            });
        }
        Ok(Table {
            title: "P(keep)".into(),
            labels: ["p", "elements", "dropped, expected", "dropped, seen"]
                .map(Into::into)
                .into(),
            columns: vec!["p-value".into()],
            rows,
        })
    }

    fn check_streams(&self, source: &dyn Source) -> Result<Table, Error> {
        let each = STREAMS
            .into_iter()
            .flat_map(|p| Along::ALL.map(|along| (p, along)));
        let cases: Vec<(usize, (f64, Along))> = each.enumerate().collect();
        let findings = cases.par_iter().map(|&(i, (p, along))| {
            let rate = DropRate::new(p).expect("a probability");
            let stream = Stream {
                source,
                rate,
                key: self.key(100 + i),
                along,
            };
            let mut checks = check::all(keep_probability(rate));
            stream.for_each_chunk(self.stream, |words| {
                checks.iter_mut().for_each(|check| check.look(words));
            })?;
            Ok(checks.iter().flat_map(|check| check.findings()).collect())
        });
        let findings = findings.collect::<Result<Vec<Vec<Finding>>, Error>>()?;
        let by_p = STREAMS.into_iter().zip(findings.chunks(Along::ALL.len()));
        Ok(Table {
            title: format!("Streams of {} elements", name(self.stream as f64)),
            labels: vec!["p".into(), "test".into()],
            columns: Along::ALL.map(|along| format!("along {along}")).into(),
            rows: by_p
                .flat_map(|(p, columns)| rows(&name(p), columns))
                .collect(),
        })
    }

    fn compare(&self, source: &dyn Source) -> Result<Table, Error> {
        let compare = |i: usize, p: f64| -> Result<Vec<Finding>, Error> {
            let rate = DropRate::new(p).expect("a probability");
            let mut findings = pairs::partners(source, rate, self.key(200 + i), self.pair)?;
            for (j, along) in (0..).zip([Along::Tiles, Along::Offsets, Along::Seeds]) {
                let key = self.key(300 + 10 * i + j);
                let more = pairs::successive(source, rate, key, along, self.successive)?;
                findings.extend(more);
            }
            Ok(findings)
        };
        let cases: Vec<(usize, f64)> = PAIRS.into_iter().enumerate().collect();
        let findings = cases.par_iter().map(|&(i, p)| compare(i, p));
        let findings = findings.collect::<Result<Vec<_>, _>>()?;
        Ok(Table {
            title: format!(
                "Pairs of masks, {} elements; each of 64 with each, {} elements",
                name(self.pair as f64),
                name(self.successive as f64)
            ),
            labels: vec!["test".into()],
            columns: PAIRS.map(|p| format!("p = {}", name(p))).into(),
            rows: rows("", &findings),
        })
    }
}

/// A row for each test, with a p-value of each column.
fn rows(label: &str, columns: &[Vec<Finding>]) -> Vec<Row> {
    let mut tests: Vec<&str> = Vec::new();
    for finding in columns.iter().flatten() {
        if !tests.contains(&finding.test.as_str()) {
            tests.push(&finding.test);
        }
    }
    let row = |test: &str| Row {
        labels: [label, test]
            .into_iter()
            .filter(|text| !text.is_empty())
            .map(Into::into)
            .collect(),
        p_values: columns
            .iter()
            .map(|column| {
                let finding = column.iter().find(|finding| finding.test == test);
                finding.map(|finding| finding.p_value)
            })
            .collect(),
    };
    tests.into_iter().map(row).collect()
}

/// A number as one would write it: powers of two far from 1, and 1 less such, by their exponent.
fn name(x: f64) -> String {
    let exponent = x.log2();
    let from_one = (1.0 - x).log2();
    if exponent.abs() > 8.0 && exponent.fract() == 0.0 {
        format!("2^{exponent}")
    } else if from_one < -8.0 && from_one.fract() == 0.0 {
        format!("1 - 2^{from_one}")
    } else if x == 1.0 / 3.0 {
        "1/3".into()
    } else {
        x.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_named_as_one_would_write_them() {
        let names = [
            (0.5_f64.powi(30), "2^-30"),
            (1.0 - 0.5_f64.powi(20), "1 - 2^-20"),
            (1.0 / 3.0, "1/3"),
            (0.25, "0.25"),
            (0.9999, "0.9999"),
            ((1_u64 << 34) as f64, "2^34"),
        ];
        for (x, expected) in names {
            assert_eq!(name(x), expected);
        }
    }
}
