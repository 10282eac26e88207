//! Gradients of f16 and bf16 are added in f32 wherever they meet, and rounded once.

use crate::common::values;
use half::bf16;
use sorix_core::autograd::{Function, Gradients, checkpoint, record};
use sorix_core::{DType, ErrorKind, Result, Tensor, tensor};

fn half(numbers: &[f64], dtype: DType) -> Tensor {
    tensor(numbers).to_dtype(dtype).unwrap()
}

/// The sum of so many uses of `x`, recorded as a chain.
fn uses(x: &Tensor, count: usize) -> Tensor {
    let mut sum = x.neg().unwrap();
    for _ in 1..count {
        sum = sum.add(&x.neg().unwrap()).unwrap();
    }
    sum
}

#[test]
fn gradients_that_meet_are_rounded_once() {
    for dtype in [DType::F16, DType::BF16] {
        // bf16 counts to 256 and f16 to 2048.
        let count = if dtype == DType::BF16 { 300 } else { 2050 };
        let expected = [-half(&[count as f64], dtype)
            .to_dtype(DType::F64)
            .unwrap()
            .item::<f64>()
            .unwrap()];
        let x = half(&[1.0], dtype).requires_grad(true);
        let grad = half(&[1.0], dtype);
        uses(&x, count).backward_with(&grad).unwrap();
        assert_eq!(values(&x.grad().unwrap()), expected, "at a leaf, {dtype}");

        x.zero_grad();
        let node = x.reshape([1, 1]).unwrap().reshape([1]).unwrap();
        uses(&node, count).backward_with(&grad).unwrap();
        assert_eq!(values(&x.grad().unwrap()), expected, "at a node, {dtype}");

        x.zero_grad();
        let inside = checkpoint(
            move |x| Ok::<_, sorix_core::Error>(uses(&x[0], count)),
            &[&x],
        );
        inside.unwrap().backward_with(&grad).unwrap();
        assert_eq!(
            values(&x.grad().unwrap()),
            expected,
            "in a checkpoint, {dtype}"
        );
    }
}

/// Products that are out of f16's range, whose sum is not.
#[test]
fn products_over_what_was_broadcast_are_summed_before_they_are_rounded() {
    let dtype = DType::F16;
    let check = |name: &str,
                 f: &dyn Fn(&Tensor, &Tensor) -> Result<Tensor>,
                 one: &Tensor,
                 other: &Tensor| {
        let leaf = one.requires_grad(true);
        let y = f(&leaf, other).unwrap();
        let grads: Vec<f64> = [300.0, -300.0]
            .into_iter()
            .cycle()
            .take(y.numel())
            .collect();
        let grads = half(&grads, dtype).reshape(y.shape()).unwrap();
        y.backward_with(&grads).unwrap();
        assert_eq!(
            values(&leaf.grad().unwrap()),
            vec![0.0; one.numel()],
            "{name}"
        );
    };
    let (one, two) = (half(&[2.0], dtype), half(&[300.0, 300.0], dtype));
    let matrix = |x: &Tensor| x.reshape([1, 1]).unwrap();
    let stack = |x: &Tensor| x.reshape([2, 1, 1]).unwrap();
    check("mul", &|x, y| x.mul(y), &one, &two);
    check(
        "matmul, right",
        &|x, y| y.matmul(x),
        &matrix(&one),
        &stack(&two),
    );
    check(
        "matmul, left",
        &|x, y| x.matmul(y),
        &matrix(&one),
        &stack(&two),
    );
    let permuted = stack(&two).permute(&[1, 2, 0]).unwrap();
    check(
        "a view",
        &|x, y| x.matmul(&y.permute(&[2, 0, 1])?),
        &matrix(&one),
        &permuted,
    );
    // The two terms of a product with itself.
    let x = half(&[300.0], dtype).requires_grad(true);
    let (a, b) = (x.mul(&x).unwrap(), x.neg().unwrap().mul(&x).unwrap());
    let grad = half(&[200.0], dtype);
    a.add(&b).unwrap().backward_with(&grad).unwrap();
    assert_eq!(values(&x.grad().unwrap()), [0.0]);
}

#[test]
fn terms_of_nothing() {
    let w = half(&[1.0, 2.0], DType::BF16).requires_grad(true);
    let none = Tensor::zeros([0, 2], DType::BF16).unwrap();
    none.mul(&w).unwrap().sum().unwrap().backward().unwrap();
    none.add(&w).unwrap().sum().unwrap().backward().unwrap();
    assert_eq!(values(&w.grad().unwrap()), [0.0, 0.0]);
    let w = w.detach().reshape([2, 1]).unwrap().requires_grad(true);
    none.matmul(&w).unwrap().sum().unwrap().backward().unwrap();
    assert_eq!(values(&w.grad().unwrap()), [0.0, 0.0]);
}

