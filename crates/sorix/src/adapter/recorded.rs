//! [`Recorded`]: an operation of sorix's own tensors, for the graph of another library.

use crate::autograd::{enable_grad, grad_retain_graph, no_grad};
use crate::{Tensor, TensorResult};

/// An operation of sorix's own [`Tensor`]s that stands in the graph of another library: its output, and what
/// backward needs.
///
/// For what is not there over slices, as [`softmax_dropout`](Tensor::softmax_dropout) and
/// [`scaled_dot_product_attention`](Tensor::scaled_dot_product_attention). The inputs are tensors made of the other
/// library's elements ([`Tensor::from_slice`]), so each is copied once, and so are the output and the gradients
/// ([`Tensor::to_vec`]); until backward these copies are kept. That pays for operations that take many times as long as
/// copying what they read.
///
/// ```
/// use sorix::adapter::Recorded;
/// use sorix::kernels::{DropRate, MaskKey};
/// use sorix::{SaveMask, Tensor};
///
/// let x = Tensor::from_slice(&[0.0, 3.0_f64.ln()], [2])?; // of the other library's elements
/// let (rate, key) = (DropRate::new(0.0)?, MaskKey::new(42, 0));
/// let softmax = Recorded::new([x], [true], |[x]| {
///     x.softmax_dropout(None, 1.0, rate, key, SaveMask::Bits)
/// })?;
/// let y = softmax.output().to_vec::<f64>()?;
/// assert!((y[0] - 0.25).abs() < 1e-15 && (y[1] - 0.75).abs() < 1e-15);
///
/// // Backward may come more than once.
/// for _ in 0..2 {
///     let [of_x] = softmax.gradients(&Tensor::from_slice(&[1.0, 0.0], [2])?)?;
///     let of_x = of_x.unwrap().to_vec::<f64>()?;
///     assert!((of_x[0] - 0.1875).abs() < 1e-15 && (of_x[1] + 0.1875).abs() < 1e-15);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Recorded<const N: usize> {
    output: Tensor,
    /// Leaves, those of which a gradient is wanted.
    inputs: [Tensor; N],
    wanted: [bool; N],
}

impl<const N: usize> Recorded<N> {
    /// What `f` makes of the inputs. Nothing is recorded if no gradient is wanted.
    ///
    /// # Errors
    ///
    /// Those of `f`.
    pub fn new(
        inputs: [Tensor; N],
        wanted: [bool; N],
        f: impl FnOnce(&[Tensor; N]) -> TensorResult<Tensor>,
    ) -> TensorResult<Self> {
        let mut wants = wanted.into_iter();
        let inputs = inputs.map(|input| {
            let wanted = wants.next().unwrap_or(false);
            input.detach().requires_grad(wanted)
        });
        // What the caller has switched off for its own tensors is no matter of the other library's.
        let output = match wanted.contains(&true) {
            true => enable_grad(|| f(&inputs)),
            false => no_grad(|| f(&inputs)),
        }?;
        Ok(Self {
            output,
            inputs,
            wanted,
        })
    }

    /// The output.
    #[must_use]
    pub fn output(&self) -> &Tensor {
        &self.output
    }

    /// The gradient of each input of which one is wanted, in its dtype, for the gradient of the output, of the
    /// output's shape and dtype.
    ///
    /// # Errors
    ///
    /// If the gradient does not fit the output; and those of the operation's backward.
    pub fn gradients(&self, gradient: &Tensor) -> TensorResult<[Option<Tensor>; N]> {
        let mut gradients = [const { None }; N];
        let places = (0..N).filter(|&i| self.wanted[i]);
        let places: Vec<usize> = places.collect();
        if places.is_empty() {
            return Ok(gradients);
        }
        let inputs: Vec<&Tensor> = places.iter().map(|&i| &self.inputs[i]).collect();
        let found = grad_retain_graph(&[&self.output], Some(&[gradient]), &inputs)?;
        for (i, found) in places.into_iter().zip(found) {
            let dtype = self.inputs[i].dtype();
            gradients[i] = found.map(|found| found.to_dtype(dtype)).transpose()?;
        }
        Ok(gradients)
    }
}
