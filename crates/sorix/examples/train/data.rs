//! The data: P. Cortez et al., *Modeling wine preferences by data mining from physicochemical
//! properties*, Decision Support Systems 47 (2009); the red wines, from the crate `linfa-datasets`.

use std::collections::HashSet;

use anyhow::Result;
use sorix::nn::Generator;
use sorix::{DType, Tensor};

/// Wines: what was measured of each, and its grade.
#[derive(Debug)]
pub(crate) struct Table {
    /// `[wines, measurements]`, f64
    measurements: Tensor,
    /// 0 for the lowest grade that any wine got.
    grades: Vec<usize>,
    repeated: usize,
}

/// Some of the wines, standardised.
#[derive(Debug)]
pub(crate) struct Part {
    /// `[wines, measurements]`, f32
    pub(crate) x: Tensor,
    pub(crate) grades: Vec<usize>,
}

/// All of the wines.
#[derive(Debug)]
pub(crate) struct Split {
    pub(crate) train: Part,
    pub(crate) validation: Part,
    pub(crate) test: Part,
}

impl Table {
    /// The distinct rows. The table repeats 240 of its 1599: a wine in both training and test set
    /// would reward learning by heart.
    pub(crate) fn wine_quality() -> Result<Self> {
        let dataset = linfa_datasets::winequality();
        let rows: Vec<(Vec<f64>, usize)> = dataset
            .records
            .rows()
            .into_iter()
            .map(|row| row.to_vec())
            .zip(dataset.targets.iter().copied())
            .collect();
        let mut seen = HashSet::new();
        let distinct = |(row, grade): &&(Vec<f64>, usize)| {
            let bits: Vec<u64> = row.iter().map(|value| value.to_bits()).collect();
            seen.insert((bits, *grade))
        };
        let kept: Vec<&(Vec<f64>, usize)> = rows.iter().filter(distinct).collect();
        let lowest = kept.iter().map(|(_, grade)| *grade).min().unwrap_or(0);
        let elements: Vec<f64> = kept.iter().flat_map(|(row, _)| row.clone()).collect();
        let shape = [kept.len(), dataset.records.ncols()];
        Ok(Self {
            measurements: Tensor::from_vec(elements, shape)?,
            grades: kept.iter().map(|(_, grade)| grade - lowest).collect(),
            repeated: rows.len() - kept.len(),
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.grades.len()
    }

    pub(crate) fn repeated(&self) -> usize {
        self.repeated
    }

    pub(crate) fn width(&self) -> usize {
        self.measurements.shape()[1]
    }

    pub(crate) fn grades(&self) -> usize {
        self.grades.iter().max().map_or(0, |&highest| highest + 1)
    }

    /// 60 % for training, 20 % for validation, 20 % for the test, at random. All are standardised
    /// by mean and standard deviation of the training set alone.
    pub(crate) fn split(&self, generator: &Generator) -> Result<Split> {
        let order = permutation(self.len(), generator)?;
        let (train, rest) = order.split_at(self.len() * 3 / 5);
        let (validation, test) = rest.split_at(rest.len() / 2);
        let measured = self.measurements.index_select(0, train)?;
        let scale = Scale {
            mean: measured.mean_over(0)?,
            deviation: measured.std_over(0, 0)?,
        };
        Ok(Split {
            train: self.part(train, &scale)?,
            validation: self.part(validation, &scale)?,
            test: self.part(test, &scale)?,
        })
    }

    fn part(&self, rows: &[usize], scale: &Scale) -> Result<Part> {
        let x = self.measurements.index_select(0, rows)?;
        let x = x.sub(&scale.mean)?.div(&scale.deviation)?;
        Ok(Part {
            x: x.to_dtype(DType::F32)?,
            grades: rows.iter().map(|&i| self.grades[i]).collect(),
        })
    }
}

/// What makes mean 0 and standard deviation 1 of each measurement.
#[derive(Debug)]
struct Scale {
    mean: Tensor,
    deviation: Tensor,
}

/// The numbers below `count` in an order that takes one key of the generator.
pub(crate) fn permutation(count: usize, generator: &Generator) -> Result<Vec<usize>> {
    let draws = Tensor::uniform([count], 0.0, 1.0, DType::F64, generator.next_key())?;
    let draws = draws.into_vec::<f64>()?;
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|&a, &b| draws[a].total_cmp(&draws[b]));
    Ok(order)
}
