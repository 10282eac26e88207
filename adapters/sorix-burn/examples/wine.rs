//! Trains a small network to grade wines, with burn and sorix's dropout, twice with the same seed.
//!
//! The data are the red wines of P. Cortez et al., *Modeling wine preferences by data mining from
//! physicochemical properties*, Decision Support Systems 47 (2009), from the crate `linfa-datasets`.

use burn::module::{Module, Param};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Int, Tensor, TensorData};
use sorix_burn::{Dropout, Generator};

const HIDDEN: usize = 64;
const EPOCHS: usize = 30;
const BATCH: usize = 64;

fn main() -> sorix_burn::Result<()> {
    let device = Device::flex().autodiff();
    let data = Data::load(&device);
    println!(
        "{} wines to train, {} to test",
        data.split,
        data.wines - data.split
    );
    for p in [0.0, 0.3] {
        let (losses, accuracy) = train(&data, p, 42)?;
        let last = losses[EPOCHS - 1];
        println!("p = {p}: loss {last:.4} after training, {accuracy:.1} % of the test set right");
        // Everything random comes from one seed, so the run can be repeated bit for bit.
        assert_eq!(
            train(&data, p, 42)?.0,
            losses,
            "the same seed gave another run"
        );
    }
    println!("each run, done again with the same seed, was equal bit for bit");
    Ok(())
}

struct Data {
    /// Measurements, standardised.
    x: Tensor<2>,
    grades: Tensor<1, Int>,
    wines: usize,
    width: usize,
    /// How many wines, from the first, are for training.
    split: usize,
    classes: usize,
}

impl Data {
    fn load(device: &Device) -> Self {
        let dataset = linfa_datasets::winequality();
        let (wines, width) = (dataset.records.nrows(), dataset.records.ncols());
        let x: Vec<f32> = dataset.records.iter().map(|&x| x as f32).collect();
        let grades: Vec<i64> = dataset.targets.iter().map(|&grade| grade as i64).collect();
        let highest = grades.iter().copied().max().unwrap_or(0) as usize;
        let x = Tensor::<2>::from_data(TensorData::new(x, [wines, width]), device);
        let x = x.clone() - x.mean_dim(0);
        let x = x.clone() / x.square().mean_dim(0).sqrt();
        Self {
            x,
            grades: Tensor::from_data(TensorData::new(grades, [wines]), device),
            wines,
            width,
            split: wines * 4 / 5,
            classes: highest + 1,
        }
    }
}

#[derive(Module, Debug)]
struct Net {
    layers: Vec<Linear>,
    dropouts: Vec<Dropout>,
}

impl Net {
    fn new(
        widths: &[usize],
        p: f64,
        generator: &Generator,
        device: &Device,
    ) -> sorix_burn::Result<Self> {
        let (mut layers, mut dropouts) = (Vec::new(), Vec::new());
        for (i, width) in widths.windows(2).enumerate() {
            let bound = (6.0 / width[0] as f64).sqrt();
            let (shape, key) = ([width[0], width[1]], generator.next_key());
            let weight = sorix::Tensor::uniform(shape, -bound, bound, sorix::DType::F32, key)
                .and_then(sorix::Tensor::into_vec::<f32>)
                .map_err(sorix::nn::Error::from)?;
            let mut layer = LinearConfig::new(width[0], width[1]).init(device);
            let weight = Tensor::from_data(TensorData::new(weight, shape), device);
            layer.weight = Param::from_tensor(weight);
            layer.bias = Some(Param::from_tensor(Tensor::zeros([width[1]], device)));
            layers.push(layer);
            dropouts.push(Dropout::new(p)?.generator(generator.fork(&format!("dropout {i}"))));
        }
        Ok(Self { layers, dropouts })
    }

    fn forward(&self, mut x: Tensor<2>) -> Tensor<2> {
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(x);
            if i + 1 < self.layers.len() {
                x = self.dropouts[i].forward(relu(x));
            }
        }
        x
    }
}

/// The mean loss of each epoch, and the percentage of the test set that is graded right.
fn train(data: &Data, p: f64, seed: u64) -> sorix_burn::Result<(Vec<f32>, f64)> {
    let device = data.x.device();
    let widths = [data.width, HIDDEN, HIDDEN, data.classes];
    let mut net = Net::new(&widths, p, &Generator::new(seed), &device)?;
    let mut optimizer = SgdConfig::new().init();
    let entropy = CrossEntropyLossConfig::new().init(&device);
    let mut losses = Vec::new();
    for _ in 0..EPOCHS {
        let mut sum = 0.0;
        let batches = data.split / BATCH;
        for batch in 0..batches {
            let x = data.x.clone().narrow(0, batch * BATCH, BATCH);
            let grades = data.grades.clone().narrow(0, batch * BATCH, BATCH);
            let loss = entropy.forward(net.forward(x), grades);
            sum += loss
                .to_data()
                .try_to_vec::<f32>()
                .map_or(f32::NAN, |loss| loss[0]);
            let gradients = GradientsParams::from_grads(loss.backward(), &net);
            net = optimizer.step(0.05, net, gradients);
        }
        losses.push(sum / batches as f32);
    }
    // Without autodiff, so without dropout.
    let (net, tested) = (net.valid(), data.wines - data.split);
    let x = data.x.clone().inner().narrow(0, data.split, tested);
    let grades = data.grades.clone().inner().narrow(0, data.split, tested);
    let right = net.forward(x).argmax(1).flatten::<1>(0, 1).equal(grades);
    let right = right.to_data().try_to_vec::<bool>().unwrap_or_default();
    let right = right.into_iter().filter(|&right| right).count();
    Ok((losses, 100.0 * right as f64 / tested as f64))
}
