//! The layers of the dropout family: forward and backward of a module on a tensor, which also
//! allocates and records.

use sorix::nn::dropout::{DropoutLayer, Rows};
use sorix::nn::{
    AlphaDropout, BroadcastDropout, DropBlock2d, DropPath, Dropout, Dropout1d, Dropout2d,
    Dropout3d, Embedding, EmbeddingDropout, FeatureAlphaDropout, GaussianDropout, Linear,
    LockedDropout, Module, Result, WeightDropout,
};
use sorix::{DType, Generator, MaskKey, Tensor};

use crate::case::size_label;

/// A layer that drops from one Mi elements, under the name its rows carry. In f32, on the active
/// backend.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    /// The name in ids, tables and JSON.
    pub name: &'static str,
    /// The shape of what it drops from: its input, or its parameter.
    pub shape: &'static [usize],
    /// The layer at a drop probability, and an input.
    pub make: fn(p: f64) -> Result<Subject>,
}

/// A layer, and an input for it.
pub type Subject = (Box<dyn Module>, Tensor);

/// An image of each of 16 samples, in 64 channels.
const IMAGES: &[usize] = &[16, 64, 32, 32];

/// A sequence of each of 8 samples, of 128 steps.
const SEQUENCES: &[usize] = &[8, 128, 1024];

impl Layer {
    /// Every layer, in the order of the tables.
    pub const ALL: [Self; 13] = [
        Self::new("dropout1d", &[16, 64, 1024], |p| {
            on(Dropout1d::new(p), &[16, 64, 1024])
        }),
        Self::new("dropout2d", IMAGES, |p| on(Dropout2d::new(p), IMAGES)),
        Self::new("dropout2d_channels_last", &[16, 32, 32, 64], |p| {
            let layer = Dropout2d::new(p).map(|layer| layer.channels_last());
            on(layer, &[16, 32, 32, 64])
        }),
        Self::new("dropout3d", &[16, 64, 4, 16, 16], |p| {
            on(Dropout3d::new(p), &[16, 64, 4, 16, 16])
        }),
        Self::new("broadcast_dropout", SEQUENCES, |p| {
            on(BroadcastDropout::shared_along(p, [0, 1]), SEQUENCES)
        }),
        Self::new("locked_dropout", SEQUENCES, |p| {
            on(LockedDropout::new(p), SEQUENCES)
        }),
        Self::new("drop_path", IMAGES, |p| on(DropPath::new(p), IMAGES)),
        Self::new("drop_block", IMAGES, |p| {
            on(DropBlock2d::with_block_size(p, 7), IMAGES)
        }),
        Self::new("alpha_dropout", SEQUENCES, |p| {
            on(AlphaDropout::new(p), SEQUENCES)
        }),
        Self::new("feature_alpha_dropout", IMAGES, |p| {
            on(FeatureAlphaDropout::new(p), IMAGES)
        }),
        Self::new("gaussian_dropout", SEQUENCES, |p| {
            on(GaussianDropout::new(p), SEQUENCES)
        }),
        // One sample, so that the product with the weight is a small part of it.
        Self::new("weight_dropout", &[1024, 1024], |p| {
            let linear = Linear::new(1024, 1024, &Generator::new(1))?;
            let layer = WeightDropout::new(linear, Dropout::new(p)?);
            on(Ok(layer), &[1, 1024])
        }),
        Self::new("embedding_dropout", &[4096, 256], |p| {
            let embedding = Embedding::new(4096, 256, &Generator::new(1))?;
            let layer = EmbeddingDropout::new(embedding, DropoutLayer::<Rows>::new(p)?);
            let words: Vec<f32> = (0..256_u16).map(|i| f32::from(i * 13)).collect();
            Ok((Box::new(layer), Tensor::from_slice(&words, [256])?))
        }),
    ];

    /// The drop probability of the rows.
    pub const P: f64 = 0.1;

    const fn new(
        name: &'static str,
        shape: &'static [usize],
        make: fn(f64) -> Result<Subject>,
    ) -> Self {
        Self { name, shape, make }
    }

    /// The number of elements that it drops from.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The id of a row: `layer/f32/backend/size`.
    ///
    /// ```
    /// use sorix_benches::layers::Layer;
    /// assert_eq!(Layer::ALL[1].id("avx2"), "dropout2d/f32/avx2/1Mi");
    /// ```
    #[must_use]
    pub fn id(&self, backend: &str) -> String {
        format!(
            "{}/f32/{backend}/{}",
            self.name,
            size_label(self.elements())
        )
    }
}

/// The layer, and an input of this shape.
fn on(layer: Result<impl Module + 'static>, shape: &[usize]) -> Result<Subject> {
    let x = Tensor::randn(shape, DType::F32, MaskKey::new(1, 0))?;
    Ok((Box::new(layer?), x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layer_drops_from_one_mi_elements() {
        for layer in Layer::ALL {
            assert_eq!(layer.elements(), 1 << 20, "{}", layer.name);
            let (module, x) = (layer.make)(Layer::P).unwrap();
            let parameters = module.parameters().iter().map(Tensor::numel).max();
            let dropped = x.numel().max(parameters.unwrap_or(0));
            assert_eq!(dropped, 1 << 20, "{}", layer.name);
            module.forward(&x).unwrap();
        }
    }
}
