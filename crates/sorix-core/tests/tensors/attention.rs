//! Attention that never holds its matrix: against the matrix, by the operations apart, and its corner cases.

use crate::common::{DTYPES, check_gradients, pool, random, values};
use sorix_core::autograd::{checkpoint, taped_key};
use sorix_core::{
    AttentionOptions, DType, DropRate, Error, MaskKey, MaskRegion, Result, SaveMask, Tensor, tensor,
};

const KEY: MaskKey = MaskKey { seed: 4, offset: 2 };
const HIDDEN: f64 = f64::NEG_INFINITY;

fn rate(p: f64) -> DropRate {
    DropRate::new(p).unwrap()
}

fn options<'t>() -> AttentionOptions<&'t Tensor> {
    AttentionOptions::new()
}

/// The output and the gradients of query, key and value.
fn all(inputs: &[Tensor; 3], f: impl Fn(&[Tensor; 3]) -> Result<Tensor>) -> [Tensor; 4] {
    let leaves = inputs.each_ref().map(|x| x.requires_grad(true));
    for leaf in &leaves {
        leaf.set_grad_dtype(leaf.dtype().arithmetic()).unwrap();
    }
    let y = f(&leaves).unwrap();
    let weights = random(y.shape(), 99).to_dtype(y.dtype()).unwrap();
    y.backward_with(&weights).unwrap();
    let [query, key, value] = leaves.map(|x| x.grad().unwrap());
    [y, query, key, value]
}

/// The same by the matrix. `mask` is the whole additive one, of the causal part, too.
fn by_matrix(
    [query, key, value]: &[Tensor; 3],
    mask: Option<&Tensor>,
    scale: f64,
    p: f64,
) -> Result<Tensor> {
    // Heads that are shared are repeated.
    let repeated = |x: &Tensor| -> Result<Tensor> {
        let [b, heads, s, e] = *x.shape() else {
            return Ok(x.clone());
        };
        let group = query.shape()[1] / heads;
        let x = x.unsqueeze(2)?.expand([b, heads, group, s, e])?;
        x.reshape([b, heads * group, s, e])
    };
    let mut scores = query
        .matmul(&repeated(key)?.transpose(-1, -2)?)?
        .mul_scalar(scale)?;
    if let Some(mask) = mask {
        scores = scores.add(mask)?;
    }
    let p = scores
        .softmax(-1)?
        .dropout(rate(p), KEY, SaveMask::Replay)?;
    p.matmul(&repeated(value)?)
}

/// Minus infinity where key j comes after query i.
fn causal(queries: usize, keys: usize) -> Tensor {
    let of = |i: usize| if i % keys <= i / keys { 0.0 } else { HIDDEN };
    Tensor::from_vec((0..queries * keys).map(of).collect(), [queries, keys]).unwrap()
}

fn assert_near(found: &[Tensor; 4], expected: &[Tensor; 4], off: f64, what: &str) {
    let names = ["output", "gradient of query", "of key", "of value"];
    for ((name, found), expected) in names.iter().zip(found).zip(expected) {
        assert_eq!(found.shape(), expected.shape(), "{what}: {name}");
        let (found, expected) = (values(found), values(expected));
        let most = expected.iter().fold(0.2, |most: f64, x| most.max(x.abs()));
        for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
            assert!((a - b).abs() <= off * most, "{what}: {name}, {i}: {a}, {b}");
        }
    }
}

/// Query, key and value of `[b, heads, l, e]`, `[b, of_key, s, e]` and `[b, of_key, s, ev]`.
fn inputs(
    b: usize,
    [heads, of_key]: [usize; 2],
    [l, s]: [usize; 2],
    [e, ev]: [usize; 2],
) -> [Tensor; 3] {
    [
        random(&[b, heads, l, e], 1),
        random(&[b, of_key, s, e], 2),
        random(&[b, of_key, s, ev], 3),
    ]
}

