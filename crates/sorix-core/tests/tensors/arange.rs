//! Counting.

use crate::common::{DTYPES, values};
use sorix_core::{DType, ErrorKind, Tensor};

#[test]
fn arange_counts_as_numpy() {
    type Row = (f64, f64, f64, &'static [f64]);
    let rows: [Row; 6] = [
        (0.0, 3.0, 1.0, &[0.0, 1.0, 2.0]),
        (1.0, 2.25, 0.5, &[1.0, 1.5, 2.0]),
        (2.0, -2.5, -1.5, &[2.0, 0.5, -1.0]),
        (5.0, 5.0, 1.0, &[]),
        (5.0, 5.0, -1.0, &[]),
        (0.0, 1.0, 1e300, &[0.0]),
    ];
    for (start, end, step, expected) in rows {
        for dtype in DTYPES {
            let x = Tensor::arange(start, end, step, dtype).unwrap();
            assert_eq!((values(&x), x.dtype()), (expected.to_vec(), dtype));
        }
    }
    // Each number is rounded once; a running sum would be at 99.9999….
    let x = Tensor::arange(0.0, 200.0, 0.1, DType::F64).unwrap();
    assert_eq!((x.numel(), values(&x)[1000]), (2000, 100.0));
}

#[test]
fn arange_refuses_steps_that_lead_nowhere() {
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let rows = [
        (0.0, 1.0, 0.0, "steps of 0.0 do not lead from 0.0 to 1.0"),
        (1.0, 1.0, 0.0, "steps of 0.0 do not lead from 1.0 to 1.0"),
        (0.0, 1.0, -0.5, "steps of -0.5 do not lead from 0.0 to 1.0"),
        // Less than a step away, in the wrong direction.
        (0.0, -0.5, 1.0, "steps of 1.0 do not lead from 0.0 to -0.5"),
        (0.0, 0.5, -1.0, "steps of -1.0 do not lead from 0.0 to 0.5"),
        (
            0.0,
            -1e308,
            1.0,
            "steps of 1.0 do not lead from 0.0 to -1e308",
        ),
        (0.0, inf, 1.0, "steps of 1.0 do not lead from 0.0 to inf"),
        (0.0, 1.0, inf, "steps of inf do not lead from 0.0 to 1.0"),
        (nan, 1.0, 1.0, "steps of 1.0 do not lead from NaN to 1.0"),
        (0.0, 1.0, nan, "steps of NaN do not lead from 0.0 to 1.0"),
    ];
    for (start, end, step, message) in rows {
        let error = Tensor::arange(start, end, step, DType::F32).unwrap_err();
        let expected = format!("arange: {message} (dtype sorix.float32)");
        assert_eq!(error.to_string(), expected);
    }
    let error = Tensor::arange(0.0, 1e300, 1e-300, DType::F32).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TooLarge { .. }));
}
