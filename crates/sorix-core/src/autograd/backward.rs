//! Running the graph.
//!
//! Nodes are numbered in the order they were recorded, and a node's inputs were there before it. So
//! the pending node with the largest number has received everything it will receive: taking that one
//! each time is a topological order, found while going, with no memory but the pending gradients.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::autograd::no_grad_guard;
use crate::autograd::node::{Edge, Leaf, Node, Work, edge};
use crate::dtype::DType;
use crate::error::{Call, Error, ErrorKind, Result};
use crate::tensor::Tensor;

/// Whether the graph outlives the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Graph {
    Free,
    Retain,
}

/// Adds to the leaves below `root` the gradient that `grad` (ones, for a tensor of one element)
/// gives. Either every leaf changes or none.
pub(super) fn run(root: &Tensor, grad: Option<&Tensor>, graph: Graph) -> Result<()> {
    let _guard = no_grad_guard();
    let mut pending = Pending::new(None);
    pending.begin(root, grad)?;
    pending.go(graph)?;

    // What can fail comes first, so that the leaves change together.
    let gradients: Vec<(Arc<Leaf>, Tensor)> = pending
        .leaves
        .into_values()
        .map(|(leaf, grad)| {
            let grad = rounded(grad, leaf.grad_dtype())?;
            Ok((leaf, grad.into_unshared("backward")?))
        })
        .collect::<Result<_>>()?;
    gradients
        .into_iter()
        .try_for_each(|(leaf, grad)| leaf.accumulate(grad))
}

/// The gradients of `inputs` that those of `outputs` give, ones for tensors of one element without
/// `grads`; `None` for an input that no output depends on. No leaf changes.
pub(super) fn of_inputs(
    outputs: &[&Tensor],
    grads: Option<&[&Tensor]>,
    inputs: &[&Tensor],
    graph: Graph,
) -> Result<Vec<Option<Tensor>>> {
    if let Some(grads) = grads
        && grads.len() != outputs.len()
    {
        let (expected, got) = (outputs.len(), grads.len());
        let kind = ErrorKind::OutputCount { expected, got };
        return Err(Error::new("grad", outputs, kind));
    }
    let ids = inputs.iter().map(|input| match edge(input) {
        Some(edge) => Ok(edge.id()),
        None => Err(Call::on("grad", input).error(ErrorKind::NoGradient)),
    });
    let ids: Vec<u64> = ids.collect::<Result<_>>()?;
    let _guard = no_grad_guard();
    let mut pending = Pending::new(Some(ids.iter().copied().collect()));
    for (k, output) in outputs.iter().enumerate() {
        pending.begin(output, grads.map(|grads| grads[k]))?;
    }
    pending.go(graph)?;
    let mut found = pending.found;
    for (id, (leaf, grad)) in pending.leaves {
        found.insert(id, rounded(grad, leaf.grad_dtype())?);
    }
    Ok(ids.iter().map(|id| found.get(id).cloned()).collect())
}

/// The gradients that have not gone further yet, by the number of what they are for.
///
/// Those that meet are added in the type that their dtype computes in, and the sum is rounded once.
struct Pending {
    nodes: BTreeMap<u64, (Arc<Node>, Tensor)>,
    leaves: BTreeMap<u64, (Arc<Leaf>, Tensor)>,
    /// The numbers of the nodes and leaves whose gradients are asked for, if not those of all leaves.
    wanted: Option<BTreeSet<u64>>,
    /// The gradients of the nodes that are.
    found: BTreeMap<u64, Tensor>,
}

impl Pending {
    fn new(wanted: Option<BTreeSet<u64>>) -> Self {
        Self {
            nodes: BTreeMap::new(),
            leaves: BTreeMap::new(),
            wanted,
            found: BTreeMap::new(),
        }
    }

    /// Adds the gradient of an output, or ones for a tensor of one element.
    fn begin(&mut self, output: &Tensor, grad: Option<&Tensor>) -> Result<()> {
        let call = Call::on("backward", output);
        let start = edge(output).ok_or_else(|| call.error(ErrorKind::NoGradient))?;
        let grad = match grad {
            // As it is now: several nodes may read it, and have to see the same.
            Some(grad) => grad.snapshot(),
            None if output.numel() == 1 => Tensor::ones(output.shape(), output.dtype())?,
            None => {
                let call = Call::on("backward without a gradient", output);
                return Err(call.error(ErrorKind::NotOneElement));
            }
        };
        Call::on("backward_with", &grad).expect(&grad, output.shape(), output.dtype())?;
        self.add("backward_with", &start, grad)
    }

    /// Goes through the graph, from the newest node on, as far as gradients are asked for.
    fn go(&mut self, graph: Graph) -> Result<()> {
        let oldest = self
            .wanted
            .as_ref()
            .map_or(0, |wanted| wanted.first().copied().unwrap_or(u64::MAX));
        while let Some((id, (node, grad))) = self.nodes.pop_last() {
            if id < oldest {
                break;
            }
            let grad = rounded(grad, node.dtype())?;
            if self.wants(id) {
                self.found.insert(id, grad.clone());
                if id == oldest {
                    break;
                }
            }
            let state = match graph {
                Graph::Free => node.take_state()?,
                Graph::Retain => node.state()?,
            };
            let function = node.function_name();
            let gradients = match &state.work {
                Work::Function(function) => function.backward(grad)?,
                Work::Segment(segment) => {
                    // The nodes it records are the newest there are: they come next.
                    let output = segment.run_again(&state.inputs)?;
                    if let Some(edge) = edge(&output) {
                        self.add(function, &edge, grad)?;
                    }
                    continue;
                }
            };
            if gradients.len() != state.inputs.len() {
                let (expected, got) = (state.inputs.len(), gradients.len());
                let call = node.call(function);
                return Err(call.error(ErrorKind::GradientCount { expected, got }));
            }
            for (input, gradient) in state.inputs.iter().zip(gradients) {
                if let (Some(input), Some(gradient)) = (input, gradient) {
                    self.add(function, input, gradient)?;
                }
            }
        }
        Ok(())
    }

    fn wants(&self, id: u64) -> bool {
        let wanted = self.wanted.as_ref();
        wanted.is_some_and(|wanted| wanted.contains(&id))
    }

    fn add(&mut self, op: &'static str, edge: &Edge, grad: Tensor) -> Result<()> {
        match edge {
            Edge::Node(node) => {
                node.check_grad(op, &grad)?;
                accumulate(self.nodes.entry(node.id()), node, grad)
            }
            Edge::Leaf(leaf) => {
                leaf.check_grad(op, &grad)?;
                if self.wanted.is_some() && !self.wants(leaf.id()) {
                    return Ok(());
                }
                accumulate(self.leaves.entry(leaf.id()), leaf, grad)
            }
        }
    }
}

/// The gradient in this dtype; if it has that, itself and not a second handle to it, so that its memory
/// may be used again.
fn rounded(grad: Tensor, dtype: DType) -> Result<Tensor> {
    if grad.dtype() == dtype {
        Ok(grad)
    } else {
        grad.to_dtype(dtype)
    }
}

fn accumulate<T>(
    entry: Entry<'_, u64, (Arc<T>, Tensor)>,
    target: &Arc<T>,
    grad: Tensor,
) -> Result<()> {
    match entry {
        Entry::Vacant(slot) => {
            slot.insert((Arc::clone(target), grad));
        }
        Entry::Occupied(mut slot) => {
            let (_, sum) = slot.get_mut();
            let wide = grad.dtype().arithmetic();
            *sum = sum.to_dtype(wide)?.add(&grad.to_dtype(wide)?)?;
        }
    }
    Ok(())
}