#[test]
fn it_is_what_the_matrix_gives() {
    let shapes = [
        // Several tiles of queries and of keys, none of them full.
        (1, [2, 2], [130, 1100], [8, 5]),
        (2, [6, 2], [70, 70], [16, 16]),
        (2, [3, 1], [5, 9], [4, 3]),
        (1, [1, 1], [1, 600], [3, 2]),
        (3, [2, 2], [65, 1], [2, 2]),
    ];
    for (b, heads, lengths, widths) in shapes {
        let wide = inputs(b, heads, lengths, widths);
        let mask = random(&[b, 1, 1, lengths[1]], 5);
        let scale = (widths[0] as f64).sqrt().recip();
        for (dtype, off) in [(DType::F64, 1e-12), (DType::F32, 2e-5)] {
            let inputs = wide.each_ref().map(|x| x.to_dtype(dtype).unwrap());
            let [mask, causal] =
                [&mask, &causal(lengths[0], lengths[1])].map(|x| x.to_dtype(dtype).unwrap());
            for p in [0.0, 0.1, 1.0] {
                let what = format!("{dtype} {b} {heads:?} {lengths:?} {widths:?}, p = {p}");
                let run = |options: AttentionOptions<&Tensor>| {
                    let options = options.enable_gqa(true).dropout(rate(p), KEY);
                    all(&inputs, |[query, key, value]| {
                        query.scaled_dot_product_attention(key, value, options)
                    })
                };
                let apart =
                    |mask: Option<&Tensor>, scale| all(&inputs, |x| by_matrix(x, mask, scale, p));
                assert_near(&run(options()), &apart(None, scale), off, &what);
                let found = run(options().is_causal(true));
                assert_near(
                    &found,
                    &apart(Some(&causal), scale),
                    off,
                    &format!("{what}, causal"),
                );
                let found = run(options().attn_mask(&mask).scale(-0.3));
                assert_near(
                    &found,
                    &apart(Some(&mask), -0.3),
                    off,
                    &format!("{what}, mask"),
                );
                let both = mask.add(&causal).unwrap();
                let found = run(options().attn_mask(&mask).is_causal(true));
                assert_near(
                    &found,
                    &apart(Some(&both), scale),
                    off,
                    &format!("{what}, both"),
                );
            }
        }
    }
}

#[test]
fn sixteen_bits_are_computed_in_f32_and_rounded_once() {
    for dtype in [DType::F16, DType::BF16] {
        let narrow = inputs(2, [4, 2], [70, 600], [8, 6]).map(|x| x.to_dtype(dtype).unwrap());
        let mask = random(&[2, 1, 70, 600], 5).to_dtype(dtype).unwrap();
        let narrow = [&narrow[..], &[mask]].concat();
        let weights = random(&[2, 4, 70, 6], 99).to_dtype(dtype).unwrap();
        let run = |inputs: &[Tensor]| {
            let leaves: Vec<Tensor> = inputs.iter().map(|x| x.requires_grad(true)).collect();
            for leaf in &leaves {
                leaf.set_grad_dtype(DType::F32).unwrap();
            }
            let options = options().enable_gqa(true).attn_mask(&leaves[3]);
            let options = options.dropout(rate(0.1), KEY);
            let y = leaves[0].scaled_dot_product_attention(&leaves[1], &leaves[2], options);
            let y = y.unwrap();
            y.backward_with(&weights.to_dtype(y.dtype()).unwrap())
                .unwrap();
            let gradients = leaves.iter().map(|x| x.grad().unwrap());
            (y, gradients.collect::<Vec<_>>())
        };
        let (y, gradients) = run(&narrow);
        let wide = |x: &Tensor| x.to_dtype(DType::F32).unwrap();
        let all_wide: Vec<Tensor> = narrow.iter().map(wide).collect();
        let (of_wide, expected) = run(&all_wide);
        // To the bit, as what is widened is the same.
        assert_eq!(
            values(&y),
            values(&of_wide.to_dtype(dtype).unwrap()),
            "{dtype}"
        );
        for (k, (found, expected)) in gradients.iter().zip(&expected).enumerate() {
            assert_eq!(found.dtype(), DType::F32);
            assert_eq!(values(found), values(expected), "{dtype}: gradient {k}");
        }
        // A mask of the type computed in.
        let of_wide_mask = [&narrow[..3], &all_wide[3..]].concat();
        assert_eq!(values(&run(&of_wide_mask).0), values(&y), "{dtype}");
    }
}

