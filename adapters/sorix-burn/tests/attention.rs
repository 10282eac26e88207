//! Softmax and attention with dropout: those of sorix, bit for bit, and burn's operations one after the other.

use burn::tensor::{DType, Device, Tensor, TensorData, activation};
use sorix_burn::{
    AttentionOptions, DropRate, Error, MaskKey, Result, SaveMask, scaled_dot_product_attention,
    softmax_dropout,
};

const HIDDEN: f64 = f64::NEG_INFINITY;
const KEY: MaskKey = MaskKey {
    seed: 42,
    offset: 7,
};
const DTYPES: [(DType, sorix::DType); 4] = [
    (DType::F32, sorix::DType::F32),
    (DType::F64, sorix::DType::F64),
    (DType::F16, sorix::DType::F16),
    (DType::BF16, sorix::DType::BF16),
];

fn rate(p: f64) -> DropRate {
    DropRate::new(p).unwrap()
}

/// Numbers in [-2, 2] that every dtype has.
fn numbers(count: usize, salt: usize) -> Vec<f64> {
    let number = |i: usize| ((i * 7 + salt * 13) * 37 % 33) as f64 * 0.125 - 2.0;
    (0..count).map(number).collect()
}

fn tensor<const D: usize>(
    shape: [usize; D],
    salt: usize,
    dtype: DType,
    device: &Device,
) -> Tensor<D> {
    let data = TensorData::new(numbers(shape.iter().product(), salt), shape);
    Tensor::from_data(data.convert_dtype(dtype), (device, dtype))
}

fn own(shape: &[usize], salt: usize, dtype: sorix::DType) -> sorix::Tensor {
    let own = sorix::Tensor::from_vec(numbers(shape.iter().product(), salt), shape).unwrap();
    own.to_dtype(dtype).unwrap()
}

fn doubles<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    let data = tensor.into_data().convert_dtype(DType::F64);
    data.try_to_vec::<f64>().unwrap()
}

fn bits(numbers: Vec<f64>) -> Vec<u64> {
    numbers.into_iter().map(f64::to_bits).collect()
}

fn doubles_of_sorix(tensor: &sorix::Tensor) -> Vec<f64> {
    let wide = tensor.to_dtype(sorix::DType::F64).unwrap();
    wide.to_vec().unwrap()
}

/// Output and gradients are those of sorix' own operation on the same inputs: in each dtype, in the graph, with and
/// without gradient checkpointing, and outside of it.
fn agree<const N: usize>(
    what: &str,
    shapes: [[usize; 4]; N],
    burn: impl Fn([Tensor<4>; N], &Device) -> Result<Tensor<4>>,
    sorix: impl Fn(&[sorix::Tensor; N]) -> sorix::TensorResult<sorix::Tensor>,
) {
    for (dtype, own_dtype) in DTYPES {
        let what = format!("{what} {dtype:?}");
        let mut salt = 0;
        let own_inputs = shapes.map(|shape| {
            salt += 1;
            own(&shape, salt, own_dtype).requires_grad(true)
        });
        let expected = sorix(&own_inputs).unwrap();
        let upstream = own(expected.shape(), 9, own_dtype);
        expected.backward_with(&upstream).unwrap();
        let output = bits(doubles_of_sorix(&expected));

        let fresh = |device: &Device| {
            let mut salt = 0;
            shapes.map(|shape| {
                salt += 1;
                tensor(shape, salt, dtype, device)
            })
        };
        let plain = Device::flex();
        let y = burn(fresh(&plain), &plain).unwrap();
        assert_eq!(
            (y.dtype(), &y.dims()[..]),
            (dtype, expected.shape()),
            "{what}"
        );
        assert_eq!(bits(doubles(y)), output, "{what}");
        let autodiff = plain.autodiff();
        for device in [autodiff.clone(), autodiff.gradient_checkpointing()] {
            // Nobody asks for a gradient here.
            let y = burn(fresh(&device), &device).unwrap();
            assert_eq!(bits(doubles(y)), output, "{what}");

            let leaves = fresh(&device).map(Tensor::require_grad);
            let y = burn(leaves.clone(), &device).unwrap();
            assert_eq!(bits(doubles(y.clone())), output, "{what}");
            let upstream = tensor(y.dims(), 9, dtype, &device);
            let gradients = (y * upstream).backward();
            for (i, (leaf, own)) in leaves.iter().zip(&own_inputs).enumerate() {
                let gradient = leaf.grad(&gradients).unwrap();
                assert_eq!(gradient.dims(), leaf.dims(), "{what}: gradient {i}");
                let expected = doubles_of_sorix(&own.grad().unwrap());
                assert_eq!(
                    bits(doubles(gradient)),
                    bits(expected),
                    "{what}: gradient {i}"
                );
            }
        }
    }
}

