//! Copies of what lies crosswise in memory, which go tile by tile.

use crate::common::random;
use sorix_core::{DType, Tensor};

#[test]
fn a_copy_of_a_view_has_its_elements() {
    let x = random(&[67, 5, 131], 1);
    let orders: [[isize; 3]; 6] = [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ];
    for order in orders {
        let permuted = x.permute(&order).unwrap();
        let views = [
            permuted.clone(),
            permuted.slice_step(-1, 3.., 2).unwrap(),
            permuted.slice_step(0, 1.., 3).unwrap(),
            permuted.slice(1, 2..3).unwrap(),
            permuted.slice(0, 2..2).unwrap(),
        ];
        for view in views {
            // Element by element, and not in tiles.
            let expected = view
                .with_view(|x: ndarray::ArrayViewD<'_, f64>| x.iter().copied().collect::<Vec<_>>())
                .unwrap();
            assert_eq!(
                view.to_vec::<f64>().unwrap(),
                expected,
                "{order:?} {view:?}"
            );
            let copy = view.contiguous().unwrap();
            assert!(copy.is_contiguous());
            assert_eq!(
                copy.to_vec::<f64>().unwrap(),
                expected,
                "{order:?} {view:?}"
            );
            let negated: Vec<f64> = expected.iter().map(|x| -x).collect();
            assert_eq!(view.neg().unwrap().to_vec::<f64>().unwrap(), negated);
            let narrow = view.to_dtype(DType::F32).unwrap();
            let expected: Vec<f32> = expected.iter().map(|&x| x as f32).collect();
            assert_eq!(narrow.to_vec::<f32>().unwrap(), expected);
            let joined = Tensor::concat(&[&narrow, &narrow], -1).unwrap();
            let last = view.shape()[2];
            for half in [joined.slice(2, ..last), joined.slice(2, last..)] {
                assert_eq!(half.unwrap().to_vec::<f32>().unwrap(), expected);
            }
        }
    }
}
