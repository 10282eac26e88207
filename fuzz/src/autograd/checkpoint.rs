//! Steps run once more, as a checkpoint.

use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use sorix::autograd::{checkpoint, taped_key};
use sorix::{MaskKey, Tensor, TensorResult as Result};

use super::program::{Program, Segment, Step, Then};
use super::value::{Value, elements};

/// Runs the steps that made the values from number `inputs` on once more, as a checkpoint. Its
/// output has to be the last of them by bits, and takes its place.
pub(super) fn run_again(
    program: &Program,
    segment: &Segment,
    steps: Vec<(MaskKey, Step)>,
    inputs: usize,
    values: &mut [Value],
) {
    let tensors: Vec<Tensor> = values[..inputs].iter().map(|v| v.tensor.clone()).collect();
    let Some(last) = values[inputs..].last_mut() else {
        return;
    };
    // What a segment holds must not be written, and only what it is given is watched.
    let held = match program.then {
        Then::Write(..) => 0,
        Then::Nothing | Then::Again => program.leaves.len() * usize::from(segment.holds_leaves),
    };
    let (held, given) = tensors.split_at(held);
    let given: Vec<&Tensor> = given.iter().collect();
    let run = Arc::new(closure(held.to_vec(), steps));
    let again = if segment.nested {
        let inner = move |given: &[Tensor]| {
            let run = Arc::clone(&run);
            let given: Vec<&Tensor> = given.iter().collect();
            checkpoint(move |given: &[Tensor]| run(given), &given)
        };
        checkpoint(inner, &given)
    } else {
        checkpoint(move |given: &[Tensor]| run(given), &given)
    };

    let again = again.unwrap_or_else(|error| panic!("{program:?}: {error} in a checkpoint"));
    assert_eq!(again.shape(), last.tensor.shape(), "{program:?}");
    let bits = |x: &Tensor| -> Vec<u64> { elements(x).into_iter().map(f64::to_bits).collect() };
    assert_eq!(
        bits(&again),
        bits(&last.tensor),
        "{program:?}: in a checkpoint, and without"
    );
    // A segment that detaches what it recorded before is a node all the same.
    assert!(again.needs_grad() || !last.needs_grad, "{program:?}");
    last.needs_grad = again.needs_grad();
    last.tensor = again;
}

/// The steps as a function of the values that come after `held`. Each takes a key; a key that is
/// drawn when backward runs them again is a wrong one.
fn closure(
    held: Vec<Tensor>,
    steps: Vec<(MaskKey, Step)>,
) -> impl Fn(&[Tensor]) -> Result<Tensor> + Send + Sync + 'static {
    let drawn = AtomicUsize::new(0);
    move |given| {
        let mut tensors = [&held, given].concat();
        for &(key, ref step) in &steps {
            let key = taped_key(|| match drawn.fetch_add(1, Ordering::Relaxed) {
                n if n < steps.len() => key,
                _ => MaskKey::new(!key.seed, key.offset),
            });
            let [x, y] = step.places(tensors.len());
            tensors.push(step.op.apply(&tensors[x], &tensors[y], key)?);
        }
        Ok(tensors.pop().expect("there are steps"))
    }
}
