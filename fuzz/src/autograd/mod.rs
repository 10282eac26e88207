//! Programs of tensor operations, their values and gradients against [dual numbers](crate::model).
//!
//! Where the model has no answer the operation has to be an error, and nothing may panic.

mod apply;
mod backward;
mod checkpoint;
mod expected;
mod program;
mod value;

use sorix::MaskKey;

use program::{Program, Segment, Step};
use value::Value;

/// The target.
pub fn run(data: &[u8]) {
    crate::with_arbitrary(data, check);
}

fn check(program: Program) {
    let leaves = program.leaves.iter().enumerate();
    let mut values: Vec<Value> = leaves.map(|(k, leaf)| Value::leaf(k, leaf)).collect();
    let steps: Vec<(MaskKey, &Step)> = (0..)
        .map(|n| MaskKey::new(program.seed.into(), n))
        .zip(&program.steps)
        .collect();
    let (before, rest) = steps.split_at(match &program.segment {
        Some(Segment { begin, .. }) => usize::from(*begin) % (steps.len() + 1),
        None => 0,
    });
    let (within, after) = rest.split_at(match &program.segment {
        Some(Segment { steps, .. }) => usize::from(*steps) % (rest.len() + 1),
        None => 0,
    });

    run_steps(&program, before, &mut values);
    let inputs = values.len();
    let kept = run_steps(&program, within, &mut values);
    if let Some(segment) = &program.segment {
        checkpoint::run_again(&program, segment, kept, inputs, &mut values);
    }
    run_steps(&program, after, &mut values);
    // From the last value alone, or through every step.
    if program.weights % 2 == 1 {
        values.extend(Value::total(&values));
    }
    backward::check(&program, &values);
}

/// Runs the steps and compares what comes out. Returns those whose results are now values.
fn run_steps(
    program: &Program,
    steps: &[(MaskKey, &Step)],
    values: &mut Vec<Value>,
) -> Vec<(MaskKey, Step)> {
    let mut kept = Vec::new();
    for &(key, step) in steps {
        let [x, y] = step.places(values.len()).map(|place| &values[place]);
        let result = step.op.apply(&x.tensor, &y.tensor, key);
        let expected = step.op.expected(&x.model, &y.model, key);
        assert_eq!(
            result.is_ok(),
            expected.is_some(),
            "{step:?} in {program:?}: {result:?}"
        );
        let (Ok(tensor), Some(model)) = (result, expected) else {
            continue;
        };
        let needs_grad = step.op.needs_grad(x.needs_grad, y.needs_grad);
        let mut value = Value {
            tensor,
            model,
            needs_grad,
        };
        value.compare(step, program);
        if value.is_moderate() {
            values.push(value);
            kept.push((key, step.clone()));
        }
    }
    kept
}
