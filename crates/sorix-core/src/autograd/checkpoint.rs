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
//! by the second. Dropout writes down which mask it made, and compares.
//!
//! What the closure captured shows when an operation of the first run would have recorded an edge to
//! it. So does what another thread made for the closure: its number is later than the run's start.
//!
//! Source: Chen et al., *Training deep nets with sublinear memory cost*, arXiv:1604.06174 (2016).

use core::cell::RefCell;
use core::fmt;
use std::collections::BTreeMap;
use std::sync::Arc;

use sorix_kernels::{DropRate, MaskKey, MaskRegion};

use crate::autograd::node::{Edge, Node, Work, edge, next_id};
use crate::autograd::scopes::Scopes;
use crate::autograd::{SavedTensor, enable_grad, is_grad_enabled};
use crate::error::{Call, Error, ErrorKind, Result, TensorSpec};
use crate::tensor::{Origin, Tensor};

/// `f` of the inputs. Only the inputs are kept for backward, which calls `f` again.
///
/// The gradients are those without a checkpoint, bit for bit: of the inputs and of whatever else `f`
/// captured that requires one, such as the parameters of a layer. Dropout gets the very same masks, if
/// their keys come from a generator of sorix-nn or by [`taped_key`]; no generator advances the second
/// time. Checkpoints may be nested.
///
/// `f` has to do the same both times. If an input is written before backward, that is an error, and so
/// it is if a tensor that `f` captured and that requires a gradient is written, such as a parameter.
/// Writes to other tensors that `f` captured go unnoticed: do not write them before backward. Nor may
/// another thread write any captured tensor while `f` runs in forward.
///
/// `f` has to compute everything on the calling thread: the keys that it draws are written down there.
/// If another thread recorded an operation that the output depends on, by `rayon::join` or within a
/// `ThreadPool::install`, that is an error; if it only computed with constants, that goes unnoticed. Nor
/// should `f` wait for a rayon pool by itself on a thread of that pool, which may run any task meanwhile.
///
/// # What `f` sees
///
/// It is not quite what it would see without a checkpoint:
///
/// * In forward nothing is recorded, so no result [needs a gradient](Tensor::needs_grad), and a
///   `backward` within `f` is an error.
/// * What `f` computes once and keeps for later, as in a `OnceLock`, is a constant: what it was computed
///   from gets no gradient. Compute it before.
/// * What `f` does beside computing, it does twice. A generator that it sets to a state is back there
///   after backward.
///
/// # Errors
///
/// Those of `f`, and if another thread recorded what leads to its output. Backward returns an error
/// if an input or a captured tensor that requires a gradient was written; if `f` returns an error
/// the second time, or another shape or dtype; if it takes other keys, modes or masks than the
/// first time, as when a module was switched between train and eval, or its p changed. What a key
/// gives to [`randn`](Tensor::randn) and its like, or to a mask that is made outside of tensors, is
/// not compared.
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
    if !is_grad_enabled() || RUNS.with_borrow_mut(|runs| first(runs).is_some()) {
        // Nothing is recorded, or a checkpoint around this one will run all of it again.
        return f(&given);
    }
    let saved = inputs.iter().map(|input| SavedTensor::new(input)).collect();
    let run = Scopes::open(&RUNS, Run::First(First::new()));
    let output = f(&given)?;
    let Some(Run::First(run)) = run.end() else {
        unreachable!("this run began as the first one");
    };
    if let Some(function) = run.elsewhere.or_else(|| run.made_elsewhere(&output)) {
        let kind = ErrorKind::RecordedElsewhere { function };
        return Err(Error::new("checkpoint", inputs, kind).into());
    }
    if !run.postponed {
        return Ok(output);
    }
    let segment = Segment {
        inputs: saved,
        captured: run.captured.into_values().collect(),
        taken: run.taken.into(),
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
/// returned in its place the first time, without a call of `draw`. If `draw` itself calls this, only the
/// outer key is noted.
///
/// For generators of keys: sorix-nn's `Generator::next_key` is one.
///
/// ```
/// use sorix_core::MaskKey;
/// use sorix_core::autograd::taped_key;
/// assert_eq!(taped_key(|| MaskKey::new(1, 2)), MaskKey::new(1, 2));
/// ```
pub fn taped_key(draw: impl FnOnce() -> MaskKey) -> MaskKey {
    let as_key = |taken| match taken {
        Taken::Key(key) => Some(key),
        _ => None,
    };
    taped(Taken::Key, as_key, draw)
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
    let as_mode = |taken| match taken {
        Taken::Mode(mode) => Some(mode),
        _ => None,
    };
    taped(Taken::Mode, as_mode, ask)
}

fn taped<T: Copy + Default>(
    wrap: fn(T) -> Taken,
    unwrap: fn(Taken) -> Option<T>,
    draw: impl FnOnce() -> T,
) -> T {
    let (read, written) = RUNS.with_borrow_mut(|runs| {
        // If something else was taken, any value will do: the run is going to be an error.
        let read = second(runs).map(|run| run.take(wrap(T::default()), unwrap).unwrap_or_default());
        (read, first(runs).map_or(0, |run| run.taken.len()))
    });
    // Not while the runs are borrowed: `draw` is the caller's.
    let taken = read.unwrap_or_else(draw);
    RUNS.with_borrow_mut(|runs| {
        if let Some(run) = first(runs) {
            // What `draw` took is not asked for when this is read.
            run.taken.truncate(written);
            run.taken.push(wrap(taken));
        }
    });
    taken
}

/// Notes that a dropout makes this mask, of so many elements; or compares with what was noted.
pub(crate) fn tape_mask(rate: DropRate, at: MaskRegion, elements: usize) {
    let p = rate.p();
    let mask = Taken::Mask { p, at, elements };
    RUNS.with_borrow_mut(|runs| {
        if let Some(run) = second(runs) {
            run.take(mask, |taken| (taken == mask).then_some(()));
        }
        if let Some(run) = first(runs) {
            run.taken.push(mask);
        }
    });
}

/// Whether an operation on these operands that would be recorded is left to be recorded by a second
/// run, which is noted.
pub(super) fn postpone(operands: &[&Tensor]) -> bool {
    RUNS.with_borrow_mut(|runs| {
        let run = first(runs);
        run.map(|run| run.see(operands)).is_some()
    })
}

thread_local! {
    /// The runs of segments that this thread is in.
    static RUNS: RefCell<Scopes<Run>> = const { RefCell::new(Scopes::new()) };
}

enum Run {
    First(First),
    Second(Second),
}

/// The run that this task is in, if it is a first one, whose draws are noted.
fn first(runs: &mut Scopes<Run>) -> Option<&mut First> {
    match runs.of_task().next()? {
        Run::First(run) => Some(run),
        Run::Second(_) => None,
    }
}

/// The second run that this task is in, whose tape is read; also from within a nested first run.
fn second(runs: &mut Scopes<Run>) -> Option<&mut Second> {
    runs.of_task().find_map(|run| match run {
        Run::Second(run) => Some(run),
        Run::First(_) => None,
    })
}

/// What a segment takes from outside, in the order it does.
#[derive(Clone, Copy, PartialEq)]
enum Taken {
    Key(MaskKey),
    Mode(bool),
    Mask {
        p: f64,
        at: MaskRegion,
        elements: usize,
    },
}

/// What kind of thing, and what two runs may differ in.
impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(_) => f.write_str("a key"),
            Self::Mode(_) => f.write_str("a mode"),
            Self::Mask { p, at, elements } => {
                let MaskKey { seed, offset } = at.key();
                write!(
                    f,
                    "a mask of {elements} elements at p = {p}, seed {seed}, offset {offset}"
                )
            }
        }
    }
}