/// With the unit matrix as value the output is the matrix of probabilities.
#[test]
fn the_mask_is_the_one_of_dropout() {
    for (l, s) in [(70, 64), (40, 700), (3, 20)] {
        let [query, key, _] = inputs(2, [3, 3], [l, s], [4, 4]);
        let unit = (0..s * s).map(|i| f64::from(u8::from(i % s == i / s)));
        let value = Tensor::from_vec(unit.collect(), [s, s])
            .unwrap()
            .expand([2, 3, s, s])
            .unwrap();
        for p in [0.1, 0.5, 0.9] {
            let found =
                query.scaled_dot_product_attention(&key, &value, options().dropout(rate(p), KEY));
            let ones = Tensor::ones([2, 3, l, s], DType::F64).unwrap();
            let mask = ones.dropout(rate(p), KEY, SaveMask::Replay).unwrap();
            let kept = |x: &Tensor| -> Vec<bool> { values(x).iter().map(|&x| x != 0.0).collect() };
            assert_eq!(kept(&found.unwrap()), kept(&mask), "{l} {s}, p = {p}");
        }
    }
}

#[test]
fn strides_do_not_show() {
    let plain = inputs(2, [4, 4], [70, 130], [8, 6]);
    let options = options().is_causal(true).dropout(rate(0.2), KEY);
    let run = |inputs: &[Tensor; 3]| {
        all(inputs, |[query, key, value]| {
            query.scaled_dot_product_attention(key, value, options)
        })
    };
    let expected = run(&plain);
    // [B, L, H, E] with axes 1 and 2 changed places, and the last two.
    for (a, b) in [(1, 2), (-1, -2), (0, -1)] {
        let view = |x: &Tensor| {
            x.transpose(a, b)
                .unwrap()
                .contiguous()
                .unwrap()
                .transpose(a, b)
                .unwrap()
        };
        let views = plain.each_ref().map(view);
        assert!(views.iter().all(|x| !x.is_contiguous()));
        assert_near(&run(&views), &expected, 1e-12, &format!("axes {a} and {b}"));
    }
    let narrow = plain.each_ref().map(|x| x.to_dtype(DType::BF16).unwrap());
    let view = |x: &Tensor| {
        x.transpose(-1, -2)
            .unwrap()
            .contiguous()
            .unwrap()
            .transpose(-1, -2)
            .unwrap()
    };
    assert_near(
        &run(&narrow.each_ref().map(view)),
        &run(&narrow),
        1e-6,
        "bf16",
    );
    // Keys and values that repeat.
    let [query, key, value] = &plain;
    let [key, value] = [key, value].map(|x| x.slice(2, 0..1).unwrap());
    let repeated = [
        query.clone(),
        key.expand([2, 4, 130, 8]).unwrap(),
        value.expand([2, 4, 130, 6]).unwrap(),
    ];
    let copies = repeated.each_ref().map(|x| x.contiguous().unwrap());
    assert_near(&run(&repeated), &run(&copies), 1e-12, "repeated");
    // Fewer axes.
    let first = plain.each_ref().map(|x| {
        x.slice(0, 0..1)
            .unwrap()
            .slice(1, 0..1)
            .unwrap()
            .squeeze_all()
            .unwrap()
    });
    let y = first[0]
        .scaled_dot_product_attention(&first[1], &first[2], options)
        .unwrap();
    assert_eq!(values(&y), values(&expected[0])[..70 * 6]);
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let mask = tensor([
        [0.0, 0.5, HIDDEN, 0.0, -1.0],
        [HIDDEN; 5],
        [0.0, HIDDEN, 0.1, 0.0, 0.0],
    ]);
    let inputs = inputs(1, [4, 2], [3, 5], [2, 3]);
    let [query, key, value] = inputs.clone();
    let with_mask = [query, key, value, random(&[4, 1, 5], 6)];
    check_gradients(&with_mask, |x| {
        let options = options().attn_mask(&x[3]).dropout(rate(0.4), KEY);
        x[0].scaled_dot_product_attention(&x[1], &x[2], options.enable_gqa(true))
    });
    for options in [
        options().dropout(rate(0.4), KEY),
        options()
            .attn_mask(&mask)
            .scale(0.9)
            .dropout(rate(0.4), KEY),
        options().is_causal(true).first_query(1),
    ] {
        check_gradients(&inputs, |x| {
            x[0].scaled_dot_product_attention(&x[1], &x[2], options.enable_gqa(true))
        });
    }
}

