//! Trains a network of one hidden layer to grade wines, with ndarray alone and sorix's dropout of its
//! arrays; forward and backward are written out.
//!
//! ```text
//! cargo run --release --features ndarray --example ndarray
//! ```
//!
//! The data are the red wines of P. Cortez et al., *Modeling wine preferences by data mining from
//! physicochemical properties*, Decision Support Systems 47 (2009), from the crate `linfa-datasets`.

use ndarray::{Array1, Array2, ArrayView2, Axis, s};
use sorix::Generator;
use sorix::ndarray::{DropoutExt, Error};

const HIDDEN: usize = 128;
const EPOCHS: usize = 60;
const BATCH: usize = 64;
const LEARNING_RATE: f64 = 0.1;

fn main() -> Result<(), Error> {
    let data = Data::load();
    println!(
        "{} wines to train, {} to test",
        data.split,
        data.x.nrows() - data.split
    );
    for p in [0.0, 0.5] {
        let (loss, accuracy) = train(&data, p)?;
        println!(
            "p = {p}: loss {loss:.4} in the last epoch, {accuracy:.1} % of the test set right"
        );
        // Everything random comes from one seed, so the run can be repeated bit for bit.
        assert_eq!(train(&data, p)?.0, loss, "the same seed gave another run");
    }
    println!("each run, done again with the same seed, was equal bit for bit");
    Ok(())
}

struct Data {
    /// Measurements, standardised.
    x: Array2<f64>,
    grades: Vec<usize>,
    classes: usize,
    /// How many wines, from the first, are for training.
    split: usize,
}

impl Data {
    fn load() -> Self {
        let dataset = linfa_datasets::winequality();
        let (wines, width) = (dataset.records.nrows(), dataset.records.ncols());
        // The crate of the data has an ndarray of its own.
        let records: Vec<f64> = dataset.records.iter().copied().collect();
        let records = Array2::from_shape_vec((wines, width), records);
        let mut x = records.expect("as many numbers as rows times columns");
        for mut column in x.columns_mut() {
            let (mean, deviation) = (column.mean().unwrap_or(0.0), column.std(0.0));
            column.mapv_inplace(|x| (x - mean) / deviation);
        }
        let grades: Vec<usize> = dataset.targets.iter().copied().collect();
        let classes = grades.iter().max().map_or(0, |highest| highest + 1);
        let split = wines * 4 / 5;
        Self {
            x,
            grades,
            classes,
            split,
        }
    }
}

/// The mean loss of the last epoch, and the percentage of the test set that is graded right.
fn train(data: &Data, p: f64) -> Result<(f64, f64), Error> {
    let generator = Generator::new(42);
    let masks = generator.fork("dropout");
    let weight = |inputs: usize, outputs: usize| {
        // Normal numbers of variance 2 / inputs, named by a key as the masks are.
        let (std, key) = ((2.0 / inputs as f64).sqrt(), generator.next_key());
        let weight = sorix::Tensor::normal([inputs, outputs], 0.0, std, sorix::DType::F64, key);
        let weight = weight
            .and_then(sorix::Tensor::into_vec)
            .expect("memory for the weights");
        Array2::from_shape_vec((inputs, outputs), weight).expect("as many numbers as asked for")
    };
    let (mut w1, mut w2) = (weight(data.x.ncols(), HIDDEN), weight(HIDDEN, data.classes));
    let (mut b1, mut b2) = (Array1::zeros(HIDDEN), Array1::zeros(data.classes));
    let mut loss = 0.0;
    for _ in 0..EPOCHS {
        loss = 0.0;
        let batches = data.split / BATCH;
        for batch in 0..batches {
            let rows = batch * BATCH..(batch + 1) * BATCH;
            let x = data.x.slice(s![rows.clone(), ..]);

            let hidden = (x.dot(&w1) + &b1).mapv_into(|h| h.max(0.0));
            let (dropped, mask) = hidden.dropout(p, masks.next_key())?;
            let mut d_logits = softmax(dropped.dot(&w2) + &b2);
            for (mut row, &grade) in d_logits.rows_mut().into_iter().zip(&data.grades[rows]) {
                loss -= row[grade].ln() / (batches * BATCH) as f64;
                row[grade] -= 1.0;
            }
            d_logits /= BATCH as f64;

            let mut d_hidden = d_logits.dot(&w2.t()).dropout_backward(&mask)?;
            d_hidden.zip_mut_with(&hidden, |d, &h| {
                if h <= 0.0 {
                    *d = 0.0;
                }
            });
            w2.scaled_add(-LEARNING_RATE, &dropped.t().dot(&d_logits));
            b2.scaled_add(-LEARNING_RATE, &d_logits.sum_axis(Axis(0)));
            w1.scaled_add(-LEARNING_RATE, &x.t().dot(&d_hidden));
            b1.scaled_add(-LEARNING_RATE, &d_hidden.sum_axis(Axis(0)));
        }
    }
    // In evaluation nothing is dropped.
    let x: ArrayView2<f64> = data.x.slice(s![data.split.., ..]);
    let logits = (x.dot(&w1) + &b1).mapv_into(|h| h.max(0.0)).dot(&w2) + &b2;
    let right = logits.rows().into_iter().zip(&data.grades[data.split..]);
    let right = right.filter(|(row, grade)| {
        let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
        best.is_some_and(|(class, _)| class == **grade)
    });
    Ok((loss, 100.0 * right.count() as f64 / x.nrows() as f64))
}

fn softmax(mut logits: Array2<f64>) -> Array2<f64> {
    for mut row in logits.rows_mut() {
        let highest = row.fold(f64::NEG_INFINITY, |highest, &x| highest.max(x));
        row.mapv_inplace(|x| (x - highest).exp());
        let sum = row.sum();
        row /= sum;
    }
    logits
}
