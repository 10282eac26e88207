//! Softmax and attention with dropout: those of sorix, bit for bit, and candle's operations one after the other.

use candle_core::{D, DType, Device, Result, Tensor, Var};
use candle_nn::ops::softmax;
use sorix_candle::{AttentionOptions, DropRate, DropoutExt, MaskKey, SaveMask};

const CPU: Device = Device::Cpu;
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
fn leaf(shape: &[usize], dtype: DType, salt: usize) -> Var {
    let count: usize = shape.iter().product();
    let number = |i: usize| ((i * 7 + salt * 13) * 37 % 33) as f64 * 0.125 - 2.0;
    let numbers = Tensor::from_vec((0..count).map(number).collect::<Vec<f64>>(), shape, &CPU);
    Var::from_tensor(&numbers.unwrap().to_dtype(dtype).unwrap()).unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    let all = tensor.flatten_all().unwrap().to_dtype(DType::F64).unwrap();
    all.to_vec1().unwrap()
}

/// Of gradients -0.0 becomes 0.0: candle adds each to a tensor of zeros.
fn bits(numbers: Vec<f64>) -> Vec<u64> {
    numbers.into_iter().map(|x| (x + 0.0).to_bits()).collect()
}

fn own(tensor: &Tensor) -> sorix::Tensor {
    let (_, dtype) = DTYPES
        .into_iter()
        .find(|(dtype, _)| *dtype == tensor.dtype())
        .unwrap();
    let own = sorix::Tensor::from_vec(numbers(tensor), tensor.dims()).unwrap();
    own.to_dtype(dtype).unwrap()
}

fn numbers_of_sorix(tensor: &sorix::Tensor) -> Vec<f64> {
    let wide = tensor.to_dtype(sorix::DType::F64).unwrap();
    wide.to_vec().unwrap()
}

/// Output and gradients are those of sorix' own operation on the same inputs.
fn agree(
    what: &str,
    inputs: &[Var],
    candle: impl Fn(&[Var]) -> Result<Tensor>,
    sorix: impl Fn(&[sorix::Tensor]) -> sorix::TensorResult<sorix::Tensor>,
) {
    let own_inputs: Vec<sorix::Tensor> = inputs
        .iter()
        .map(|xs| own(xs).requires_grad(true))
        .collect();
    let ys = candle(inputs).unwrap();
    let own_ys = sorix(&own_inputs).unwrap();
    assert_eq!(
        (ys.dims(), ys.dtype()),
        (own_ys.shape(), inputs[0].dtype()),
        "{what}"
    );
    assert_eq!(
        bits(numbers(&ys)),
        bits(numbers_of_sorix(&own_ys)),
        "{what}"
    );

    let upstream = leaf(ys.dims(), ys.dtype(), 9);
    own_ys.backward_with(&own(&upstream)).unwrap();
    let loss = (&ys * upstream.as_tensor()).unwrap();
    // Backward may be called again.
    for _ in 0..2 {
        let gradients = loss.backward().unwrap();
        for (i, (xs, own_xs)) in inputs.iter().zip(&own_inputs).enumerate() {
            let gradient = gradients.get(xs).unwrap();
            assert_eq!(
                (gradient.dtype(), gradient.dims()),
                (xs.dtype(), xs.dims()),
                "{what}"
            );
            assert_eq!(
                bits(numbers(gradient)),
                bits(numbers_of_sorix(&own_xs.grad().unwrap())),
                "{what}: gradient {i}"
            );
        }
    }
}

