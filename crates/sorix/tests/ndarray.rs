//! Dropout of ndarray's arrays: the masks of the kernels, for any strides, types and ranks.

use half::{bf16, f16};
use ndarray::{Array, Array2, Array3, ArrayD, Axis, IxDyn, ShapeBuilder, arr0, array, s};
use sorix::kernels::{Activation, BitMask, DropRate, MaskKey, dropout};
use sorix::ndarray::{DropoutExt, Error};
use sorix::nn::Module;
use sorix::{Scalar, Tensor};

const KEY: MaskKey = MaskKey {
    seed: 42,
    offset: 7,
};

fn values<T: Scalar>(shape: (usize, usize, usize), value: impl Fn(f32) -> T) -> Array3<T> {
    let numbers = (0..shape.0 * shape.1 * shape.2).map(|i| value(i as f32 * 0.25 + 1.0));
    Array::from_iter(numbers)
        .into_shape_with_order(shape)
        .unwrap()
}

fn agrees_with_the_kernels<T: Scalar>(value: impl Fn(f32) -> T) {
    let x = values((7, 40, 33), value);
    for p in [0.0, 0.1, 0.5, 1.0] {
        let rate = DropRate::new(p).unwrap();
        let (mut y, mut mask) = (vec![T::ZERO; x.len()], BitMask::new(x.len()));
        dropout::forward(rate, KEY, x.as_slice().unwrap(), &mut y, &mut mask).unwrap();

        let (got, got_mask) = x.dropout(p, KEY).unwrap();
        assert_eq!(got.as_slice().unwrap(), y, "{} p = {p}", T::NAME);
        assert_eq!(got_mask.bits(), &mask);
        assert_eq!(got_mask.rate(), rate);

        let mut in_place = x.clone();
        assert_eq!(in_place.dropout_inplace(p, KEY).unwrap().bits(), &mask);
        assert_eq!(in_place, got);

        let residual = x.mapv(|x| T::nearest(3.0 - x.to_f64() / 7.0));
        let mut sum = vec![T::ZERO; x.len()];
        let slices = (x.as_slice().unwrap(), residual.as_slice().unwrap());
        dropout::dropout_add(rate, KEY, slices.0, slices.1, &mut sum, None).unwrap();
        let (got, got_mask) = x.dropout_add(&residual, p, KEY).unwrap();
        assert_eq!(got.as_slice().unwrap(), sum, "{} p = {p}: sum", T::NAME);
        assert_eq!(got_mask.bits(), &mask);

        let mut dx = vec![T::ZERO; x.len()];
        dropout::backward(rate, &mask, x.as_slice().unwrap(), &mut dx).unwrap();
        let got = x.dropout_backward(&got_mask).unwrap();
        assert_eq!(got.as_slice().unwrap(), dx);

        let x = x.mapv(|x| T::nearest(x.to_f64() / 100.0 - 9.0));
        let dy = &residual;
        for activation in Activation::ALL.iter().copied() {
            let of_x = x.as_slice().unwrap();
            let mut mask = BitMask::new(x.len());
            let bits = Some(&mut mask);
            dropout::act_dropout(activation, rate, KEY, of_x, None, &mut y, bits).unwrap();
            let of_y = dy.as_slice().unwrap();
            let (got, got_mask) = x.act_dropout(activation, p, KEY).unwrap();
            assert_eq!(got.as_slice().unwrap(), y, "{} {activation:?}", T::NAME);
            assert_eq!(got_mask.bits(), &mask);
            let got = dy.dropout_backward_at(&got_mask, &x).unwrap();
            if activation == Activation::Relu {
                dropout::backward(rate, &mask, of_y, &mut dx).unwrap();
                assert_eq!(dy.dropout_backward(&got_mask).unwrap(), got);
            } else {
                dropout::act_dropout_backward(activation, rate, &mask, of_x, None, of_y, &mut dx)
                    .unwrap();
            }
            assert_eq!(got.as_slice().unwrap(), dx, "{} {activation:?}", T::NAME);
        }
    }
}

#[test]
fn every_type_gets_what_the_kernels_write() {
    agrees_with_the_kernels(|x| x);
    agrees_with_the_kernels(f64::from);
    agrees_with_the_kernels(bf16::from_f32);
    agrees_with_the_kernels(f16::from_f32);
}

