//! Memory that is handed over: tensors of a `Vec` or an owned array, and back.

use crate::common::{random, values};
use half::f16;
use ndarray::{Array, ArrayD, ArrayViewD, Axis, Dimension, arr0, array};
use sorix_core::autograd::no_grad;
use sorix_core::{DType, DropRate, MaskKey, SaveMask, Tensor, tensor};

fn address(x: &Tensor) -> *const f64 {
    x.with_view(|view: ArrayViewD<f64>| view.as_ptr()).unwrap()
}

/// Takes the array over, and checks that what the tensor says is what the array said.
fn taken_over<D: Dimension>(a: Array<f64, D>) -> Tensor {
    let (expected, first) = (a.clone().into_dyn(), a.as_ptr());
    let x = Tensor::from_ndarray_owned(a).unwrap();
    assert_eq!(x.to_ndarray::<f64>().unwrap(), expected);
    let turned_around = expected.strides().iter().any(|&stride| stride < 0);
    if expected.len() > 1 {
        assert_eq!(address(&x) == first, !turned_around, "{expected}");
    }
    x
}

#[test]
fn an_owned_array_is_taken_over_in_any_layout() {
    let a = array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]];
    assert!(taken_over(a.clone()).is_contiguous());
    assert_eq!(taken_over(a.clone().reversed_axes()).strides(), [1, 3]);

    let mut sliced = a.clone();
    sliced.slice_axis_inplace(Axis(1), (1..).into());
    assert_eq!(taken_over(sliced).strides(), [3, 1]);
    let mut every_other = a.clone();
    every_other.slice_axis_inplace(Axis(1), ndarray::Slice::new(0, None, 2));
    assert_eq!(values(&taken_over(every_other)), [1.0, 3.0, 4.0, 6.0]);
    let mut turned_around = a.clone();
    turned_around.invert_axis(Axis(0));
    assert_eq!(values(&taken_over(turned_around))[..3], [4.0, 5.0, 6.0]);

    assert_eq!(taken_over(arr0(7.0)).shape(), []);
    assert_eq!(taken_over(Array::zeros((3, 0, 2))).shape(), [3, 0, 2]);
    assert_eq!(taken_over(a.insert_axis(Axis(1))).shape(), [2, 1, 3]);
}

#[test]
fn the_memory_comes_back_where_nothing_else_has_it() {
    let source: Vec<f64> = (0..6).map(f64::from).collect();
    let made = || {
        let elements = source.clone();
        let first = elements.as_ptr();
        (Tensor::from_vec(elements, [2, 3]).unwrap(), first)
    };
    let back = |x: Tensor| x.into_vec::<f64>().unwrap();

    let (x, first) = made();
    let elements = back(x);
    assert_eq!((&elements, elements.as_ptr()), (&source, first));

    // Half of it, from its first element.
    let (x, first) = made();
    let row = x.slice(0, ..1).unwrap();
    drop(x);
    let elements = back(row);
    assert_eq!((&*elements, elements.as_ptr()), (&source[..3], first));

    // Another handle, a view that begins elsewhere, a view in another order, and sorix's own memory.
    let (x, first) = made();
    let handle = x.clone();
    let copied = back(x);
    assert!(copied == source && copied.as_ptr() != first);
    assert_eq!(address(&handle), first);
    let row = handle.slice(0, 1..).unwrap();
    drop(handle);
    assert_eq!(back(row), source[3..]);
    let (x, _) = made();
    let columns = x.transpose(0, 1).unwrap();
    drop(x);
    assert_eq!(back(columns), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    assert_eq!(back(Tensor::ones([2], DType::F64).unwrap()), [1.0; 2]);
}

#[test]
fn an_array_comes_back_in_the_layout_it_has() {
    /// What comes back, and whether it is the same memory.
    fn back(x: Tensor) -> (ArrayD<f64>, bool) {
        let (expected, first) = (x.to_ndarray::<f64>().unwrap(), address(&x));
        let a = x.into_ndarray::<f64>().unwrap();
        assert_eq!(a, expected);
        let same = a.as_ptr() == first;
        (a, same)
    }
    let cube = || Array::from_iter((0..24).map(f64::from)).into_shape_with_order((2, 3, 4));
    let taken = || Tensor::from_ndarray_owned(cube().unwrap()).unwrap();

    let columns = array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]].reversed_axes();
    let (a, same) = back(Tensor::from_ndarray_owned(columns).unwrap());
    assert_eq!((a.strides(), same), (&[1, 3][..], true));
    let permuted = cube().unwrap().permuted_axes([2, 0, 1]);
    let (a, same) = back(Tensor::from_ndarray_owned(permuted).unwrap());
    assert_eq!((a.strides(), same), (&[1, 12, 4][..], true));
    let view = |view: fn(&Tensor) -> sorix_core::Result<Tensor>| {
        // The tensor itself is gone then.
        let x = view(&taken()).unwrap();
        back(x)
    };
    let (a, same) = view(|x| x.permute(&[1, 2, 0]));
    assert_eq!((a.strides(), same), (&[4, 1, 12][..], true));
    let (a, same) = view(|x| x.slice_step(2, ..3, 2)?.slice(1, ..1));
    assert_eq!((a.shape(), same), (&[2, 1, 2][..], true));
    assert!(view(|x| x.slice(0, ..0)).0.is_empty());

    // Not from the first element, one element in several places, and sorix's own memory.
    assert!(!view(|x| x.slice(0, 1..)).1);
    assert!(!view(|x| x.unsqueeze(0)?.expand([2, 2, 3, 4])).1);
    assert!(!view(|x| x.neg()?.transpose(0, 2)).1);
}