#[test]
fn the_gradient_of_a_mask_is_the_one_that_the_matrix_gives() {
    let [h, l, s] = [2, 70, 520];
    let wide = inputs(2, [h, 1], [l, s], [8, 5]);
    let masks: [&[usize]; 9] = [
        &[2, h, l, s],
        &[2, 1, l, s],
        &[h, l, s],
        &[l, s],
        &[2, 1, 1, s],
        &[h, l, 1],
        &[h, 1, 1],
        &[s],
        &[],
    ];
    let scale = 8.0_f64.sqrt().recip();
    let cases = |shape| {
        [
            (shape, DType::F64, 1e-11, false),
            (shape, DType::F64, 1e-11, true),
            (shape, DType::F32, 1e-4, true),
        ]
    };
    for (shape, dtype, off, is_causal) in masks.into_iter().flat_map(cases) {
        let inputs = wide.each_ref().map(|x| x.to_dtype(dtype).unwrap());
        let causal = causal(l, s).to_dtype(dtype).unwrap();
        let mask = random(shape, 5).to_dtype(dtype).unwrap();
        let gradient = |f: &dyn Fn(&Tensor) -> Result<Tensor>| {
            let mask = mask.requires_grad(true);
            let y = f(&mask).unwrap();
            let weights = random(y.shape(), 99).to_dtype(dtype).unwrap();
            y.backward_with(&weights).unwrap();
            mask.grad().unwrap()
        };
        let found = gradient(&|mask| {
            let options = options().is_causal(is_causal).attn_mask(mask);
            let options = options.enable_gqa(true).dropout(rate(0.2), KEY);
            inputs[0].scaled_dot_product_attention(&inputs[1], &inputs[2], options)
        });
        let expected = gradient(&|mask| {
            let whole = if is_causal {
                mask.add(&causal)?
            } else {
                mask.clone()
            };
            by_matrix(&inputs, Some(&whole), scale, 0.2)
        });
        assert_eq!(found.shape(), shape);
        let (found, expected) = (values(&found), values(&expected));
        // What is the same for all keys of a query changes nothing: sums to 0, of terms up to 1.
        let most = expected.iter().fold(1.0, |most: f64, x| most.max(x.abs()));
        for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
            let what = format!("{dtype} {shape:?}, causal: {is_causal}, {i}");
            assert!((a - b).abs() <= off * most, "{what}: {a}, {b}");
        }
    }
}

#[test]
fn a_mask_that_hides_has_the_gradient_zero_where_it_does() {
    let inputs = inputs(1, [2, 2], [3, 4], [2, 3]);
    let mask = tensor([[0.5, HIDDEN, 0.0, 1.0], [HIDDEN; 4], [0.0; 4]]).requires_grad(true);
    let options = options().attn_mask(&mask).dropout(rate(0.3), KEY);
    let y = inputs[0].scaled_dot_product_attention(&inputs[1], &inputs[2], options);
    let y = y.unwrap();
    y.backward_with(&random(y.shape(), 99)).unwrap();
    let of_mask = values(&mask.grad().unwrap());
    assert!(of_mask.iter().all(|x| x.is_finite()), "{of_mask:?}");
    assert_eq!(of_mask[1], 0.0);
    assert_eq!(of_mask[4..8], [0.0; 4]);
    assert!([0, 2, 3, 8, 9].iter().all(|&i| of_mask[i] != 0.0));
}

#[test]
fn a_query_that_sees_nothing_is_zeros_and_so_are_its_gradients() {
    for dtype in DTYPES {
        let inputs = inputs(1, [1, 1], [3, 600], [4, 4]).map(|x| x.to_dtype(dtype).unwrap());
        let mask = tensor([[0.0], [HIDDEN], [1.0]]).to_dtype(dtype).unwrap();
        let options = options().attn_mask(&mask).dropout(rate(0.5), KEY);
        let [y, query, key, value] = all(&inputs, |[query, key, value]| {
            query.scaled_dot_product_attention(key, value, options)
        });
        for x in [&y, &query] {
            let x = values(x);
            assert_eq!(x[4..8], [0.0; 4], "{dtype}");
            assert!(
                x[..4]
                    .iter()
                    .chain(&x[8..])
                    .all(|x| x.is_finite() && *x != 0.0),
                "{dtype}"
            );
        }
        assert!(
            values(&key)
                .iter()
                .chain(&values(&value))
                .all(|x| x.is_finite())
        );
        // No query sees anything.
        let mask = tensor([HIDDEN]).to_dtype(dtype).unwrap();
        let options = options.attn_mask(&mask);
        let all = all(&inputs, |[query, key, value]| {
            query.scaled_dot_product_attention(key, value, options)
        });
        assert!(all.iter().flat_map(values).all(|x| x == 0.0), "{dtype}");
    }
    // Keys that come later, and nothing else, hide what is in them.
    let x = random(&[3, 4], 1);
    let later = tensor([[0.0; 4], [0.0; 4], [f64::NAN; 4]]);
    let y = x.scaled_dot_product_attention(&x, &x.add(&later).unwrap(), options().is_causal(true));
    assert!(values(&y.unwrap())[8..].iter().all(|x| x.is_nan()));
}

