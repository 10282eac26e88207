//! [`checkpoint`]: a part of the graph that is computed again in backward instead of being kept.
//!
//! Forward runs the segment without recording it, and notes whether it would have recorded anything.
//! Backward runs it again on the same inputs, which lead to where they led before, so what this
//! records continues the graph that backward is going through: its nodes are the newest, and come
//! next. Parameters that the closure holds, and gradients that several paths bring, need no case of
//! their own.
//!
//! The second run has to draw what the first one drew. Whoever takes the key of a mask from a
//! generator does so through [`taped_key`], which writes the keys of the first run down and reads
//! them out in the second. [`taped_mode`] does so with what surrounds the first run and may be over
//! by the second.
//!
//! Source: Chen et al., *Training deep nets with sublinear memory cost*, arXiv:1604.06174 (2016).

use core::cell::{Cell, RefCell};
use core::{fmt, mem};

use sorix_kernels::MaskKey;
use sorix_kernels::parallel::TaskValue;

use crate::autograd::node::{Edge, Node, Work, edge};
use crate::autograd::{SavedTensor, enable_grad, is_grad_enabled};
use crate::error::{Call, Error, ErrorKind, Result, TensorSpec};
use crate::tensor::{Origin, Tensor};

/// `f` of the inputs, of which nothing is kept for backward but the inputs: backward calls `f`
/// again.
///
/// The gradients are those without a checkpoint, bit for bit: of the inputs and of whatever else `f`
/// holds that requires one, such as the parameters of a layer. Dropout gets the very same masks, as
/// far as their keys come from a generator of sorix-nn or by [`taped_key`]; no generator advances the
/// second time. Checkpoints may be nested.
///
/// `f` has to do the same both times, on the calling thread; it should not wait for a rayon pool by
/// itself on a thread of that pool, which may run anything meanwhile. Pass what was computed before as an
/// input; a parameter that `f` holds must not be written before backward. Writing to an input is
/// noticed.
///
/// # Errors
///
/// Those of `f`. Backward returns an error where `f` does so the second time, draws more or fewer
/// keys than the first time (as when a module was switched between train and eval), or returns
/// another shape or dtype.
///
/// ```
/// use sorix_core::autograd::{checkpoint, taped_key};
/// use sorix_core::{DropRate, MaskKey, SaveMask, tensor};
///
/// let rate = DropRate::new(0.5)?;
/// let x = tensor([1.0, 2.0, 3.0, 4.0]).requires_grad(true);
/// let y = checkpoint(
///     move |x| {
///         let key = taped_key(|| MaskKey::new(42, 0));
///         x[0].mul(&x[0])?.dropout(rate, key, SaveMask::Bits)
///     },
///     &[&x],
/// )?;
/// y.sum()?.backward()?;
/// // y is 0 or 2 x², and the gradient 0 or 4 x.
/// let expected = y.mul_scalar(2.0)?.to_vec::<f64>()?;
/// assert_eq!(x.grad().unwrap().mul(&x)?.to_vec::<f64>()?, expected);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn checkpoint<F, E>(f: F, inputs: &[&Tensor]) -> Result<Tensor, E>
where
    F: Fn(&[Tensor]) -> Result<Tensor, E> + Send + Sync + 'static,
    E: From<Error> + fmt::Display,
{
    let given: Vec<Tensor> = inputs.iter().map(|&input| input.clone()).collect();
    if !is_grad_enabled() || postponed() != Postponed::No {
        // Nothing is recorded, or a checkpoint around this one will run all of it again.
        return f(&given);
    }
    let saved = inputs.iter().map(|input| SavedTensor::new(input)).collect();
    let tape = TapeGuard::push(Tape::default());
    let guard = PostponedGuard::set(Postponed::NothingYet);
    let output = f(&given)?;
    let recorded = postponed() == Postponed::Something;
    drop(guard);
    let taken = tape.finish();
    if !recorded {
        return Ok(output);
    }
    let segment = Segment {
        inputs: saved,
        taken,
        output: TensorSpec::of(&output),
        f: Box::new(move |inputs: &[Tensor]| {
            f(inputs).map_err(|error| {
                let given: Vec<&Tensor> = inputs.iter().collect();
                let reason = error.to_string();
                Error::new("checkpoint", &given, ErrorKind::Recomputation { reason })
            })
        }),
    };
    let edges = inputs.iter().map(|input| edge(input)).collect();
    let node = Node::new(&output, Work::Segment(segment), edges);
    Ok(output.detach().with_origin(Origin::Computed(node)))
}

/// The key that `draw` returns; or, when backward computes a [`checkpoint`] again, the key that was
/// returned in its place the first time, without a call of `draw`.
///
/// For generators of keys: sorix-nn's `Generator::next_key` is one.
///
/// ```
/// use sorix_core::MaskKey;
/// use sorix_core::autograd::taped_key;
/// assert_eq!(taped_key(|| MaskKey::new(1, 2)), MaskKey::new(1, 2));
/// ```
pub fn taped_key(draw: impl FnOnce() -> MaskKey) -> MaskKey {
    taped(|tape| &mut tape.keys, draw)
}

/// What `ask` returns; or, when backward computes a [`checkpoint`] again, what was returned in its
/// place the first time, without a call of `ask`.
///
/// For a mode that surrounds the first run, and may be over when backward is called: sorix-nn's Monte
/// Carlo scope is one.
///
/// ```
/// use sorix_core::autograd::taped_mode;
/// assert!(taped_mode(|| true));
/// ```
pub fn taped_mode(ask: impl FnOnce() -> bool) -> bool {
    taped(|tape| &mut tape.modes, ask)
}

