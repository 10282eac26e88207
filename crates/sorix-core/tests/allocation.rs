//! A failed allocation is an error, not the end of the process.

use sorix_core::{AttentionOptions, DType, DropRate, ErrorKind, MaskKey, Result, SaveMask, Tensor};

/// 2^46 elements: more bytes than a process can address, fewer than a shape may have.
const LARGE: usize = 1 << 46;

#[test]
fn new_tensors_of_absurd_shapes_are_refused() {
    let shapes: [&[usize]; 5] = [
        &[LARGE],
        &[1 << 40, 1 << 40],
        &[usize::MAX],
        &[1 << 32, 1 << 31],
        &[usize::MAX, 0],
    ];
    for shape in shapes {
        for dtype in [DType::F16, DType::BF16, DType::F32, DType::F64] {
            for made in [
                Tensor::zeros(shape, dtype),
                Tensor::ones(shape, dtype),
                Tensor::full(shape, 0.5, dtype),
            ] {
                let error = made.unwrap_err();
                assert!(
                    matches!(
                        error.kind(),
                        ErrorKind::Allocation { .. } | ErrorKind::TooLarge { .. }
                    ),
                    "{shape:?} {dtype}: {error}"
                );
            }
        }
    }
}

/// A view costs nothing, whatever its shape; only what would have to write it out is refused.
#[test]
fn operations_on_absurd_views_are_refused() {
    for dtype in [DType::BF16, DType::F32, DType::F64] {
        let x = Tensor::ones([1], dtype).unwrap().requires_grad(true);
        let large = x.expand([LARGE]).unwrap();
        assert_eq!(large.numel(), LARGE);
        let rate = DropRate::new(0.5).unwrap();
        let (first, second) = (SaveMask::Bits, SaveMask::Replay);
        let key = MaskKey::new(1, 2);
        let queries = large.unsqueeze(1).unwrap();
        let one = x.unsqueeze(1).unwrap();
        let options = AttentionOptions::new().dropout(rate, key);
        let results: [(&str, Result<Tensor>); 12] = [
            ("contiguous", large.contiguous()),
            ("neg", large.neg()),
            ("add", large.add(&x)),
            ("mul_scalar", large.mul_scalar(2.0)),
            ("sum_over", large.expand([2, LARGE]).unwrap().sum_over(0)),
            ("mean_over", large.expand([2, LARGE]).unwrap().mean_over(0)),
            ("dropout", large.dropout(rate, key, first)),
            ("dropout", large.dropout(rate, key, second)),
            (
                "softmax_dropout",
                large.softmax_dropout(None, 1.0, rate, key, first),
            ),
            (
                "softmax_dropout",
                large.softmax_dropout(None, 1.0, rate, key, second),
            ),
            (
                "attention",
                queries.scaled_dot_product_attention(&one, &one, options),
            ),
            ("to_dtype", large.to_dtype(DType::F16)),
        ];
        for (op, result) in results {
            assert!(result.is_err(), "{op} of {LARGE} elements of {dtype}");
        }
        // Printing looks at the ends alone.
        assert!(large.to_string().contains("..."), "{large}");
    }
    let large = Tensor::ones([1], DType::F32)
        .unwrap()
        .expand([LARGE])
        .unwrap();
    // What repeats is counted: nothing of 2^50 elements is made, or gone through.
    let inner = large.slice(0, ..1).unwrap();
    let inner = inner.expand([1 << 20, 1 << 20, 1 << 10]).unwrap();
    let sums = inner.sum_over([0, 1]).unwrap().to_vec::<f32>().unwrap();
    assert_eq!(sums, [2_f32.powi(40); 1 << 10]);
    let error = large.to_vec::<f32>().unwrap_err();
    let bytes = 4 * LARGE;
    assert_eq!(
        (error.op(), error.kind()),
        ("to_vec", &ErrorKind::Allocation { bytes })
    );
    assert!(large.to_ndarray::<f32>().is_err());
    assert!(large.expand([usize::MAX]).is_err());
}
