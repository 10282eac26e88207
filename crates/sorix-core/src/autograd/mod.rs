//! Reverse-mode automatic differentiation, defined by running.
//!
//! An operation on a tensor that requires a gradient [records](record) a node: a [`Function`] that
//! turns the gradient of the output into those of the inputs, and an edge to where each input came
//! from. [`Tensor::backward`] goes through the nodes from the newest to the oldest, adds up what
//! arrives at each, and leaves the sums at the leaves, where [`Tensor::grad`] finds them.
//!
//! * A node refers to nodes, not to tensors: an intermediate result lives only as long as somebody
//!   holds it or a function saved it.
//! * `backward` frees the graph as it goes. To go through it twice, use
//!   [`Tensor::backward_retain_graph`] the first time.
//! * Nothing here recurses along the graph, neither running it nor dropping it.
//! * Within [`no_grad`] nothing is recorded.
//! * What [`checkpoint`] runs is not recorded either, and run again by `backward`.
//!
//! # A function of your own
//!
//! ```
//! use sorix_core::autograd::{Function, Gradients, record};
//! use sorix_core::{Result, Tensor, tensor};
//!
//! /// Passes the value through and turns the gradient around.
//! fn reverse_gradient(x: &Tensor) -> Result<Tensor> {
//!     Ok(record(x.detach(), &[x], || ReverseGradientBackward))
//! }
//!
//! #[derive(Debug)]
//! struct ReverseGradientBackward;
//!
//! impl Function for ReverseGradientBackward {
//!     fn name(&self) -> &'static str {
//!         "ReverseGradientBackward"
//!     }
//!
//!     fn backward(&self, grad: Tensor) -> Result<Gradients> {
//!         Ok(vec![Some(grad.neg()?)])
//!     }
//! }
//!
//! let x = tensor([1.0, 2.0]).requires_grad(true);
//! reverse_gradient(&x)?.sum()?.backward()?;
//! assert_eq!(x.grad().unwrap().to_vec::<f64>()?, [-1.0, -1.0]);
//! # Ok::<(), sorix_core::Error>(())
//! ```

mod backward;
mod checkpoint;
mod grad;
mod grad_mode;
mod node;
mod saved;
mod scopes;

use core::fmt::Debug;

pub(crate) use checkpoint::tape_mask;
pub use checkpoint::{checkpoint, taped_key, taped_mode};
pub use grad::{grad, grad_retain_graph, grad_with};
pub use grad_mode::{
    GradModeGuard, NoGradEverywhere, enable_grad, is_grad_enabled, no_grad, no_grad_everywhere,
    no_grad_guard,
};
pub(crate) use node::{Leaf, Node};
pub use saved::SavedTensor;
pub use scopes::{ScopeGuard, Scopes};

use crate::dtype::DType;
use crate::error::{Call, ErrorKind, Result};
use crate::tensor::{Origin, Tensor};

/// The gradients of a function's inputs, in the order they were recorded; `None` for one that needs
/// none.
pub type Gradients = Vec<Option<Tensor>>;

/// What an operation leaves behind for `backward`: its derivative, and the state that needs.
///
/// State is best kept as a [`SavedTensor`], which notices when it was overwritten, and only for the
/// inputs whose gradient is wanted. For an example see the [module](self).
pub trait Function: Debug + Send + Sync + 'static {
    /// The name that errors and `{:?}` show, by custom that of the operation with `Backward`.
    fn name(&self) -> &'static str;

    /// The gradients of the inputs, each of the shape and dtype of its input, from `grad`, that of
    /// the output. Gradients are not recorded while this runs.
    ///
    /// A gradient may also have the [arithmetic dtype](DType::arithmetic) of its input's dtype: f32 for an
    /// input of f16 or bf16. Gradients that meet are added in that type, and the sum is rounded once.
    ///
    /// `grad` comes by value so that its memory may be used again if nothing else holds it. Other
    /// functions may get the same tensor, so it must not be written.
    ///
    /// # Errors
    ///
    /// Whatever the operations it uses return; `backward` then returns the same and leaves the
    /// gradients at the leaves as they were.
    fn backward(&self, grad: Tensor) -> Result<Gradients>;
}

/// `output`, as computed from `inputs` by an operation whose derivative is `function`.
///
/// If no input needs a gradient, or within [`no_grad`], `output` comes back as it is and
/// `function` is not called. For an example see the [module](self).
#[must_use]
pub fn record<F: Function>(
    output: Tensor,
    inputs: &[&Tensor],
    function: impl FnOnce() -> F,
) -> Tensor {
    if !is_recorded(inputs) {
        return output;
    }
    let inputs = inputs.iter().map(|input| node::edge(input)).collect();
    let work = node::Work::Function(Box::new(function()));
    let node = Node::new(&output, work, inputs);
    output.with_origin(Origin::Computed(node))
}

