//! The gradients of chosen tensors, which come back and are not added to those of leaves.

use crate::autograd::backward::{Graph, of_inputs};
use crate::error::Result;
use crate::tensor::Tensor;

/// The derivatives of the sum of `outputs`, tensors of one element, with respect to each of `inputs`:
/// leaves, or tensors that the outputs were computed from. PyTorch's `torch.autograd.grad`.
///
/// No leaf changes: [`Tensor::grad`] is what it was. An input that no output depends on has none. The
/// graph is freed as far as it was passed; an operation older than every input is not.
///
/// # Errors
///
/// If an output has more or fewer elements than one; if an output or an input does not need a gradient;
/// and as [`Tensor::backward`].
///
/// ```
/// use sorix_core::autograd::grad;
/// use sorix_core::tensor;
///
/// let (x, w) = (tensor([3.0]).requires_grad(true), tensor([2.0]).requires_grad(true));
/// let hidden = x.mul(&w)?;
/// let unused = tensor([1.0]).requires_grad(true);
/// let found = grad(&[&hidden.mul(&hidden)?], &[&hidden, &x, &unused])?;
/// assert_eq!(found[0].as_ref().unwrap().item::<f64>()?, 12.0); // 2 x w
/// assert_eq!(found[1].as_ref().unwrap().item::<f64>()?, 24.0); // 2 x w²
/// assert!(found[2].is_none() && w.grad().is_none());
/// # Ok::<(), sorix_core::Error>(())
/// ```
pub fn grad(outputs: &[&Tensor], inputs: &[&Tensor]) -> Result<Vec<Option<Tensor>>> {
    of_inputs(outputs, None, inputs, Graph::Free)
}

/// [`grad`] of outputs of any shape, given the gradient of each: the vector-Jacobian products.
///
/// # Errors
///
/// If there is not one gradient for each output, of its shape and dtype; and as [`grad`].
///
/// ```
/// use sorix_core::autograd::grad_with;
/// use sorix_core::tensor;
///
/// let x = tensor([1.0, 2.0]).requires_grad(true);
/// let found = grad_with(&[&x.mul(&x)?], &[&tensor([1.0, 10.0])], &[&x])?;
/// assert_eq!(found[0].as_ref().unwrap().to_vec::<f64>()?, [2.0, 40.0]);
/// # Ok::<(), sorix_core::Error>(())
/// ```
pub fn grad_with(
    outputs: &[&Tensor],
    grad_outputs: &[&Tensor],
    inputs: &[&Tensor],
) -> Result<Vec<Option<Tensor>>> {
    of_inputs(outputs, Some(grad_outputs), inputs, Graph::Free)
}

/// [`grad`], or with gradients [`grad_with`], that keeps the graph for another one.
///
/// # Errors
///
/// As those two.
///
/// ```
/// use sorix_core::autograd::grad_retain_graph;
/// use sorix_core::tensor;
///
/// // The Jacobian of x², row by row.
/// let x = tensor([1.0, 2.0]).requires_grad(true);
/// let y = x.mul(&x)?;
/// for (unit, expected) in [([1.0, 0.0], [2.0, 0.0]), ([0.0, 1.0], [0.0, 4.0])] {
///     let row = grad_retain_graph(&[&y], Some(&[&tensor(unit)]), &[&x])?;
///     assert_eq!(row[0].as_ref().unwrap().to_vec::<f64>()?, expected);
/// }
/// # Ok::<(), sorix_core::Error>(())
/// ```
pub fn grad_retain_graph(
    outputs: &[&Tensor],
    grad_outputs: Option<&[&Tensor]>,
    inputs: &[&Tensor],
) -> Result<Vec<Option<Tensor>>> {
    of_inputs(outputs, grad_outputs, inputs, Graph::Retain)
}