#[test]
fn the_softmax_is_sorix_own() {
    for p in [0.0, 0.1, 1.0] {
        agree(
            &format!("p = {p}"),
            [[3, 1, 4, 70], [1, 1, 4, 1]],
            |[x, mask], _| softmax_dropout(x, Some(mask), -0.7, rate(p), KEY),
            |[x, mask]| x.softmax_dropout(Some(mask), -0.7, rate(p), KEY, SaveMask::Replay),
        );
        agree(
            &format!("without a mask, p = {p}"),
            [[3, 1, 4, 70]],
            |[x], _| softmax_dropout(x, None, 2.0, rate(p), KEY),
            |[x]| x.softmax_dropout(None, 2.0, rate(p), KEY, SaveMask::Bits),
        );
    }
}

#[test]
fn attention_is_sorix_own() {
    for p in [0.0, 0.1, 1.0] {
        agree(
            &format!("p = {p}"),
            [[2, 4, 70, 8], [2, 2, 90, 8], [2, 2, 90, 5]],
            |[query, key, value], device| {
                let options = AttentionOptions::new()
                    .attn_mask(tensor([1, 1, 70, 90], 4, query.dtype(), device))
                    .is_causal(true)
                    .first_query(3)
                    .scale(0.3)
                    .enable_gqa(true)
                    .dropout(rate(p), KEY);
                scaled_dot_product_attention(query, key, value, options)
            },
            |[query, key, value]| {
                let mask = own(&[70, 90], 4, query.dtype());
                let options = sorix::AttentionOptions::new()
                    .attn_mask(&mask)
                    .is_causal(true)
                    .first_query(3)
                    .scale(0.3)
                    .enable_gqa(true)
                    .dropout(rate(p), KEY);
                query.scaled_dot_product_attention(key, value, options)
            },
        );
        // A mask of which a gradient is asked.
        agree(
            &format!("with the mask's gradient, p = {p}"),
            [[2, 2, 70, 8], [2, 2, 90, 8], [2, 2, 90, 5], [1, 2, 70, 90]],
            |[query, key, value, mask], _| {
                let options = AttentionOptions::new().attn_mask(mask);
                scaled_dot_product_attention(query, key, value, options.dropout(rate(p), KEY))
            },
            |[query, key, value, mask]| {
                let options = sorix::AttentionOptions::new().attn_mask(mask);
                query.scaled_dot_product_attention(key, value, options.dropout(rate(p), KEY))
            },
        );
    }
}

#[test]
fn only_gradients_that_are_asked_for_are_computed() {
    let device = Device::flex().autodiff();
    let of = |salt| tensor::<4>([1, 2, 5, 4], salt, DType::F64, &device);
    let (query, key, value) = (of(1).require_grad(), of(2), of(3));
    let y = scaled_dot_product_attention(
        query.clone(),
        key.clone(),
        value.clone(),
        AttentionOptions::new().attn_mask(tensor([1, 1, 5, 5], 4, DType::F64, &device)),
    );
    let gradients = y.unwrap().backward();
    assert!(query.grad(&gradients).is_some());
    assert!(key.grad(&gradients).is_none() && value.grad(&gradients).is_none());
}

