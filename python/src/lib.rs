//! The native half of the Python package sorix: conversions between Python and sorix, and calls of it.
//!
//! What users see of it is documented in `py_src/sorix`, and typed in `_sorix.pyi`.
#![forbid(unsafe_code)]

mod array;
mod attention;
mod checkpoint;
mod draws;
mod dtype;
mod error;
mod fused;
mod generator;
mod nn;
mod norm;
mod optim;
mod tensor;
mod threads;

use pyo3::prelude::*;

#[pymodule]
mod _sorix {
    #[pymodule_export]
    use crate::attention::{_attention, _attention_gradients};
    #[pymodule_export]
    use crate::checkpoint::{_copy_parameters, _load, _save};
    #[pymodule_export]
    use crate::draws::{
        _apply, _draw, Shard, dropout, dropout_add, dropout_backward, mask, replay,
    };
    #[pymodule_export]
    use crate::dtype::PyDType;
    #[pymodule_export]
    use crate::fused::{
        _act_draw, _act_gradient, _bias_draw, _swiglu_draw, _swiglu_gradients, act_dropout,
        act_dropout_backward, bias_dropout_add, swiglu_dropout, swiglu_dropout_backward,
    };
    #[pymodule_export]
    use crate::generator::{PyGenerator, default_generator, manual_seed};
    #[pymodule_export]
    use crate::nn::{
        _check_rate, _clip_grad_norm, _clip_grad_value, _dropout, _dropout_add_norm,
        _embedding_dropout, _multi_head_attention, _new_embedding, _new_linear,
        _new_multi_head_attention, _swiglu, _weight_dropout, DropoutForm,
        binary_cross_entropy_with_logits, cross_entropy, embedding, layer_norm, linear,
        monte_carlo, mse_loss,
    };
    #[pymodule_export]
    use crate::norm::{_norm_draw, _norm_gradients};
    #[pymodule_export]
    use crate::optim::PyOptimizer;
    #[pymodule_export]
    use crate::tensor::{
        _rebuild_tensor, PyTensor, arange, concatenate, full, normal, ones, randn, stack, tensor,
        uniform, where_, zeros,
    };
    #[pymodule_export]
    use crate::threads::{
        _after_fork, _before_fork, _set_grad_enabled, get_num_threads, is_grad_enabled,
        set_num_threads,
    };

    use super::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        for dtype in dtype::ALL {
            module.add(dtype.name(), dtype::object(module.py(), dtype)?)?;
        }
        Ok(())
    }
}
