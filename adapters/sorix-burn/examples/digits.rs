//! Trains a small convolutional network to read handwritten digits, with burn and sorix's dropout, twice
//! with the same seed.
//!
//! The data are 1,797 images of 8 by 8 pixels: E. Alpaydin and C. Kaynak, *Optical recognition of
//! handwritten digits*, UCI Machine Learning Repository (1998), from the crate `smartcore`.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Int, Tensor, TensorData};
use smartcore::dataset::digits;
use sorix_burn::{Dropout, Dropout2d, Generator};

const SIDE: usize = 8;
const CHANNELS: usize = 16;
const HIDDEN: usize = 64;
const CLASSES: usize = 10;
const EPOCHS: usize = 30;
const BATCH: usize = 64;
const SEED: u64 = 42;

fn main() -> sorix_burn::Result<()> {
    let device = Device::flex().autodiff();
    let data = Data::load(&device);
    println!(
        "{} digits to train, {} to test",
        data.split,
        data.images - data.split
    );
    for p in [0.0, 0.25] {
        let (losses, accuracy) = train(&data, p)?;
        let last = losses[EPOCHS - 1];
        println!(
            "p = {p}: loss {last:.4} in the last epoch, {accuracy:.1} % of the test set right"
        );
        // Everything random comes from one seed, so the run can be repeated bit for bit.
        assert_eq!(train(&data, p)?.0, losses, "the same seed gave another run");
    }
    println!("each run, done again with the same seed, was equal bit for bit");
    Ok(())
}

struct Data {
    x: Tensor<4>,
    digits: Tensor<1, Int>,
    images: usize,
    /// How many images, from the first, are for training.
    split: usize,
}

impl Data {
    fn load(device: &Device) -> Self {
        let dataset = digits::load_dataset();
        let images = dataset.num_samples;
        let pixels: Vec<f32> = dataset.data.iter().map(|pixel| pixel / 16.0).collect();
        let digits: Vec<i64> = dataset.target.iter().map(|&digit| digit as i64).collect();
        let pixels = TensorData::new(pixels, [images, 1, SIDE, SIDE]);
        Self {
            x: Tensor::from_data(pixels, device),
            digits: Tensor::from_data(TensorData::new(digits, [images]), device),
            images,
            split: images * 4 / 5,
        }
    }
}

#[derive(Module, Debug)]
struct Net {
    first: Conv2d,
    second: Conv2d,
    channels: Dropout2d,
    hidden: Linear,
    dropout: Dropout,
    output: Linear,
}

impl Net {
    fn new(p: f64, device: &Device) -> sorix_burn::Result<Self> {
        let generator = Generator::new(SEED);
        // Two convolutions of 3 by 3 leave 4 by 4 positions.
        let features = CHANNELS * (SIDE - 4) * (SIDE - 4);
        Ok(Self {
            first: Conv2dConfig::new([1, CHANNELS], [3, 3]).init(device),
            second: Conv2dConfig::new([CHANNELS, CHANNELS], [3, 3]).init(device),
            channels: Dropout2d::new(p)?.generator(generator.fork("channels")),
            hidden: LinearConfig::new(features, HIDDEN).init(device),
            dropout: Dropout::new(p)?.generator(generator.fork("hidden")),
            output: LinearConfig::new(HIDDEN, CLASSES).init(device),
        })
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = relu(self.first.forward(x));
        let x = self.channels.forward(relu(self.second.forward(x)));
        let x = relu(self.hidden.forward(x.flatten::<2>(1, 3)));
        self.output.forward(self.dropout.forward(x))
    }
}

/// The mean loss of each epoch, and the percentage of the test set that is read right.
fn train(data: &Data, p: f64) -> sorix_burn::Result<(Vec<f32>, f64)> {
    let device = data.x.device();
    device.seed(SEED); // for the weights, which are burn's
    let mut net = Net::new(p, &device)?;
    let mut optimizer = AdamConfig::new().init();
    let entropy = CrossEntropyLossConfig::new().init(&device);
    let mut losses = Vec::new();
    for _ in 0..EPOCHS {
        let mut sum = 0.0;
        let batches = data.split / BATCH;
        for batch in 0..batches {
            let x = data.x.clone().narrow(0, batch * BATCH, BATCH);
            let digits = data.digits.clone().narrow(0, batch * BATCH, BATCH);
            let loss = entropy.forward(net.forward(x), digits);
            sum += loss
                .to_data()
                .try_to_vec::<f32>()
                .map_or(f32::NAN, |loss| loss[0]);
            let gradients = GradientsParams::from_grads(loss.backward(), &net);
            net = optimizer.step(0.002, net, gradients);
        }
        losses.push(sum / batches as f32);
    }
    // Without autodiff, so without dropout.
    let (net, tested) = (net.valid(), data.images - data.split);
    let x = data.x.clone().inner().narrow(0, data.split, tested);
    let digits = data.digits.clone().inner().narrow(0, data.split, tested);
    let right = net.forward(x).argmax(1).flatten::<1>(0, 1).equal(digits);
    let right = right.to_data().try_to_vec::<bool>().unwrap_or_default();
    let right = right.into_iter().filter(|&right| right).count();
    Ok((losses, 100.0 * right as f64 / tested as f64))
}