/// Close to burn's own operations, with their gradients, of tensors in any order of their axes.
#[test]
fn it_is_what_burns_operations_give() {
    let device = Device::flex().autodiff();
    let leaves = [[2, 12, 3, 8], [2, 20, 3, 8], [2, 20, 3, 6]];
    let mut salt = 0;
    let leaves = leaves.map(|shape| {
        salt += 1;
        tensor::<4>(shape, salt, DType::F64, &device).require_grad()
    });
    let hidden: Vec<f64> = (0..20)
        .map(|j| if j % 7 == 3 { HIDDEN } else { 0.0 })
        .collect();
    let data = TensorData::new(hidden, [1, 1, 1, 20]);
    let hidden = || Tensor::<4>::from_data(data.clone(), (&device, DType::F64));
    let scale = 8f64.sqrt().recip();
    // Each from the leaves, as backward consumes the graph.
    let ours = |[query, key, value]: [Tensor<4>; 3]| {
        let options = AttentionOptions::new().attn_mask(hidden());
        scaled_dot_product_attention(query, key, value, options).unwrap()
    };
    let halfway = |[query, key, value]: [Tensor<4>; 3]| {
        let scores = query.matmul(key.transpose());
        let p = softmax_dropout(scores, Some(hidden()), scale, rate(0.0), KEY);
        p.unwrap().matmul(value)
    };
    let apart = |[query, key, value]: [Tensor<4>; 3]| {
        let scores = query.matmul(key.transpose());
        activation::softmax(scores * scale + hidden(), 3).matmul(value)
    };
    let ways: [&dyn Fn([Tensor<4>; 3]) -> Tensor<4>; 3] = [&ours, &halfway, &apart];
    let all = ways.map(|way| {
        let y = way(leaves.clone().map(|x| x.swap_dims(1, 2)));
        let upstream = tensor(y.dims(), 9, DType::F64, &device);
        let gradients = (y.clone() * upstream).backward();
        let of_leaves = leaves
            .iter()
            .map(|leaf| doubles(leaf.grad(&gradients).unwrap()));
        [doubles(y)]
            .into_iter()
            .chain(of_leaves)
            .collect::<Vec<_>>()
    });
    let [ours, halfway, apart] = all;
    for found in [ours, halfway] {
        for (i, (found, expected)) in found.iter().zip(&apart).enumerate() {
            let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-12;
            assert!(found.iter().zip(expected).all(close), "{i}");
        }
    }
}

#[test]
fn what_is_hidden_or_dropped_leaves_nothing() {
    let device = Device::flex();
    // A row of NaN: what is kept of it is NaN, and what is dropped is 0.
    let nan = Tensor::<2>::full([1, 64], f32::NAN, &device);
    let y = doubles(softmax_dropout(nan, None, 1.0, rate(0.5), KEY).unwrap());
    let ones = sorix::Tensor::ones([1, 64], sorix::DType::F64).unwrap();
    let kept = doubles_of_sorix(&ones.dropout(rate(0.5), KEY, SaveMask::Bits).unwrap());
    let pairs = y.iter().zip(&kept);
    assert!({ pairs }.all(|(y, kept)| y.is_nan() == (*kept != 0.0)));
    assert!(y.contains(&0.0));

    // All of a row is masked out.
    let hidden = Tensor::<2>::full([1, 3], f32::NEG_INFINITY, &device);
    let x = tensor([2, 3], 1, DType::F32, &device);
    let y = softmax_dropout(x, Some(hidden), 1.0, rate(0.0), KEY).unwrap();
    assert_eq!(doubles(y), [0.0; 6]);
}

#[test]
fn errors_name_what_came() {
    let device = Device::flex();
    let of = |rows: usize, dtype| tensor::<2>([rows, 8], 1, dtype, &device);
    let x = || of(4, DType::F32);
    let plain = AttentionOptions::<2>::new;
    let attend = |key, value, options| {
        let error = scaled_dot_product_attention(x(), key, value, options).unwrap_err();
        assert!(
            matches!(error, Error::Operand { .. } | Error::Layer(_)),
            "{error:?}"
        );
        error.to_string()
    };
    let region = KEY.shard(&[9], 0, 1..4).unwrap();
    let softmax = |mask| {
        let error = softmax_dropout(x(), Some(mask), 1.0, rate(0.1), KEY);
        error.unwrap_err().to_string()
    };
    let vector = tensor::<1>([8], 1, DType::F32, &device);
    let of_vector = scaled_dot_product_attention(
        vector.clone(),
        vector.clone(),
        vector,
        AttentionOptions::new(),
    );
    let autodiff = device.clone().autodiff();
    let elsewhere = tensor::<2>([4, 8], 1, DType::F32, &autodiff);
    let cases = [
        (attend(of(5, DType::F32), x(), plain()), "[4, 8]"),
        (attend(of(4, DType::F64), x(), plain()), "F64"),
        (attend(x(), elsewhere, plain()), "a value"),
        (
            attend(x(), x(), plain().attn_mask(of(5, DType::F32))),
            "[5, 8]",
        ),
        (attend(x(), x(), plain().dropout(rate(0.1), region)), "3"),
        (softmax(of(5, DType::F32)), "[5, 8]"),
        (softmax(of(4, DType::F64)), "F64"),
        (of_vector.unwrap_err().to_string(), "at least two axes"),
    ];
    for (message, part) in cases {
        assert!(message.contains(part), "{part}: {message}");
    }
}
