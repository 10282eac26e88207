//! The layers of a network, one file each.

mod dropout_add_norm;
pub(crate) mod embedding;
mod gelu;
mod layer_norm;
pub(crate) mod linear;
mod multi_head_attention;
mod relu;
mod sigmoid;
mod silu;
mod softmax;
pub(crate) mod swiglu;
mod tanh;
mod transformer;

pub use dropout_add_norm::DropoutAddNorm;
pub use embedding::Embedding;
pub use gelu::GELU;
pub use layer_norm::LayerNorm;
pub use linear::Linear;
pub use multi_head_attention::{AttentionMasks, MultiHeadAttention};
pub use relu::ReLU;
pub use sigmoid::Sigmoid;
pub use silu::SiLU;
pub use softmax::Softmax;
pub use swiglu::SwiGLU;
pub use tanh::Tanh;
pub use transformer::{TransformerDecoderLayer, TransformerEncoderLayer};