/// Whether an operation on these inputs records itself.
pub(crate) fn is_recorded(inputs: &[&Tensor]) -> bool {
    is_grad_enabled()
        && inputs.iter().any(|input| input.needs_grad())
        && !checkpoint::postpone(inputs)
}

impl Tensor {
    /// With `true`, a leaf of the graph with these elements, for which
    /// [`backward`](Tensor::backward) keeps a gradient; with `false`, the same as
    /// [`detach`](Tensor::detach).
    ///
    /// This makes a tensor; [`needs_grad`](Tensor::needs_grad) asks one. A tensor that needs a gradient
    /// already comes back as it is; so does a leaf that is [frozen](Tensor::freeze), and stays that.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([1.0, 2.0]).requires_grad(true);
    /// assert!(x.needs_grad());
    /// assert!(x.add_scalar(1.0)?.needs_grad());
    /// assert!(!x.requires_grad(false).needs_grad());
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    #[must_use = "the tensor itself does not change; the leaf is returned"]
    pub fn requires_grad(&self, requires_grad: bool) -> Self {
        match (requires_grad, self.origin()) {
            (true, Origin::Constant) => self.clone().with_origin(Origin::Leaf(Leaf::new(self))),
            (true, _) => self.clone(),
            (false, _) => self.detach(),
        }
    }

    /// Operations on this leaf take it for a constant from now on, on every thread and through every
    /// handle to it, and its gradient is forgotten. What was recorded before stays recorded. A tensor that
    /// is not a leaf stays as it is.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let w = tensor([2.0]).requires_grad(true);
    /// w.freeze();
    /// assert!(!w.neg()?.needs_grad());
    /// assert!(!w.clone().requires_grad(true).needs_grad());
    /// w.unfreeze();
    /// assert!(w.neg()?.needs_grad());
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn freeze(&self) {
        if let Origin::Leaf(leaf) = self.origin() {
            leaf.set_frozen(true);
            leaf.zero_grad();
        }
    }

    /// Ends what [`freeze`](Tensor::freeze) began.
    pub fn unfreeze(&self) {
        if let Origin::Leaf(leaf) = self.origin() {
            leaf.set_frozen(false);
        }
    }

    /// Whether this tensor needs a gradient: it is a leaf that [requires one](Tensor::requires_grad) and
    /// is not [frozen](Tensor::freeze), or was computed from such a leaf. PyTorch's attribute
    /// `requires_grad`; `{:?}` shows it.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([1.0]).requires_grad(true);
    /// assert!(x.needs_grad() && x.neg()?.needs_grad());
    /// assert!(!x.detach().needs_grad());
    /// assert_eq!(
    ///     format!("{:?}", x.neg()?),
    ///     "Tensor { shape: [1], dtype: sorix.float64, needs_grad: true, function: \"NegBackward\" }"
    /// );
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    #[must_use]
    pub fn needs_grad(&self) -> bool {
        match self.origin() {
            Origin::Constant => false,
            Origin::Leaf(leaf) => !leaf.is_frozen(),
            Origin::Computed(_) => true,
        }
    }

    /// Whether this tensor was not computed by an operation that recorded itself.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([1.0]).requires_grad(true);
    /// assert!(x.is_leaf());
    /// assert!(!x.neg()?.is_leaf());
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    #[must_use]
    pub fn is_leaf(&self) -> bool {
        !matches!(self.origin(), Origin::Computed(_))
    }

    /// The same elements, in the same memory, apart from the graph.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([1.0, 2.0]).requires_grad(true);
    /// let y = x.mul(&x.detach())?.sum()?;
    /// y.backward()?;
    /// assert_eq!(x.grad().unwrap().to_vec::<f64>()?, [1.0, 2.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    #[must_use]
    pub fn detach(&self) -> Self {
        match self.origin() {
            Origin::Constant => self.clone(),
            _ => self.clone().with_origin(Origin::Constant),
        }
    }

    /// The sum of the gradients that arrived at this leaf since it was made or
    /// [`zero_grad`](Tensor::zero_grad) was called; `None` if none did, and for tensors that are
    /// not leaves. It is contiguous and does not change when more arrives.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([1.0, 2.0]).requires_grad(true);
    /// assert!(x.grad().is_none());
    /// x.sum()?.backward()?;
    /// x.sum()?.backward()?;
    /// assert_eq!(x.grad().unwrap().to_vec::<f64>()?, [2.0, 2.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    #[must_use]
    pub fn grad(&self) -> Option<Self> {
        match self.origin() {
            Origin::Leaf(leaf) => leaf.grad(),
            Origin::Constant | Origin::Computed(_) => None,
        }
    }