/// What is noted in a first run.
struct First {
    /// What the graph holds from this number on was made since the run began.
    began: u64,
    taken: Vec<Taken>,
    /// Whether anything would have been recorded.
    postponed: bool,
    /// What that would have led to and was there before, by its number.
    captured: BTreeMap<u64, SavedTensor>,
    /// A function that another thread recorded, whose output came into the run.
    elsewhere: Option<&'static str>,
}

impl First {
    fn new() -> Self {
        Self {
            began: next_id(),
            taken: Vec::new(),
            postponed: false,
            captured: BTreeMap::new(),
            elsewhere: None,
        }
    }

    /// Notes what an operation that is postponed has an edge to.
    fn see(&mut self, operands: &[&Tensor]) {
        self.postponed = true;
        for operand in operands {
            let id = match operand.origin() {
                Origin::Constant => continue,
                Origin::Leaf(leaf) => leaf.id(),
                Origin::Computed(node) => node.id(),
            };
            if id < self.began {
                let captured = self.captured.entry(id);
                captured.or_insert_with(|| SavedTensor::new(operand));
            } else {
                // A leaf is one that the closure makes in each run.
                self.elsewhere = self.elsewhere.or(self.made_elsewhere(operand));
            }
        }
    }

    /// The function that computed a tensor, if it was recorded since this run began: by another
    /// thread, as this one postpones everything.
    fn made_elsewhere(&self, tensor: &Tensor) -> Option<&'static str> {
        match tensor.origin() {
            Origin::Computed(node) if node.id() >= self.began => Some(node.function_name()),
            _ => None,
        }
    }
}