#[test]
fn a_view_of_any_strides_gets_the_mask_of_its_copy() {
    let x = values((8, 12, 20), |x| x);
    let column_major = Array3::from_shape_fn((8, 12, 20).f(), |i| x[i]);
    let views = [
        ("permuted", x.view().permuted_axes([2, 0, 1])),
        ("reversed", x.slice(s![..;-1, .., ..;-1])),
        ("with steps", x.slice(s![..;2, 1..;3, ..])),
        ("column major", column_major.view()),
    ];
    for (what, view) in views {
        let copy = view.as_standard_layout().into_owned();
        let (y, mask) = copy.dropout(0.3, KEY).unwrap();
        let (got, got_mask) = view.dropout(0.3, KEY).unwrap();
        assert_eq!(got, y, "{what}");
        assert_eq!(got_mask.bits(), mask.bits(), "{what}");
        assert_eq!(view.dropout_backward(&mask).unwrap(), y, "{what}");
        let expected = copy.dropout_add(&y, 0.3, KEY).unwrap().0;
        assert_eq!(
            view.dropout_add(&y, 0.3, KEY).unwrap().0,
            expected,
            "{what}"
        );
        let of_itself = copy.dropout_add(&copy, 0.3, KEY).unwrap().0;
        assert_eq!(
            view.dropout_add(&view, 0.3, KEY).unwrap().0,
            of_itself,
            "{what}"
        );
        let (y, mask) = view.act_dropout(Activation::Gelu, 0.3, KEY).unwrap();
        assert_eq!(
            y,
            copy.act_dropout(Activation::Gelu, 0.3, KEY).unwrap().0,
            "{what}"
        );
        let dx = view.dropout_backward_at(&mask, &view).unwrap();
        assert_eq!(
            dx,
            copy.dropout_backward_at(&mask, &copy).unwrap(),
            "{what}"
        );
        let axis = view.dropout_axis(0.3, KEY, Axis(1)).unwrap().0;
        assert_eq!(
            axis,
            copy.dropout_axis(0.3, KEY, Axis(1)).unwrap().0,
            "{what}"
        );
    }
}

#[test]
fn a_broadcast_view_is_dropped_from_element_by_element() {
    let row = array![1.0, 2.0, 3.0];
    let x = row.broadcast((50, 3)).unwrap();
    let (y, _) = x.dropout(0.5, KEY).unwrap();
    assert_eq!(y, x.to_owned().dropout(0.5, KEY).unwrap().0);
    assert!(y.column(0).iter().any(|&y| y == 0.0) && y.column(0).iter().any(|&y| y == 2.0));
}

#[test]
fn a_strided_view_is_dropped_from_in_place() {
    let mut whole = values((4, 6, 10), |x| x);
    let before = whole.clone();
    let mut part = whole.slice_mut(s![1..3, .., ..;2]);
    let expected = part.to_owned().dropout(0.5, KEY).unwrap().0;
    part.dropout_inplace(0.5, KEY).unwrap();
    assert_eq!(part, expected);
    // What the view does not show is as it was.
    assert_eq!(whole.slice(s![..1, .., ..]), before.slice(s![..1, .., ..]));
    assert_eq!(
        whole.slice(s![1..3, .., 1..;2]),
        before.slice(s![1..3, .., 1..;2])
    );
}

#[test]
fn an_axis_has_one_decision_for_each_index() {
    let x = values((5, 64, 3), |x| x);
    let (y, mask) = x.dropout_axis(0.5, KEY, Axis(1)).unwrap();
    let mut bits = BitMask::new(64);
    dropout::fill_mask(DropRate::new(0.5).unwrap(), KEY, &mut bits).unwrap();
    assert_eq!(mask.bits(), &bits);
    assert_eq!(mask.to_array().shape(), [1, 64, 1]);
    let scale = mask.to_array().mapv(|keep| if keep { 2.0 } else { 0.0 });
    assert_eq!(y.view().into_dyn(), &x.view().into_dyn() * &scale);
    let ones = Array3::<f32>::ones((5, 64, 3));
    let dx = ones.dropout_backward(&mask).unwrap();
    assert_eq!(y, dx * &x);
}

#[test]
fn rows_and_columns_of_a_matrix() {
    let x = Array2::<f64>::ones((30, 40));
    let (rows, mask) = x.dropout_axis(0.5, KEY, Axis(0)).unwrap();
    assert!(
        rows.rows()
            .into_iter()
            .all(|row| row.iter().all(|y| *y == row[0]))
    );
    assert_eq!(rows.sum(), 80.0 * mask.bits().count_kept() as f64);
    let (columns, _) = x.dropout_axis(0.5, KEY, Axis(1)).unwrap();
    assert!(
        columns
            .columns()
            .into_iter()
            .all(|column| column.iter().all(|y| *y == column[0]))
    );
}

