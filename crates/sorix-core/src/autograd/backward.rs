//! Running the graph.
//!
//! Nodes are numbered in the order they were recorded, and a node's inputs were there before it. So
//! the pending node with the largest number has received everything it will receive: taking that one
//! each time is a topological order, found while going, with no memory but the pending gradients.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use crate::autograd::no_grad_guard;
use crate::autograd::node::{Edge, Leaf, Node, Work, edge};
use crate::error::{Call, ErrorKind, Result};
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
    let call = Call::on("backward", root);
    let start = edge(root).ok_or_else(|| call.error(ErrorKind::NoGradient))?;
    let grad = match grad {
        // As it is now: several nodes may read it, and have to see the same.
        Some(grad) => grad.snapshot(),
        None if root.numel() == 1 => Tensor::ones(root.shape(), root.dtype())?,
        None => {
            let call = Call::on("backward without a gradient", root);
            return Err(call.error(ErrorKind::NotOneElement));
        }
    };

    let _guard = no_grad_guard();
    let mut pending = Pending::default();
    pending.add("backward_with", &start, grad)?;
    while let Some((_, (node, grad))) = pending.nodes.pop_last() {
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
                    pending.add(function, &edge, grad)?;
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
                pending.add(function, input, gradient)?;
            }
        }
    }

    // What can fail comes first, so that the leaves change together.
    let gradients: Vec<(Arc<Leaf>, Tensor)> = pending
        .leaves
        .into_values()
        .map(|(leaf, grad)| Ok((leaf, grad.into_unshared("backward")?)))
        .collect::<Result<_>>()?;
    gradients
        .into_iter()
        .try_for_each(|(leaf, grad)| leaf.accumulate(grad))
}

/// The gradients that have not gone further yet, by the number of what they are for.
#[derive(Default)]
struct Pending {
    nodes: BTreeMap<u64, (Arc<Node>, Tensor)>,
    leaves: BTreeMap<u64, (Arc<Leaf>, Tensor)>,
}

impl Pending {
    fn add(&mut self, op: &'static str, edge: &Edge, grad: Tensor) -> Result<()> {
        match edge {
            Edge::Node(node) => {
                node.check_grad(op, &grad)?;
                accumulate(self.nodes.entry(node.id()), node, grad)
            }
            Edge::Leaf(leaf) => {
                leaf.check_grad(op, &grad)?;
                accumulate(self.leaves.entry(leaf.id()), leaf, grad)
            }
        }
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
            *sum = sum.add(&grad)?;
        }
    }
    Ok(())
}
