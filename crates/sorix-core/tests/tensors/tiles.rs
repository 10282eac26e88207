//! Copies of what lies crosswise in memory, which go tile by tile.

use crate::common::{DTYPES, random, values};
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

#[test]
fn sums_of_views_are_those_of_their_copies() {
    let x = random(&[67, 5, 131], 1);
    // Rows, columns, both and a number: strides of 0 in every place.
    let others = [
        [1, 1, 131],
        [67, 1, 1],
        [1, 5, 131],
        [67, 5, 1],
        [1, 5, 1],
        [1, 1, 1],
    ];
    for dtype in DTYPES {
        let x = x.to_dtype(dtype).unwrap();
        let mut views = vec![x.clone(), x.slice_step(2, 1.., 2).unwrap()];
        views.push(
            x.permute(&[2, 1, 0])
                .unwrap()
                .contiguous()
                .unwrap()
                .permute(&[2, 1, 0])
                .unwrap(),
        );
        for (salt, shape) in (2..).zip(others) {
            let other = random(&shape, salt).to_dtype(dtype).unwrap();
            for view in &views {
                let other = match shape[2] {
                    1 => other.clone(),
                    _ => other.slice(2, ..view.shape()[2]).unwrap(),
                };
                let repeated = other.expand(view.shape()).unwrap().contiguous().unwrap();
                let expected = values(&view.contiguous().unwrap())
                    .into_iter()
                    .zip(values(&repeated));
                let expected = expected.map(|(x, y)| x + y).collect();
                let expected = Tensor::from_vec(expected, view.shape()).unwrap();
                let expected = values(&expected.to_dtype(dtype).unwrap());
                // The sum of two numbers of 16 bits may lie on a tie of f32 and not of theirs.
                let close = |sum: Tensor| {
                    let unit = if dtype.size() == 2 { 1e-2 } else { 0.0 };
                    let pairs = values(&sum).into_iter().zip(&expected);
                    pairs
                        .filter(|(x, y)| (x - *y).abs() > unit * y.abs())
                        .count()
                        == 0
                };
                assert!(close(view.add(&other).unwrap()), "{dtype} {shape:?}");
                assert!(close(other.add(view).unwrap()), "{dtype} {shape:?}");
            }
        }
    }
}