    /// Forgets the gradient, so that [`grad`](Tensor::grad) is `None` again.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([1.0, 2.0]).requires_grad(true);
    /// x.sum()?.backward()?;
    /// x.zero_grad();
    /// assert!(x.grad().is_none());
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn zero_grad(&self) {
        if let Origin::Leaf(leaf) = self.origin() {
            leaf.zero_grad();
        }
    }

    /// The dtype of this leaf's [gradient](Tensor::grad): its own, unless
    /// [`set_grad_dtype`](Tensor::set_grad_dtype) chose another. Of a tensor that is not a leaf, its own.
    #[must_use]
    pub fn grad_dtype(&self) -> DType {
        match self.origin() {
            Origin::Leaf(leaf) => leaf.grad_dtype(),
            Origin::Constant | Origin::Computed(_) => self.dtype(),
        }
    }

    /// Keeps the gradient of this leaf in another dtype: f32 for one of f16 or bf16. The terms of a
    /// gradient are added in f32 anyway; so its sum over several calls of `backward` is not rounded
    /// either, until an optimiser has used it. The gradient that is there is forgotten. PyTorch's
    /// attribute `grad_dtype`.
    ///
    /// # Errors
    ///
    /// If the tensor is not a leaf that requires a gradient, or if the dtype is neither its own nor the
    /// one that this is [computed in](DType::arithmetic).
    ///
    /// ```
    /// use sorix_core::{DType, tensor};
    /// let w = tensor([1.0]).to_dtype(DType::BF16)?.requires_grad(true);
    /// w.set_grad_dtype(DType::F32)?;
    /// for _ in 0..1000 {
    ///     w.sum()?.backward()?; // a gradient of 1; bf16 counts to 256
    /// }
    /// assert_eq!(w.grad().unwrap().item::<f32>()?, 1000.0);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn set_grad_dtype(&self, dtype: DType) -> Result<()> {
        let call = Call::on("set_grad_dtype", self);
        let Origin::Leaf(leaf) = self.origin() else {
            return Err(call.error(ErrorKind::NotALeaf));
        };
        let own = self.dtype();
        if dtype != own && dtype != own.arithmetic() {
            let (expected, got) = (own.arithmetic(), dtype);
            return Err(call.error(ErrorKind::DType { expected, got }));
        }
        leaf.set_wide(dtype != own);
        Ok(())
    }

    /// Adds to the gradient of every leaf the derivative of this tensor, which has one element, and
    /// frees the graph.
    ///
    /// # Errors
    ///
    /// If it has more or fewer elements; if it does not require a gradient; if the graph was freed
    /// by an earlier call; if a tensor saved for this was overwritten; if a [`checkpoint`] cannot
    /// be computed again. No gradient has changed then, but the part of the graph that was passed
    /// is freed: for another try, use [`backward_retain_graph`](Tensor::backward_retain_graph),
    /// which keeps all of it.
    ///
    /// ```
    /// use sorix_core::{ErrorKind, tensor};
    /// let x = tensor([3.0]).requires_grad(true);
    /// let y = x.mul(&x)?;
    /// y.backward()?;
    /// assert_eq!(x.grad().unwrap().item::<f64>()?, 6.0);
    /// let error = y.backward().unwrap_err();
    /// assert_eq!(error.kind(), &ErrorKind::GraphFreed { function: "MulBackward" });
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn backward(&self) -> Result<()> {
        backward::run(self, None, backward::Graph::Free)
    }

    /// Adds to the gradient of every leaf the product of `grad` and the Jacobian of this tensor
    /// (the vector-Jacobian product), and frees the graph.
    ///
    /// # Errors
    ///
    /// If `grad` has another shape or dtype than this tensor, and as
    /// [`backward`](Tensor::backward).
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([1.0, 2.0]).requires_grad(true);
    /// x.mul(&x)?.backward_with(&tensor([1.0, 10.0]))?;
    /// assert_eq!(x.grad().unwrap().to_vec::<f64>()?, [2.0, 40.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn backward_with(&self, grad: &Self) -> Result<()> {
        backward::run(self, Some(grad), backward::Graph::Free)
    }

    /// [`backward`](Tensor::backward), or with a gradient [`backward_with`](Tensor::backward_with),
    /// that keeps the graph for another one.
    ///
    /// # Errors
    ///
    /// As those two.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([3.0]).requires_grad(true);
    /// let y = x.mul(&x)?;
    /// y.backward_retain_graph(None)?;
    /// y.backward()?;
    /// assert_eq!(x.grad().unwrap().item::<f64>()?, 12.0);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn backward_retain_graph(&self, grad: Option<&Self>) -> Result<()> {
        backward::run(self, grad, backward::Graph::Retain)
    }
}
