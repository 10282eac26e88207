//! Trains a small network to grade wines, with candle and sorix's dropout, twice with the same seed.
//!
//! The data are the red wines of P. Cortez et al., *Modeling wine preferences by data mining from
//! physicochemical properties*, Decision Support Systems 47 (2009), from the crate `linfa-datasets`.

use anyhow::{Result, ensure};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{Linear, Module, Optimizer, SGD, loss::cross_entropy};
use sorix_candle::{Dropout, Generator};

const HIDDEN: usize = 64;
const EPOCHS: usize = 30;
const BATCH: usize = 64;

fn main() -> Result<()> {
    let data = Data::load()?;
    println!(
        "{} wines to train, {} to test",
        data.train.0.dim(0)?,
        data.test.0.dim(0)?
    );
    for p in [0.0, 0.3] {
        let (losses, accuracy) = train(&data, p, 42)?;
        println!(
            "p = {p}: loss {:.4} after training, {:.1} % of the test set right",
            losses[EPOCHS - 1],
            100.0 * accuracy
        );
        // Everything random comes from one seed, so the run can be repeated bit for bit.
        ensure!(
            train(&data, p, 42)?.0 == losses,
            "the same seed gave another run"
        );
    }
    println!("each run, done again with the same seed, was equal bit for bit");
    Ok(())
}

/// Measurements, standardised, and grades.
type Part = (Tensor, Tensor);

struct Data {
    train: Part,
    test: Part,
    grades: usize,
}

impl Data {
    fn load() -> Result<Self> {
        let dataset = linfa_datasets::winequality();
        let (wines, width) = (dataset.records.nrows(), dataset.records.ncols());
        let x: Vec<f64> = dataset.records.iter().copied().collect();
        let grades: Vec<u32> = dataset.targets.iter().map(|&grade| grade as u32).collect();
        let highest = grades.iter().copied().max().unwrap_or(0) as usize;
        let x = Tensor::from_vec(x, (wines, width), &Device::Cpu)?;
        let deviation = x.broadcast_sub(&x.mean_keepdim(0)?)?;
        let x = deviation.broadcast_div(&deviation.sqr()?.mean_keepdim(0)?.sqrt()?)?;
        let (x, grades) = (
            x.to_dtype(DType::F32)?,
            Tensor::from_vec(grades, wines, &Device::Cpu)?,
        );
        let split = wines * 4 / 5;
        Ok(Self {
            train: (x.narrow(0, 0, split)?, grades.narrow(0, 0, split)?),
            test: (
                x.narrow(0, split, wines - split)?,
                grades.narrow(0, split, wines - split)?,
            ),
            grades: highest + 1,
        })
    }
}

struct Net {
    layers: Vec<Linear>,
    dropouts: Vec<Dropout>,
    variables: Vec<Var>,
}

impl Net {
    fn new(widths: &[usize], p: f64, generator: &Generator) -> Result<Self> {
        let (mut layers, mut dropouts, mut variables) = (Vec::new(), Vec::new(), Vec::new());
        for (i, width) in widths.windows(2).enumerate() {
            // candle cannot seed its own initialisation on the CPU, either.
            let bound = (6.0 / width[0] as f64).sqrt();
            let shape = [width[1], width[0]];
            let key = generator.next_key();
            let weight = sorix::Tensor::uniform(shape, -bound, bound, sorix::DType::F32, key)?;
            let weight = Tensor::from_vec(weight.into_vec::<f32>()?, &shape, &Device::Cpu)?;
            let weight = Var::from_tensor(&weight)?;
            let bias = Var::zeros(width[1], DType::F32, &Device::Cpu)?;
            layers.push(Linear::new(
                weight.as_tensor().clone(),
                Some(bias.as_tensor().clone()),
            ));
            dropouts.push(Dropout::new(p).generator(generator.fork(&format!("dropout {i}"))));
            variables.extend([weight, bias]);
        }
        Ok(Self {
            layers,
            dropouts,
            variables,
        })
    }

    fn forward(&self, xs: &Tensor, train: bool) -> Result<Tensor> {
        let (last, hidden) = self.layers.split_last().expect("a network has a layer");
        let mut xs = xs.clone();
        for (layer, dropout) in hidden.iter().zip(&self.dropouts) {
            xs = dropout.forward(&layer.forward(&xs)?.relu()?, train)?;
        }
        Ok(last.forward(&xs)?)
    }
}

/// The mean loss of each epoch, and the part of the test set that is graded right.
fn train(data: &Data, p: f64, seed: u64) -> Result<(Vec<f32>, f32)> {
    let (x, grades) = &data.train;
    let net = Net::new(
        &[x.dim(1)?, HIDDEN, HIDDEN, data.grades],
        p,
        &Generator::new(seed),
    )?;
    let mut optimizer = SGD::new(net.variables.clone(), 0.05)?;
    let mut losses = Vec::new();
    for _ in 0..EPOCHS {
        let mut sum = 0.0;
        let batches = x.dim(0)? / BATCH;
        for batch in 0..batches {
            let (x, grades) = (
                x.narrow(0, batch * BATCH, BATCH)?,
                grades.narrow(0, batch * BATCH, BATCH)?,
            );
            let loss = cross_entropy(&net.forward(&x, true)?, &grades)?;
            optimizer.backward_step(&loss)?;
            sum += loss.to_scalar::<f32>()?;
        }
        losses.push(sum / batches as f32);
    }
    let (x, grades) = &data.test;
    let right = net.forward(x, false)?.argmax(1)?.eq(grades)?;
    Ok((
        losses,
        right.to_dtype(DType::F32)?.mean_all()?.to_scalar::<f32>()?,
    ))
}
