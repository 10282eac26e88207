//! What several test files need.
#![allow(dead_code, reason = "each test file uses a part")]

use sorix_core::{DType, Result, Tensor};

/// All dtypes.
pub(crate) const DTYPES: [DType; 4] = [DType::F16, DType::BF16, DType::F32, DType::F64];

/// The elements as doubles, whatever the dtype.
pub(crate) fn values(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().to_vec().unwrap()
}

/// Numbers at which activations are at their asymptotes: a large one, the largest of this dtype, and infinity.
pub(crate) fn far_out(dtype: DType) -> [f64; 3] {
    let largest = match dtype {
        DType::F16 => half::f16::MAX.to_f64(),
        DType::BF16 => half::bf16::MAX.to_f64(),
        DType::F32 => f32::MAX.into(),
        _ => f64::MAX,
    };
    [1e4, largest, f64::INFINITY]
}

/// Numbers in [-2, 2) that look random; another sequence for each salt.
pub(crate) fn numbers(count: usize, salt: u64) -> Vec<f64> {
    let mix = |i: usize| {
        let mut z = (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
            ^ salt.wrapping_mul(0xD134_2543_DE82_EF95);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z ^ (z >> 31)
    };
    (0..count)
        .map(|i| (mix(i) >> 11) as f64 / 2f64.powi(51) - 2.0)
        .collect()
}

/// A tensor of this shape with such numbers.
pub(crate) fn random(shape: &[usize], salt: u64) -> Tensor {
    Tensor::from_slice(&numbers(shape.iter().product(), salt), shape).unwrap()
}

/// Compares the gradients of `sum(f(inputs) * weights)` with central differences.
pub(crate) fn check_gradients(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    const STEP: f64 = 1e-6;
    const TOLERANCE: f64 = 1e-7;

    let leaves: Vec<Tensor> = inputs.iter().map(|x| x.requires_grad(true)).collect();
    let y = f(&leaves).unwrap();
    let weights = random(y.shape(), 99);
    y.backward_with(&weights).unwrap();

    let loss = |inputs: &[Tensor]| -> f64 {
        f(inputs)
            .unwrap()
            .mul(&weights)
            .unwrap()
            .sum()
            .unwrap()
            .item()
            .unwrap()
    };
    for (k, (input, leaf)) in inputs.iter().zip(&leaves).enumerate() {
        let gradient = leaf
            .grad()
            .unwrap_or_else(|| panic!("input {k} has no gradient"));
        assert_eq!(gradient.shape(), input.shape(), "input {k}");
        let gradient = gradient.to_vec::<f64>().unwrap();
        let elements = input.to_vec::<f64>().unwrap();
        for i in 0..elements.len() {
            let loss_at = |step: f64| {
                let mut moved = elements.clone();
                moved[i] += step;
                let mut inputs = inputs.to_vec();
                inputs[k] = Tensor::from_slice(&moved, input.shape()).unwrap();
                loss(&inputs)
            };
            let expected = (loss_at(STEP) - loss_at(-STEP)) / (2.0 * STEP);
            let error = (gradient[i] - expected).abs();
            assert!(
                error <= TOLERANCE * (1.0 + expected.abs()),
                "input {k}, element {i}: gradient {}, differences {expected}",
                gradient[i]
            );
        }
    }
}

/// A pool of so many threads.
pub(crate) fn pool(threads: usize) -> rayon::ThreadPool {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    pool.build().unwrap()
}