/// How far a second run is.
struct Second {
    taken: Arc<[Taken]>,
    /// How many entries were asked for.
    asked: usize,
    /// The first entry that was not what it was asked for, and what that was.
    differs: Option<(usize, Taken)>,
}

impl Second {
    fn new(taken: Arc<[Taken]>) -> Self {
        Self {
            taken,
            asked: 0,
            differs: None,
        }
    }

    /// The next entry, if it is what this run takes now.
    fn take<T>(&mut self, now: Taken, unwrap: impl FnOnce(Taken) -> Option<T>) -> Option<T> {
        let number = self.asked;
        self.asked += 1;
        let entry = self.taken.get(number).copied().and_then(unwrap);
        if entry.is_none() {
            self.differs = self.differs.or(Some((number, now)));
        }
        entry
    }

    /// What is wrong with it, once it is over.
    fn difference(self) -> Option<ErrorKind> {
        let describe =
            |taken: Option<Taken>| taken.map_or("nothing".into(), |taken| taken.to_string());
        let (number, got) = match self.differs {
            Some((number, got)) => (number, Some(got)),
            None if self.asked < self.taken.len() => (self.asked, None),
            None => return None,
        };
        Some(ErrorKind::RecomputedDraw {
            number,
            expected: describe(self.taken.get(number).copied()),
            got: describe(got),
        })
    }
}

type Closure = dyn Fn(&[Tensor]) -> Result<Tensor> + Send + Sync;

/// What is kept of a checkpoint.
pub(super) struct Segment {
    f: Box<Closure>,
    inputs: Box<[SavedTensor]>,
    /// What the closure holds that requires a gradient, to see that it is as it was.
    captured: Box<[SavedTensor]>,
    /// What the first run took.
    taken: Arc<[Taken]>,
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
        self.check_captured()?;
        let run = Scopes::open(&RUNS, Run::Second(Second::new(Arc::clone(&self.taken))));
        let output = enable_grad(|| (self.f)(&inputs));
        let Some(Run::Second(run)) = run.end() else {
            unreachable!("this run began as a second one");
        };
        if let Some(kind) = run.difference() {
            let given: Vec<&Tensor> = inputs.iter().collect();
            return Err(Error::new("checkpoint", &given, kind));
        }
        let output = output?;
        // The closure read these where they lie, and another thread may have written meanwhile.
        self.check_captured()?;
        Call::on(Self::NAME, &output).expect(&output, self.output.shape(), self.output.dtype())?;
        Ok(output)
    }

    fn check_captured(&self) -> Result<()> {
        let mut captured = self.captured.iter();
        captured.try_for_each(|tensor| tensor.get_for(Self::NAME).map(drop))
    }
}