#[test]
fn the_softmax_is_sorix_own() {
    for (dtype, _) in DTYPES {
        let (xs, mask) = (leaf(&[3, 4, 70], dtype, 1), leaf(&[4, 1], dtype, 2));
        for p in [0.0, 0.1, 1.0] {
            let what = format!("{dtype:?}, p = {p}");
            agree(
                &what,
                &[xs.clone(), mask.clone()],
                |xs| xs[0].softmax_dropout(Some(&xs[1]), -0.7, rate(p), KEY),
                |xs| xs[0].softmax_dropout(Some(&xs[1]), -0.7, rate(p), KEY, SaveMask::Replay),
            );
            agree(
                &what,
                std::slice::from_ref(&xs),
                |xs| xs[0].softmax_dropout(None, 2.0, rate(p), KEY),
                |xs| xs[0].softmax_dropout(None, 2.0, rate(p), KEY, SaveMask::Bits),
            );
        }
    }
}

#[test]
fn attention_is_sorix_own() {
    for (dtype, _) in DTYPES {
        let inputs = [
            leaf(&[2, 4, 70, 8], dtype, 1),
            leaf(&[2, 2, 90, 8], dtype, 2),
            leaf(&[2, 2, 90, 5], dtype, 3),
        ];
        let mask = leaf(&[70, 90], dtype, 4).as_detached_tensor();
        let own_mask = own(&mask);
        for p in [0.0, 0.1, 1.0] {
            agree(
                &format!("{dtype:?}, p = {p}"),
                &inputs,
                |xs| {
                    let options = AttentionOptions::new()
                        .attn_mask(&mask)
                        .is_causal(true)
                        .first_query(3)
                        .scale(0.3)
                        .enable_gqa(true)
                        .dropout(rate(p), KEY);
                    xs[0].scaled_dot_product_attention(&xs[1], &xs[2], options)
                },
                |xs| {
                    let options = sorix::AttentionOptions::new()
                        .attn_mask(&own_mask)
                        .is_causal(true)
                        .first_query(3)
                        .scale(0.3)
                        .enable_gqa(true)
                        .dropout(rate(p), KEY);
                    xs[0].scaled_dot_product_attention(&xs[1], &xs[2], options)
                },
            );
        }
    }
}

#[test]
fn a_mask_may_have_a_gradient() {
    let inputs = [
        leaf(&[2, 4, 12, 8], DType::F64, 1),
        leaf(&[2, 2, 20, 8], DType::F64, 2),
        leaf(&[2, 2, 20, 5], DType::F64, 3),
        leaf(&[4, 1, 20], DType::F64, 4),
    ];
    let [query, key, value, mask] = &inputs;
    let own_inputs = inputs.each_ref().map(|x| own(x).requires_grad(true));
    let options = AttentionOptions::new().attn_mask(mask).enable_gqa(true);
    let options = options.is_causal(true).dropout(rate(0.3), KEY);
    let ys = query.scaled_dot_product_attention(key, value, options);
    let ys = ys.unwrap();
    let own_options = sorix::AttentionOptions::new().attn_mask(&own_inputs[3]);
    let own_options = own_options.enable_gqa(true).is_causal(true);
    let own_ys = own_inputs[0]
        .scaled_dot_product_attention(
            &own_inputs[1],
            &own_inputs[2],
            own_options.dropout(rate(0.3), KEY),
        )
        .unwrap();
    let upstream = leaf(ys.dims(), DType::F64, 9);
    own_ys.backward_with(&own(&upstream)).unwrap();
    let gradients = (&ys * upstream.as_tensor()).unwrap().backward().unwrap();
    let mut pairs = vec![(numbers(&ys), own_ys.to_vec::<f64>().unwrap())];
    for (leaf, own) in inputs.iter().zip(&own_inputs) {
        let own = own.grad().unwrap().to_vec::<f64>().unwrap();
        pairs.push((numbers(gradients.get(leaf).unwrap()), own));
    }
    for (i, (found, expected)) in pairs.iter().enumerate() {
        assert_eq!(found.len(), expected.len());
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() < 1e-12, "{i}: {a}, {b}");
        }
    }
}

