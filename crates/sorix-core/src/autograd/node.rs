//! What the graph consists of: nodes, leaves and the edges between them.

use core::mem;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::autograd::Function;
use crate::autograd::checkpoint::Segment;
use crate::error::{Call, Error, ErrorKind, Result, TensorSpec};
use crate::ops::elementwise;
use crate::tensor::{Origin, Tensor};

/// Numbers nodes and leaves in the order they are made, so that one computed from another always
/// has the larger number.
fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is replaced whole or not at all.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An operation that was recorded.
pub(crate) struct Node {
    id: u64,
    output: TensorSpec,
    function_name: &'static str,
    // `None` once backward freed it.
    state: Mutex<Option<Arc<State>>>,
}

/// What backward needs of a node and frees.
pub(super) struct State {
    pub(super) work: Work,
    /// Where each input came from; `None` where it needs no gradient.
    pub(crate) inputs: Box<[Option<Edge>]>,
}

/// What backward does at a node.
pub(super) enum Work {
    /// It turns the gradient of the output into those of the inputs.
    Function(Box<dyn Function>),
    /// It goes on through the graph that the segment records when it is run again.
    Segment(Segment),
}

impl Work {
    fn name(&self) -> &'static str {
        match self {
            Self::Function(function) => function.name(),
            Self::Segment(_) => Segment::NAME,
        }
    }
}

/// The way a gradient goes on.
pub(crate) enum Edge {
    Leaf(Arc<Leaf>),
    Node(Arc<Node>),
}

impl Edge {
    pub(super) fn origin(&self) -> Origin {
        match self {
            Self::Leaf(leaf) => Origin::Leaf(Arc::clone(leaf)),
            Self::Node(node) => Origin::Computed(Arc::clone(node)),
        }
    }
}

/// A tensor whose gradient the user wants, and that gradient.
pub(crate) struct Leaf {
    id: u64,
    tensor: TensorSpec,
    grad: Mutex<Option<Tensor>>,
}

/// Where the gradient of `tensor` goes.
pub(crate) fn edge(tensor: &Tensor) -> Option<Edge> {
    match tensor.origin() {
        Origin::Constant => None,
        Origin::Leaf(leaf) => Some(Edge::Leaf(Arc::clone(leaf))),
        Origin::Computed(node) => Some(Edge::Node(Arc::clone(node))),
    }
}

impl Node {
    pub(super) fn new(output: &Tensor, work: Work, inputs: Box<[Option<Edge>]>) -> Arc<Self> {
        Arc::new(Self {
            id: next_id(),
            output: TensorSpec::of(output),
            function_name: work.name(),
            state: Mutex::new(Some(Arc::new(State { work, inputs }))),
        })
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn function_name(&self) -> &'static str {
        self.function_name
    }

    pub(crate) fn check_grad(&self, op: &'static str, grad: &Tensor) -> Result<()> {
        Call::on(op, grad).expect(grad, self.output.shape(), self.output.dtype())
    }

    /// The state, which stays.
    pub(super) fn state(&self) -> Result<Arc<State>> {
        let state = lock(&self.state).clone();
        state.ok_or_else(|| self.freed())
    }

    /// The state, which then is gone.
    pub(super) fn take_state(&self) -> Result<Arc<State>> {
        let state = lock(&self.state).take();
        state.ok_or_else(|| self.freed())
    }

    fn freed(&self) -> Error {
        let function = self.function_name;
        self.call("backward")
            .error(ErrorKind::GraphFreed { function })
    }

    /// Of `op` on the output of this node.
    pub(super) fn call(&self, op: &'static str) -> Call<'_> {
        Call::making(op, self.output.shape(), self.output.dtype())
    }
}

/// Frees whatever part of the graph only this state kept, with a stack of its own: letting edges
/// drop one inside the other would need a stack as deep as the graph.
impl Drop for State {
    fn drop(&mut self) {
        let mut edges: Vec<Edge> = mem::take(&mut self.inputs).into_iter().flatten().collect();
        while let Some(edge) = edges.pop() {
            if let Edge::Node(node) = edge
                && let Some(node) = Arc::into_inner(node)
                && let Some(state) = node
                    .state
                    .into_inner()
                    .unwrap_or_else(PoisonError::into_inner)
                && let Some(mut state) = Arc::into_inner(state)
            {
                edges.extend(mem::take(&mut state.inputs).into_iter().flatten());
            }
        }
    }
}

impl Leaf {
    pub(crate) fn new(tensor: &Tensor) -> Arc<Self> {
        Arc::new(Self {
            id: next_id(),
            tensor: TensorSpec::of(tensor),
            grad: Mutex::new(None),
        })
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn check_grad(&self, op: &'static str, grad: &Tensor) -> Result<()> {
        Call::on(op, grad).expect(grad, self.tensor.shape(), self.tensor.dtype())
    }

    pub(crate) fn grad(&self) -> Option<Tensor> {
        lock(&self.grad).clone()
    }

    pub(crate) fn zero_grad(&self) {
        // Its memory is returned after the lock.
        let previous = lock(&self.grad).take();
        drop(previous);
    }

    /// Adds `grad`, whose memory nothing else uses. The first one is kept as it is; to later ones
    /// the sum so far is added in their own memory, so handles to that sum keep their value.
    pub(crate) fn accumulate(&self, grad: Tensor) -> Result<()> {
        let mut slot = lock(&self.grad);
        if let Some(sum) = &*slot {
            elementwise::add_in_place(&grad, sum)?;
        }
        *slot = Some(grad);
        Ok(())
    }
}