#[test]
fn what_does_not_fit_is_an_error() {
    let message = |x: sorix_core::Result<Tensor>| x.unwrap_err().to_string();
    assert_eq!(
        message(Tensor::from_vec(vec![1.0_f32; 5], [2, 3])),
        "from_vec(float32[2, 3]): shape [2, 3] has 6 elements, got 5"
    );
    let half = Tensor::from_vec(vec![f16::ONE; 2], [2]).unwrap();
    assert_eq!(
        half.into_vec::<f32>().unwrap_err().to_string(),
        "into_vec(float16[2]): expected dtype sorix.float16, got sorix.float32"
    );
}

/// A tensor of a `Vec`, whose memory is aligned for its elements at best, is like any other.
#[test]
fn operations_do_not_ask_where_the_memory_is_from() {
    let own = random(&[37, 53], 1);
    let given = || {
        // One element further than the allocator had it.
        let mut shifted = Array::from_vec([&[0.0], &*values(&own)].concat());
        shifted.slice_axis_inplace(Axis(0), (1..).into());
        let x = Tensor::from_ndarray_owned(shifted).unwrap();
        x.reshape([37, 53]).unwrap()
    };
    let (rate, key) = (DropRate::new(0.5).unwrap(), MaskKey::new(1, 2));
    for op in [
        |x: &Tensor| x.exp(),
        |x: &Tensor| x.softmax(1),
        |x: &Tensor| x.sum_over(0),
        |x: &Tensor| x.matmul(&x.transpose(0, 1)?),
        |x: &Tensor| x.to_dtype(DType::BF16),
    ] {
        let (a, b) = (op(&own).unwrap(), op(&given()).unwrap());
        assert_eq!(a.to_le_bytes().unwrap(), b.to_le_bytes().unwrap());
    }
    let [a, b] = [own.clone(), given()].map(|x| {
        let x = x.requires_grad(true);
        let y = x.dropout(rate, key, SaveMask::Bits).unwrap();
        y.backward_with(&given()).unwrap();
        (values(&y), values(&x.grad().unwrap()))
    });
    assert_eq!(a, b);

    // A write in place does not reach what was read before it.
    let x = given();
    let before = x.add_scalar(0.0).unwrap();
    no_grad(|| x.assign(&own.neg().unwrap())).unwrap();
    assert_eq!(values(&before), values(&own));
    assert_eq!(values(&x), values(&own.neg().unwrap()));
}

#[test]
fn indices_are_whole_numbers_that_their_dtype_cannot_have_rounded() {
    let indices = [3, 0, 1 << 53];
    let x = Tensor::from_indices(&indices, [3, 1]).unwrap();
    assert_eq!((x.dtype(), x.shape()), (DType::F64, &[3, 1][..]));
    assert_eq!(x.to_indices().unwrap(), indices);
    let view = Tensor::from_indices(&[0, 1, 2, 3, 4, 5], [2, 3]).unwrap();
    let view = view.transpose(0, 1).unwrap();
    assert_eq!(view.to_indices().unwrap(), [0, 3, 1, 4, 2, 5]);
    assert!(
        Tensor::from_indices(&[], [0, 2])
            .unwrap()
            .to_indices()
            .unwrap()
            .is_empty()
    );
    for (dtype, limit) in [
        (DType::BF16, 256.0),
        (DType::F16, 2048.0),
        (DType::F32, 16_777_216.0),
    ] {
        let at = |number: f64| tensor([0.0, number]).to_dtype(dtype).unwrap();
        assert_eq!(at(limit).to_indices().unwrap(), [0, limit as usize]);
        // 257 is 256 in bf16, and 258 may have been 257.
        let error = at(limit + limit / 128.0).to_indices().unwrap_err();
        let expected = format!("expected whole numbers in 0..={limit}, got");
        assert!(error.to_string().contains(&expected), "{error}");
    }
    for number in [
        -1.0,
        0.5,
        f64::NAN,
        f64::INFINITY,
        1e300,
        2.0_f64.powi(53) + 2.0,
    ] {
        let error = tensor([1.0, number]).to_indices().unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("at position 1") && message.len() < 120,
            "{message}"
        );
    }
    let error = Tensor::from_indices(&[1, usize::MAX], [2]).unwrap_err();
    assert!(matches!(
        error.kind(),
        sorix_core::ErrorKind::NotAnIndex { position: 1, .. }
    ));
    assert!(Tensor::from_indices(&[1], [2]).is_err());
}