#[test]
fn nothing_to_attend_to_and_nothing_that_attends() {
    for (lengths, widths) in [
        ([4, 0], [3, 2]),
        ([0, 4], [3, 2]),
        ([4, 5], [3, 0]),
        ([4, 5], [0, 2]),
    ] {
        let inputs = inputs(2, [2, 2], lengths, widths);
        let found = all(&inputs, |[query, key, value]| {
            query.scaled_dot_product_attention(key, value, options().dropout(rate(0.5), KEY))
        });
        assert_eq!(found[0].shape(), [2, 2, lengths[0], widths[1]]);
        assert!(found.iter().flat_map(values).all(f64::is_finite));
        if lengths[1] == 0 {
            assert!(values(&found[0]).iter().all(|&x| x == 0.0));
        }
    }
    let none = random(&[0, 2, 3, 4], 1);
    let y = none
        .scaled_dot_product_attention(&none, &none, options())
        .unwrap();
    assert_eq!(y.shape(), [0, 2, 3, 4]);
}

#[test]
fn the_number_of_threads_does_not_show() {
    let wide = inputs(2, [4, 2], [200, 520], [8, 8]);
    for dtype in [DType::BF16, DType::F32, DType::F64] {
        let inputs = wide.each_ref().map(|x| x.to_dtype(dtype).unwrap());
        let run = |threads| {
            let mask = random(&[200, 520], 5).to_dtype(dtype).unwrap();
            let mask = mask.requires_grad(true);
            let found = pool(threads).install(|| {
                all(&inputs, |[query, key, value]| {
                    let options = options().enable_gqa(true).attn_mask(&mask);
                    let options = options.dropout(rate(0.1), KEY);
                    query.scaled_dot_product_attention(key, value, options)
                })
            });
            let of_mask = mask.grad().unwrap().to_le_bytes().unwrap();
            (found.map(|x| x.to_le_bytes().unwrap()), of_mask)
        };
        let one = run(1);
        assert!(one == run(2) && one == run(5), "{dtype}");
    }
}

#[test]
fn the_number_of_samples_and_heads_does_not_show() {
    let [query, key, value] = inputs(3, [4, 4], [70, 90], [8, 8]);
    let attend = |x: [&Tensor; 3]| x[0].scaled_dot_product_attention(x[1], x[2], options());
    let together = attend([&query, &key, &value])
        .unwrap()
        .slice(0, 1..2)
        .unwrap();
    let [query, key, value] = [&query, &key, &value].map(|x| x.slice(0, 1..2).unwrap());
    assert_eq!(
        values(&attend([&query, &key, &value]).unwrap()),
        values(&together)
    );
}

#[test]
fn heads_and_queries_that_are_cut_get_their_part_of_the_mask() {
    let scores = [2, 4, 128, 90];
    let whole = inputs(2, [4, 4], [128, 90], [8, 8]);
    let run = |inputs: &[Tensor; 3], first: usize, at: MaskRegion| {
        all(inputs, |[query, key, value]| {
            let options = options().is_causal(true).first_query(first);
            query.scaled_dot_product_attention(key, value, options.dropout(rate(0.3), at))
        })
    };
    let expected = run(&whole, 0, KEY.into());
    for (axis, pieces) in [(0, 2), (1, 2), (2, 2)] {
        let width = scores[axis] / pieces;
        let mut parts = Vec::new();
        for w in 0..pieces {
            let range = w * width..(w + 1) * width;
            let at = KEY.shard(&scores, axis, range.clone()).unwrap();
            let cut = |x: &Tensor| x.slice(axis as isize, range.clone()).unwrap();
            // Queries alone are cut by rows, as every one sees all keys.
            let [query, key, value] = &whole;
            let (part, first) = match axis {
                2 => ([cut(query), key.clone(), value.clone()], range.start),
                _ => (whole.each_ref().map(cut), 0),
            };
            // The weights of the sum that is differentiated are those of the whole.
            let weights = cut(&random(&[2, 4, 128, 8], 99));
            let leaves = part.each_ref().map(|x| x.requires_grad(true));
            let options = options().is_causal(true).first_query(first);
            let options = options.dropout(rate(0.3), at);
            let y = leaves[0].scaled_dot_product_attention(&leaves[1], &leaves[2], options);
            let y = y.unwrap();
            y.backward_with(&weights).unwrap();
            let [query, key, value] = leaves.map(|x| x.grad().unwrap());
            parts.push([y, query, key, value]);
        }
        let joined = [0, 1, 2, 3].map(|i| {
            let parts: Vec<&Tensor> = parts.iter().map(|part| &part[i]).collect();
            match (axis, i) {
                (2, 2 | 3) => parts[0].add(parts[1]).unwrap(),
                _ => Tensor::concat(&parts, axis as isize).unwrap(),
            }
        });
        assert_near(&joined, &expected, 1e-13, &format!("axis {axis}"));
    }
}