/// Close to candle's own operations, with their gradients.
#[test]
fn it_is_what_candles_operations_give() {
    let inputs = [
        leaf(&[2, 3, 12, 8], DType::F64, 1),
        leaf(&[2, 3, 20, 8], DType::F64, 2),
        leaf(&[2, 3, 20, 6], DType::F64, 3),
    ];
    let [query, key, value] = &inputs;
    let hidden: Vec<f64> = (0..20)
        .map(|j| if j % 7 == 3 { HIDDEN } else { 0.0 })
        .collect();
    let hidden = Tensor::from_vec(hidden, 20, &CPU).unwrap();
    for p in [0.0, 0.3] {
        let scale = 8f64.sqrt().recip();
        let apart = || -> Result<Tensor> {
            let scores = (query.matmul(&key.t()?)? * scale)?.broadcast_add(&hidden)?;
            let probabilities = softmax(&scores, D::Minus1)?.dropout(rate(p), KEY)?;
            probabilities.matmul(value)
        };
        let options = AttentionOptions::new()
            .attn_mask(&hidden)
            .dropout(rate(p), KEY);
        let ys = query
            .scaled_dot_product_attention(key, value, options)
            .unwrap();
        let halfway = || -> Result<Tensor> {
            let scores = query.matmul(&key.t()?)?;
            let probabilities = scores.softmax_dropout(Some(&hidden), scale, rate(p), KEY)?;
            probabilities.matmul(value)
        };
        let apart = apart().unwrap();
        let upstream = leaf(apart.dims(), DType::F64, 9);
        let gradients = |ys: &Tensor| (ys * upstream.as_tensor())?.backward();
        let expected = gradients(&apart).unwrap();
        for ys in [ys, halfway().unwrap()] {
            let found = gradients(&ys).unwrap();
            let mut pairs = vec![(numbers(&ys), numbers(&apart))];
            for xs in &inputs {
                let pair = [&found, &expected].map(|all| numbers(all.get(xs).unwrap()));
                pairs.push(pair.into());
            }
            for (found, expected) in pairs {
                let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-12;
                assert!(found.iter().zip(&expected).all(close), "p = {p}");
            }
        }
    }
}

#[test]
fn tensors_of_any_strides_and_parts_are_taken() {
    let [query, key, value] = [1, 2, 3].map(|salt| leaf(&[2, 9, 4, 8], DType::F32, salt));
    let heads_first = |xs: &Var| xs.transpose(1, 2).unwrap();
    let [q, k, v] = [&query, &key, &value].map(heads_first);
    let options = AttentionOptions::new().dropout(rate(0.3), KEY);
    let whole = q.scaled_dot_product_attention(&k, &v, options).unwrap();
    let copies = [&q, &k, &v].map(|xs| xs.contiguous().unwrap());
    let [q2, k2, v2] = &copies;
    let of_copies = q2.scaled_dot_product_attention(k2, v2, options).unwrap();
    assert_eq!(numbers(&whole), numbers(&of_copies));

    // A worker that has heads 1 and 2.
    let region = KEY.shard(&[2, 4, 9, 9], 1, 1..3).unwrap();
    let options = AttentionOptions::new().dropout(rate(0.3), region);
    let part = |xs: &Tensor| xs.narrow(1, 1, 2).unwrap();
    let own = part(&q).scaled_dot_product_attention(&part(&k), &part(&v), options);
    assert_eq!(numbers(&own.unwrap()), numbers(&part(&whole)));

    let gradients = whole.sum_all().unwrap().backward().unwrap();
    assert_eq!(gradients.get(&value).unwrap().dims(), [2, 9, 4, 8]);
}