#[test]
fn what_is_dropped_does_not_leak() {
    let x = Array2::from_elem((100, 100), f32::NAN);
    let (y, mask) = x.dropout(0.5, KEY).unwrap();
    for (y, keep) in y.iter().zip(mask.bits()) {
        assert!(if keep { y.is_nan() } else { y.to_bits() == 0 });
    }
}

#[test]
fn edges_of_p_and_of_shapes() {
    let x = values((2, 3, 4), |x| x);
    assert_eq!(x.dropout(0.0, KEY).unwrap().0, x);
    assert_eq!(
        x.dropout(1.0, KEY).unwrap().0,
        Array3::<f32>::zeros((2, 3, 4))
    );
    assert_eq!(arr0(3.0).dropout(0.0, KEY).unwrap().0, arr0(3.0));
    let (empty, mask) = Array2::<f32>::zeros((0, 3)).dropout(0.5, KEY).unwrap();
    assert_eq!((empty.shape(), mask.bits().len()), (&[0, 3][..], 0));
    let dynamic = ArrayD::<f32>::ones(IxDyn(&[2, 2, 2, 2, 2, 2, 2]));
    assert_eq!(dynamic.dropout(0.5, KEY).unwrap().0.ndim(), 7);
}

#[test]
fn errors_say_what_was_expected_and_nothing_is_written() {
    let mut x = array![[1.0, 2.0], [3.0, 4.0]];
    for p in [-0.1, 1.1, f64::NAN] {
        let error = x.dropout_inplace(p, KEY).unwrap_err().to_string();
        assert!(error.contains(&format!("got p = {p}")), "{error}");
    }
    assert_eq!(x, array![[1.0, 2.0], [3.0, 4.0]]);

    let error = x.dropout_axis(0.5, KEY, Axis(2)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "dropout_axis: expected an axis of an array of shape [2, 2], got Axis(2)"
    );
    let (_, mask) = x.dropout(0.5, KEY).unwrap();
    // As many elements, but of another shape.
    let error = array![[1.0, 2.0, 3.0, 4.0]]
        .dropout_backward(&mask)
        .unwrap_err();
    assert_eq!(
        error,
        Error::Shape {
            expected: vec![2, 2],
            got: vec![1, 4]
        }
    );
    assert_eq!(
        error.to_string(),
        "dropout_backward: expected an array of shape [2, 2], as the mask's, got [1, 4]"
    );
    let error = x.dropout_add(&array![[1.0, 2.0, 3.0, 4.0]], 0.5, KEY);
    assert_eq!(
        error.unwrap_err().to_string(),
        "dropout_add: expected a residual of shape [2, 2], as the array's, got [1, 4]"
    );
    let (y, mask) = x.act_dropout(Activation::Silu, 0.5, KEY).unwrap();
    let wrong = array![[1.0, 2.0, 3.0, 4.0]];
    for error in [
        y.dropout_backward_at(&mask, &wrong),
        wrong.dropout_backward_at(&mask, &x),
    ] {
        assert_eq!(
            error.unwrap_err().to_string(),
            "dropout_backward: expected an array of shape [2, 2], as the mask's, got [1, 4]"
        );
    }
    let error = y.dropout_backward(&mask).unwrap_err().to_string();
    assert!(error.contains("input of an activation"), "{error}");
    // A window that reaches beyond the last index.
    assert!(x.dropout(0.5, KEY.window(u64::MAX - 1)).is_err());
}

#[test]
fn a_part_of_an_array_makes_its_part_of_the_mask() {
    let x = values((6, 10, 10), |x| x);
    let (whole, _) = x.dropout(0.3, KEY).unwrap();
    let part = x
        .slice(s![2..4, .., ..])
        .dropout(0.3, KEY.window(200))
        .unwrap()
        .0;
    assert_eq!(part, whole.slice(s![2..4, .., ..]));
    let shard = KEY.shard(&[6, 10, 10], 1, 3..7).unwrap();
    let part = x.slice(s![.., 3..7, ..]).dropout(0.3, shard).unwrap().0;
    assert_eq!(part, whole.slice(s![.., 3..7, ..]));
}

#[test]
fn the_layers_of_sorix_make_the_same_masks() {
    let x = Array2::<f32>::ones((50, 20));
    let tensor = Tensor::from_slice(x.as_slice().unwrap(), [50, 20]).unwrap();
    let mut layer = sorix::nn::Dropout::new(0.2).unwrap();
    layer.train();
    let y = layer
        .forward_with_key(&tensor, KEY)
        .unwrap()
        .to_vec::<f32>()
        .unwrap();
    assert_eq!(
        x.dropout(0.2, KEY).unwrap().0.into_raw_vec_and_offset().0,
        y
    );
}