#[test]
fn a_checkpoint_makes_the_same_again() {
    let inputs = inputs(1, [2, 2], [5, 7], [4, 4]);
    let attend = |x: &[Tensor]| {
        let key = taped_key(|| KEY);
        let options = options().dropout(rate(0.5), key);
        x[0].scaled_dot_product_attention(&x[1], &x[2], options)
    };
    let plain = all(&inputs, |x| attend(x));
    let again = all(&inputs, |[query, key, value]| {
        checkpoint::<_, Error>(attend, &[query, key, value])
    });
    assert_eq!(plain.map(|x| values(&x)), again.map(|x| values(&x)));
}

#[test]
fn only_gradients_that_are_wanted_are_made() {
    let inputs = inputs(1, [2, 2], [5, 7], [4, 4]);
    let run = |wanted: [bool; 3]| {
        let mut leaves = inputs.clone();
        for (leaf, wanted) in leaves.iter_mut().zip(wanted) {
            *leaf = leaf.requires_grad(wanted);
        }
        let options = options().dropout(rate(0.5), KEY);
        let y = leaves[0].scaled_dot_product_attention(&leaves[1], &leaves[2], options);
        y.unwrap().sum().unwrap().backward().unwrap();
        leaves.map(|x| x.grad().map(|x| values(&x)))
    };
    let all = run([true; 3]);
    for k in 0..3 {
        let wanted = [0, 1, 2].map(|i| i == k);
        let found = run(wanted);
        for i in 0..3 {
            assert_eq!(found[i], all[i].clone().filter(|_| i == k), "{k}, {i}");
        }
    }
}

#[test]
fn without_a_graph_it_is_the_same() {
    let wide = inputs(2, [4, 2], [70, 530], [8, 5]);
    let mask = random(&[2, 1, 70, 530], 5);
    for dtype in DTYPES {
        let inputs = wide.each_ref().map(|x| x.to_dtype(dtype).unwrap());
        let mask = mask.to_dtype(dtype).unwrap();
        let options = options()
            .attn_mask(&mask)
            .dropout(rate(0.3), KEY)
            .is_causal(true)
            .first_query(7)
            .enable_gqa(true);
        let [y, of_query, of_key, of_value] = all(&inputs, |[query, key, value]| {
            query.scaled_dot_product_attention(key, value, options)
        });
        let [query, key, value] = &inputs;
        let (output, logsumexp) = options.forward(query, key, value).unwrap();
        assert_eq!(output.dtype(), dtype.arithmetic());
        let rounded = output.to_dtype(dtype).unwrap();
        assert_eq!(values(&rounded), values(&y), "{dtype}");
        let grad = random(y.shape(), 99).to_dtype(dtype).unwrap();
        let leaf = mask.requires_grad(true);
        leaf.set_grad_dtype(dtype.arithmetic()).unwrap();
        let with_leaf = options.attn_mask(&leaf);
        let y = query.scaled_dot_product_attention(key, value, with_leaf);
        y.unwrap().backward_with(&grad).unwrap();
        let expected = [of_query, of_key, of_value, leaf.grad().unwrap()];
        for wanted in [
            [true; 4],
            [false, true, false, false],
            [true, false, false, true],
            [false, false, false, true],
        ] {
            let given = inputs.each_ref();
            let made = options.backward(given, &output, &logsumexp, &grad, wanted);
            for (k, (made, expected)) in made.unwrap().iter().zip(&expected).enumerate() {
                assert_eq!(made.is_some(), wanted[k]);
                if let Some(made) = made {
                    assert_eq!(made.dtype(), dtype.arithmetic());
                    assert_eq!(values(made), values(expected), "{dtype}: {k}");
                }
            }
        }
    }

    let [query, key, value] = &wide;
    let (_, logsumexp) = options()
        .scale(0.5)
        .enable_gqa(true)
        .forward(query, key, value)
        .unwrap();
    let (query, key) = (query.slice(1, 2..3).unwrap(), key.slice(1, 1..2).unwrap());
    let scores = query.matmul(&key.transpose(-1, -2).unwrap()).unwrap();
    let expected = scores.mul_scalar(0.5).unwrap().logsumexp_over(-1).unwrap();
    let found = logsumexp.slice(1, 2..3).unwrap();
    for (found, expected) in values(&found).iter().zip(values(&expected)) {
        assert!((found - expected).abs() < 1e-12, "{found}, {expected}");
    }
}