#[test]
fn what_is_hidden_or_dropped_leaves_nothing() {
    // All of the first row is masked out; candle's softmax has NaN there.
    let xs = leaf(&[2, 3], DType::F32, 1);
    let hidden = Tensor::new(&[[f32::NEG_INFINITY; 3], [0.0; 3]], &CPU).unwrap();
    let ys = xs
        .softmax_dropout(Some(&hidden), 1.0, rate(0.0), KEY)
        .unwrap();
    assert_eq!(numbers(&ys)[..3], [0.0; 3]);
    let gradient = (ys.sqr().unwrap().backward().unwrap().remove(&xs)).unwrap();
    assert_eq!(numbers(&gradient)[..3], [0.0; 3]);

    // A row of NaN: what is kept of it is NaN, and what is dropped is 0.
    let nan = Tensor::full(f32::NAN, (1, 64), &CPU).unwrap();
    let ones = Tensor::ones((1, 64), DType::F32, &CPU).unwrap();
    let ys = numbers(&nan.softmax_dropout(None, 1.0, rate(0.5), KEY).unwrap());
    let kept = numbers(&ones.dropout(rate(0.5), KEY).unwrap());
    assert!(
        ys.iter()
            .zip(&kept)
            .all(|(y, kept)| y.is_nan() == (*kept != 0.0))
    );
    assert!(ys.contains(&0.0));

    // At p = 1 all is dropped.
    let query = leaf(&[4, 8], DType::F32, 1);
    let options = AttentionOptions::new().dropout(rate(1.0), KEY);
    let ys = query
        .scaled_dot_product_attention(&query, &query, options)
        .unwrap();
    assert_eq!(numbers(&ys), [0.0; 32]);
}

#[test]
fn only_what_is_asked_for_gets_a_gradient() {
    let query = leaf(&[4, 8], DType::F32, 1);
    let constant = leaf(&[4, 8], DType::F32, 2).as_detached_tensor();
    let options = AttentionOptions::new().dropout(rate(0.1), KEY);
    let ys = query.scaled_dot_product_attention(&constant, &constant, options);
    let gradients = ys.unwrap().backward().unwrap();
    assert!(gradients.get(&query).is_some() && gradients.get(&constant).is_none());
    let ys = constant.scaled_dot_product_attention(&constant, &constant, options);
    assert!(!ys.unwrap().track_op());
}

#[test]
fn errors_name_what_came() {
    let xs = leaf(&[4, 8], DType::F32, 1);
    let plain = AttentionOptions::new();
    let message = |result: Result<Tensor>| result.unwrap_err().to_string();
    let attend = |key: &Tensor, value: &Tensor, options: AttentionOptions<'_>| {
        message(xs.scaled_dot_product_attention(key, value, options))
    };
    let (long, wide) = (leaf(&[5, 8], DType::F32, 1), leaf(&[4, 8], DType::F64, 1));
    let whole = Tensor::ones((4, 8), DType::U8, &CPU).unwrap();
    let cases = [
        (attend(&long, &xs, plain), "[5, 8]"),
        (attend(&wide, &xs, plain), "float64"),
        (attend(&whole, &xs, plain), "U8"),
        (
            attend(&xs, &xs, plain.attn_mask(&long.as_detached_tensor())),
            "[5, 8]",
        ),
        (attend(&xs, &xs, plain.attn_mask(&long)), "[5, 8]"),
        (
            attend(
                &xs,
                &xs,
                plain.dropout(rate(0.1), KEY.shard(&[9], 0, 1..4).unwrap()),
            ),
            "3",
        ),
        (
            message(xs.softmax_dropout(Some(&long), 1.0, rate(0.1), KEY)),
            "[5, 8]",
        ),
        (
            message(xs.softmax_dropout(Some(&wide), 1.0, rate(0.1), KEY)),
            "float64",
        ),
        (
            message(whole.softmax_dropout(None, 1.0, rate(0.1), KEY)),
            "U8",
        ),
        (
            message(
                xs.sum_all()
                    .unwrap()
                    .softmax_dropout(None, 1.0, rate(0.1), KEY),
            ),
            "axis -1",
        ),
    ];
    for (message, part) in cases {
        assert!(message.contains(part), "{part}: {message}");
    }
}
