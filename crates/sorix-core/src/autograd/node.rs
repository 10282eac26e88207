//! What the graph consists of: nodes, leaves and the edges between them.

use core::cell::RefCell;
use core::mem::ManuallyDrop;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::autograd::Function;
use crate::autograd::checkpoint::Segment;
use crate::dtype::DType;
use crate::error::{Call, Error, ErrorKind, Result, TensorSpec};
use crate::tensor::{Origin, Tensor};

/// Numbers nodes and leaves in the order they are made, so that one computed from another always
/// has the larger number.
pub(super) fn next_id() -> u64 {
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
    /// Where each input came from; `None` if it needs no gradient.
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
    pub(super) fn id(&self) -> u64 {
        match self {
            Self::Leaf(leaf) => leaf.id,
            Self::Node(node) => node.id,
        }
    }

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
    /// Whether operations take it for a constant.
    frozen: AtomicBool,
    /// Whether gradients are kept in the type that the dtype computes in.
    wide: AtomicBool,
}

/// That a gradient is one of such a tensor: of its shape, and of its dtype or the one that this is
/// computed in.
fn check_grad(op: &'static str, grad: &Tensor, of: &TensorSpec) -> Result<()> {
    let dtype = of.dtype();
    let dtype = if grad.dtype() == dtype.arithmetic() {
        grad.dtype()
    } else {
        dtype
    };
    Call::on(op, grad).expect(grad, of.shape(), dtype)
}

/// Where the gradient of `tensor` goes.
pub(crate) fn edge(tensor: &Tensor) -> Option<Edge> {
    match tensor.origin() {
        Origin::Constant => None,
        Origin::Leaf(leaf) if leaf.is_frozen() => None,
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

    pub(super) fn dtype(&self) -> DType {
        self.output.dtype()
    }

    pub(crate) fn check_grad(&self, op: &'static str, grad: &Tensor) -> Result<()> {
        check_grad(op, grad, &self.output)
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

impl Drop for Node {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        if let Some(state) = state.unwrap_or_else(PoisonError::into_inner).take() {
            free(state);
        }
    }
}

/// Frees what only this node kept, one node after another.
///
/// Nodes that drop one inside the other would need a stack as deep as the graph, whichever way one
/// holds the next: by an edge, by a tensor in a function, by what a checkpoint's closure captured. So
/// if this thread is freeing a node already, the state waits until that is done.
fn free(state: Arc<State>) {
    thread_local! {
        /// What waits, while this thread is freeing. Without a destructor, so that it is there in
        /// those of other variables.
        static WAITING: RefCell<ManuallyDrop<Option<Vec<Arc<State>>>>> =
            const { RefCell::new(ManuallyDrop::new(None)) };
    }

    /// Also if a destructor of the user's panics.
    struct Freeing;
    impl Drop for Freeing {
        fn drop(&mut self) {
            let rest = WAITING.with_borrow_mut(|waiting| waiting.take());
            drop(rest);
        }
    }

    let state = WAITING.with_borrow_mut(|waiting| match &mut **waiting {
        Some(waiting) => {
            waiting.push(state);
            None
        }
        none => {
            *none = Some(Vec::new());
            Some(state)
        }
    });
    if state.is_none() {
        return;
    }
    let _freeing = Freeing;
    let mut next = state;
    while let Some(state) = next {
        // Not while the list is borrowed.
        drop(state);
        next = WAITING.with_borrow_mut(|waiting| waiting.as_mut().and_then(Vec::pop));
    }
}

impl Leaf {
    pub(crate) fn new(tensor: &Tensor) -> Arc<Self> {
        Arc::new(Self {
            id: next_id(),
            tensor: TensorSpec::of(tensor),
            grad: Mutex::new(None),
            frozen: AtomicBool::new(false),
            wide: AtomicBool::new(false),
        })
    }

    // Relaxed: the flag says nothing of other memory.
    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::Relaxed)
    }

    pub(crate) fn set_frozen(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::Relaxed);
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn check_grad(&self, op: &'static str, grad: &Tensor) -> Result<()> {
        check_grad(op, grad, &self.tensor)
    }

    /// The dtype that gradients are kept in.
    pub(crate) fn grad_dtype(&self) -> DType {
        let dtype = self.tensor.dtype();
        if self.wide.load(Ordering::Relaxed) {
            dtype.arithmetic()
        } else {
            dtype
        }
    }

    /// Keeps gradients in the type that the dtype computes in, or in the dtype itself. The one that is
    /// there is forgotten.
    pub(crate) fn set_wide(&self, wide: bool) {
        self.wide.store(wide, Ordering::Relaxed);
        self.zero_grad();
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
            // Of another dtype only if that was changed meanwhile.
            grad.add_in_place(&sum.to_dtype(grad.dtype())?)?;
        }
        *slot = Some(grad);
        Ok(())
    }
}