#[test]
fn what_does_not_fit_to_a_forward_is_an_error_of_backward() {
    let [query, key, value] = inputs(1, [1, 1], [3, 4], [2, 5]);
    let (y, logsumexp) = options().forward(&query, &key, &value).unwrap();
    let backward = |y: &Tensor, logsumexp: &Tensor, grad: &Tensor| {
        let inputs = [&query, &key, &value];
        let made = options().backward(inputs, y, logsumexp, grad, [true; 4]);
        made.unwrap_err().to_string()
    };
    let text = backward(&y, &logsumexp, &query);
    assert!(
        text.contains("scaled_dot_product_attention_backward"),
        "{text}"
    );
    assert!(
        text.contains("[1, 1, 3, 5]") && text.contains("[1, 1, 3, 2]"),
        "{text}"
    );
    let text = backward(&y, &y, &y);
    assert!(text.contains("[1, 1, 3]"), "{text}");
    let text = backward(&query, &logsumexp, &y);
    assert!(text.contains("[1, 1, 3, 2]"), "{text}");
    let text = backward(&y, &logsumexp, &y.to_dtype(DType::F32).unwrap());
    assert!(
        text.contains("expected dtype sorix.float64, got sorix.float32"),
        "{text}"
    );
}

#[test]
fn what_does_not_fit_is_an_error() {
    let [query, key, value] = inputs(2, [4, 2], [3, 5], [2, 6]);
    let run = |key: &Tensor, value: &Tensor, options: AttentionOptions<&Tensor>| {
        let y = query.scaled_dot_product_attention(key, value, options);
        y.unwrap_err().to_string()
    };
    let what = "scaled_dot_product_attention(float64[2, 4, 3, 2], float64[2, 2, 5, 2], float64[2, 2, 5, 6]";
    assert_eq!(
        run(&key, &value, options()),
        format!("{what}): expected shape [2, 4, 5, 2], got [2, 2, 5, 2]")
    );
    let gqa = options().enable_gqa(true);
    assert!(run(&key, &query, gqa).ends_with("expected shape [2, 2, 5, 2], got [2, 4, 3, 2]"));
    let three = random(&[2, 3, 5, 2], 1);
    assert!(run(&three, &value, gqa).ends_with("expected shape [2, 4, 5, 2], got [2, 3, 5, 2]"));
    let narrow = value.to_dtype(DType::F32).unwrap();
    assert!(run(&key, &narrow, gqa).ends_with("expected dtype sorix.float64, got sorix.float32"));
    let mask = random(&[4, 1, 4], 1);
    assert_eq!(
        run(&key, &value, gqa.attn_mask(&mask)),
        format!("{what}, float64[4, 1, 4]): shapes [4, 1, 4] and [2, 4, 3, 5] do not broadcast")
    );
    let shard = KEY.shard(&[2, 4, 3, 5], 1, 0..2).unwrap();
    assert_eq!(
        run(&key, &value, gqa.dropout(rate(0.5), shard)),
        format!("{what}): length of shard: expected 60, got 120")
    );
    let row = random(&[4], 1);
    assert_eq!(
        row.scaled_dot_product_attention(&row, &row, options())
            .unwrap_err()
            .to_string(),
        "scaled_dot_product_attention(float64[4], float64[4], float64[4]): axis -2 is out of range"
    );
}