/// In f32, what an operation adds up is not rounded to 16 bits on its way to a leaf.
#[test]
fn a_leaf_may_have_a_gradient_of_f32() {
    let third = f64::from(bf16::from_f64(1.0 / 3.0));
    let ones = Tensor::ones([7, 2], DType::BF16).unwrap();
    let xs = half(&[1.0 / 3.0; 14], DType::BF16).reshape([7, 2]).unwrap();
    type Op<'a> = &'a dyn Fn(&Tensor) -> Result<Tensor>;
    let cases: [(&str, Vec<usize>, f64, Op<'_>); 6] = [
        ("matmul", vec![2, 1], 7.0 * third, &|w| xs.matmul(w)),
        ("mul", vec![2], 7.0 * third, &|w| xs.mul(w)),
        ("add", vec![1, 2], 7.0, &|w| ones.add(w)),
        ("sub", vec![1, 2], -7.0, &|w| ones.sub(w)),
        ("expand", vec![1, 2], 7.0, &|w| w.expand([7, 2])),
        ("to_dtype", vec![2], third, &|w| {
            w.to_dtype(DType::F32)?.mul_scalar(third)
        }),
    ];
    for (name, shape, expected, op) in cases {
        let w = half(&[1.0, 2.0], DType::BF16).reshape(&*shape).unwrap();
        let w = w.requires_grad(true);
        w.set_grad_dtype(DType::F32).unwrap();
        for k in 1..=3 {
            let y = op(&w).unwrap();
            y.backward_with(&Tensor::ones(y.shape(), y.dtype()).unwrap())
                .unwrap();
            let grad = w.grad().unwrap();
            assert_eq!(grad.dtype(), DType::F32, "{name}");
            let expected = f64::from(k as f32 * expected as f32);
            for got in values(&grad) {
                assert!(
                    (got - expected).abs() <= 1e-6 * expected.abs(),
                    "{name}: {got}, {expected}"
                );
            }
        }
    }
}

#[test]
fn the_dtype_of_a_gradient_is_chosen_and_refused() {
    let w = half(&[1.0], DType::F16).requires_grad(true);
    assert_eq!(w.grad_dtype(), DType::F16);
    w.sum().unwrap().backward().unwrap();
    w.set_grad_dtype(DType::F32).unwrap();
    assert!(w.grad().is_none() && w.clone().grad_dtype() == DType::F32);
    w.sum().unwrap().backward().unwrap();
    w.set_grad_dtype(DType::F16).unwrap();
    w.sum().unwrap().backward().unwrap();
    assert_eq!(w.grad().unwrap().dtype(), DType::F16);
    let error = w.set_grad_dtype(DType::BF16).unwrap_err();
    let expected = "set_grad_dtype(float16[1]): expected dtype sorix.float32, got sorix.bfloat16";
    assert_eq!(error.to_string(), expected);
    for x in [w.neg().unwrap(), w.detach()] {
        let error = x.set_grad_dtype(DType::F32).unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::NotALeaf);
    }
}

/// A function of the user's may return f32 for an input of 16 bits, and nothing else.
#[test]
fn what_dtypes_a_function_may_return() {
    #[derive(Debug)]
    struct Returns(DType);
    impl Function for Returns {
        fn name(&self) -> &'static str {
            "ReturnsBackward"
        }
        fn backward(&self, grad: Tensor) -> Result<Gradients> {
            Ok(vec![Some(Tensor::full(grad.shape(), 1e6, self.0)?)])
        }
    }
    for (of, dtype, fits) in [
        (DType::F16, DType::F32, true),
        (DType::BF16, DType::BF16, true),
        (DType::F16, DType::BF16, false),
        (DType::F16, DType::F64, false),
        (DType::F32, DType::F64, false),
        (DType::F64, DType::F32, false),
    ] {
        let x = half(&[1.0], of).requires_grad(true);
        for input in [x.clone(), x.neg().unwrap()] {
            let y = record(x.detach(), &[&input], || Returns(dtype));
            match y.backward() {
                Ok(()) => assert!(fits),
                Err(error) => {
                    assert!(
                        !fits && matches!(error.kind(), ErrorKind::DType { .. }),
                        "{error}"
                    );
                }
            }
        }
    }
}
