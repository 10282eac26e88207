//! For adapters to other tensor libraries: any dropout of the family, over slices.
//!
//! An adapter knows its library's tensors, modules and modes. What is the same for all of them is here:
//!
//! * [`SliceForm`]: the forms of the family that slices are enough for.
//! * [`SliceDropout`]: one draw of a form. What is dropped from which shape by which map, what is kept until
//!   backward, and where the output's memory comes from.
//! * [`SliceSwiglu`]: the same for dropout of a gated activation, which has two inputs.
//! * [`SliceAddNorm`]: the same for a residual plus dropout, normalised, which has two outputs.
//! * [`Recorded`]: an operation of sorix's own tensors, such as attention, for the graph of another library.
//! * [`bias_gradient`]: the sum over rows that is the gradient of a bias.
//! * [`Draws`]: what a layer holds beside p and its mode, and [`layer_options!`](crate::layer_options), the
//!   builder methods that set it.
//!
//! `sorix::ndarray` is made of it, and so are the crates `sorix-candle` and `sorix-burn`.

mod activation;
mod bias;
mod draw;
mod layer;
mod norm;
mod recorded;
mod swiglu;

pub use bias::bias_gradient;
pub use draw::{Saved, SliceDropout};
pub use layer::Draws;
pub use norm::{NormRows, SavedNorm, SliceAddNorm};
pub use recorded::Recorded;
pub use swiglu::SliceSwiglu;

use crate::kernels::{Activation, Affine, DropRate};
use crate::nn::dropout::{
    Alpha, Channels, Elements, FeatureAlpha, Form, Gaussian, GeluElements, Locked, NoiseShape,
    Paths, Rectified, SiluElements,
};

/// What becomes of the elements of a tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Map {
    /// Inverted dropout: `x / (1 - p)` if kept, `+0.0` if dropped.
    Inverted,
    /// Another map of kept elements, and another value for dropped ones.
    Affine(Affine),
    /// Each is multiplied by a number from the normal distribution of mean 1 and this standard deviation;
    /// none is dropped. The numbers are those of [`Tensor::normal`](crate::Tensor::normal).
    Noise {
        /// The standard deviation.
        deviation: f64,
    },
    /// Inverted dropout of an activation of each element, in one pass with it. The mask has a bit for each
    /// element.
    Activation(Activation),
}

/// A [`Form`] that a mask, or noise, and a [`Map`] are enough for, so that it works on slices.
pub trait SliceForm: Form {
    /// What becomes of the elements: inverted dropout unless a form says otherwise.
    fn map(&self, rate: DropRate) -> Map {
        let _ = rate;
        Map::Inverted
    }
}

impl SliceForm for Elements {}
impl SliceForm for Locked {}
impl SliceForm for NoiseShape {}
impl<const SPATIAL: usize> SliceForm for Channels<SPATIAL> {}

impl SliceForm for Paths {
    fn map(&self, rate: DropRate) -> Map {
        if self.scales_by_keep() || rate.p() == 0.0 {
            Map::Inverted
        } else {
            Map::Affine(Affine::scale(1.0))
        }
    }
}

impl SliceForm for Alpha {
    fn map(&self, rate: DropRate) -> Map {
        Alpha::affine(rate).map_or(Map::Inverted, Map::Affine)
    }
}

impl SliceForm for FeatureAlpha {
    fn map(&self, rate: DropRate) -> Map {
        Alpha.map(rate)
    }
}

impl SliceForm for Gaussian {
    fn map(&self, rate: DropRate) -> Map {
        Gaussian::deviation(rate).map_or(Map::Inverted, |deviation| Map::Noise { deviation })
    }
}

impl SliceForm for Rectified {
    fn map(&self, _: DropRate) -> Map {
        Map::Activation(Activation::Relu)
    }
}

impl SliceForm for GeluElements {
    fn map(&self, _: DropRate) -> Map {
        Map::Activation(self.activation())
    }
}

impl SliceForm for SiluElements {
    fn map(&self, _: DropRate) -> Map {
        Map::Activation(Activation::Silu)
    }
}