fn taped<T: Copy + Default>(
    track: impl Fn(&mut Tape) -> &mut Track<T>,
    draw: impl FnOnce() -> T,
) -> T {
    let read = TAPES.with_borrow_mut(|tapes| {
        let tape = tapes_of_task(tapes).find(|tape| tape.is_read)?;
        Some(track(tape).read())
    });
    // Not while the tapes are borrowed: `draw` is the caller's.
    let taken = read.unwrap_or_else(draw);
    TAPES.with_borrow_mut(|tapes| {
        // What lies below one that is read saw this the first time.
        let written = tapes_of_task(tapes).take_while(|tape| !tape.is_read);
        written.for_each(|tape| track(tape).entries.push(taken));
    });
    taken
}

/// Whether an operation that would be recorded is left to be recorded by a second run, which is
/// noted.
pub(super) fn postpone() -> bool {
    let postponed = postponed() != Postponed::No;
    if postponed {
        POSTPONED.set(TaskValue::new(Postponed::Something));
    }
    postponed
}

thread_local! {
    static POSTPONED: Cell<TaskValue<Postponed>> =
        const { Cell::new(TaskValue::of_thread(Postponed::No)) };
    static TAPES: RefCell<Vec<TaskValue<Tape>>> = const { RefCell::new(Vec::new()) };
}

fn postponed() -> Postponed {
    POSTPONED.get().get().copied().unwrap_or(Postponed::No)
}

/// The tapes of the task that runs on this thread, the last one first. Those of a task that waits
/// for it lie below.
fn tapes_of_task(tapes: &mut [TaskValue<Tape>]) -> impl Iterator<Item = &mut Tape> {
    tapes.iter_mut().rev().map_while(TaskValue::get_mut)
}

/// Whether this task is in the first run of a checkpoint, and what that would have recorded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Postponed {
    No,
    NothingYet,
    Something,
}

/// Restores the state before when dropped, also by a panic.
struct PostponedGuard(TaskValue<Postponed>);

impl PostponedGuard {
    fn set(state: Postponed) -> Self {
        Self(POSTPONED.replace(TaskValue::new(state)))
    }
}

impl Drop for PostponedGuard {
    fn drop(&mut self) {
        POSTPONED.set(self.0);
    }
}

/// What a run of a segment takes: written in the first run, read in the second.
#[derive(Clone, Default)]
struct Tape {
    is_read: bool,
    keys: Track<MaskKey>,
    modes: Track<bool>,
}

#[derive(Clone, Default)]
struct Track<T> {
    entries: Vec<T>,
    /// How many entries were asked for in the second run.
    asked: usize,
}

impl<T: Copy + Default> Track<T> {
    /// The next entry. Anything will do beyond the end: the run is going to be refused.
    fn read(&mut self) -> T {
        let entry = self.entries.get(self.asked).copied();
        self.asked += 1;
        entry.unwrap_or_default()
    }
}

/// Removes a tape when dropped, also by a panic.
struct TapeGuard {
    below: usize,
}

impl TapeGuard {
    fn push(tape: Tape) -> Self {
        TAPES.with_borrow_mut(|tapes| {
            tapes.push(TaskValue::new(tape));
            Self {
                below: tapes.len() - 1,
            }
        })
    }

    /// What was written.
    fn finish(self) -> Tape {
        TAPES.with_borrow_mut(|tapes| {
            let tape = tapes.last_mut().and_then(TaskValue::get_mut);
            tape.map(mem::take).unwrap_or_default()
        })
    }

    /// How many keys were asked for.
    fn asked(&self) -> usize {
        TAPES.with_borrow(|tapes| {
            let tape = tapes.get(self.below).and_then(TaskValue::get);
            tape.map_or(0, |tape| tape.keys.asked)
        })
    }
}

impl Drop for TapeGuard {
    fn drop(&mut self) {
        TAPES.with_borrow_mut(|tapes| tapes.truncate(self.below));
    }
}

type Run = dyn Fn(&[Tensor]) -> Result<Tensor> + Send + Sync;

/// What is kept of a checkpoint.
pub(super) struct Segment {
    f: Box<Run>,
    inputs: Box<[SavedTensor]>,
    /// What the first run took.
    taken: Tape,
    output: TensorSpec,
}

impl Segment {
    pub(super) const NAME: &'static str = "CheckpointBackward";

    /// The output once more, with the graph that leads to it from `edges`, where the inputs came
    /// from.
    pub(super) fn run_again(&self, edges: &[Option<Edge>]) -> Result<Tensor> {
        let inputs = self.inputs.iter().zip(edges).map(|(input, edge)| {
            let input = input.get_for(Self::NAME)?;
            Ok(match edge {
                None => input,
                Some(edge) => input.with_origin(edge.origin()),
            })
        });
        let inputs: Vec<Tensor> = inputs.collect::<Result<_>>()?;
        let tape = TapeGuard::push(Tape {
            is_read: true,
            ..self.taken.clone()
        });
        let _not_postponed = PostponedGuard::set(Postponed::No);
        let output = enable_grad(|| (self.f)(&inputs))?;
        let (expected, got) = (self.taken.keys.entries.len(), tape.asked());
        if expected != got {
            let kind = ErrorKind::RecomputedKeys { expected, got };
            return Err(Call::on("checkpoint", &output).error(kind));
        }
        Call::on(Self::NAME, &output).expect(&output, self.output.shape(), self.output.dtype())?;
        Ok(output)
    }
}
