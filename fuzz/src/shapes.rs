//! Small masks over larger tensors, and the parts of a mask that workers ask for, both against
//! indices counted out axis by axis.

use arbitrary::Arbitrary;
use half::bf16;
use sorix::kernels::{Affine, BitMask, Broadcast, Buffers, Element, Engine, Error, MaskRegion};

use crate::inputs::{AnyBackend, Rate, Shape, Window};
use crate::kernels::keep_bits;

#[derive(Arbitrary, Debug)]
struct Case {
    backend: AnyBackend,
    rate: Rate,
    window: Window,
    shape: Shape,
    /// Where the mask is 1; from the fourth bit on, where it is something else.
    mask_shape: u8,
    affine: Option<[f32; 3]>,
    in_place: bool,
    half: bool,
    /// The axis that is cut, and where.
    axis: u8,
    range: [u8; 2],
    /// The residual that is added to what is kept, without an affine map; last, so that in seeds what comes
    /// before means what it meant.
    residual: Option<i8>,
}

/// The target.
pub fn run(data: &[u8]) {
    crate::with_arbitrary(data, |case: Case| {
        cover(&case);
        shard(&case);
    });
}

/// The index along each axis of element `i`.
fn indices(shape: &[usize], mut i: usize) -> Vec<usize> {
    let mut index: Vec<usize> = shape
        .iter()
        .rev()
        .map(|&len| {
            let along = i % len;
            i /= len;
            along
        })
        .collect();
    index.reverse();
    index
}

/// The element at `index`, where axes of length 1 have one element for all.
fn flat(shape: &[usize], index: &[usize]) -> usize {
    shape.iter().zip(index).fold(0, |i, (&len, &along)| {
        i * len + if len == 1 { 0 } else { along }
    })
}

fn cover(case: &Case) {
    let Shape(shape) = &case.shape;
    let mask_shape: Vec<usize> = shape
        .iter()
        .enumerate()
        .map(
            |(axis, &len)| match (case.mask_shape >> axis, case.mask_shape >> (axis + 4)) {
                (_, wrong) if wrong & 1 == 1 && case.mask_shape >> 7 == 1 => len + 1,
                (one, _) if one & 1 == 1 => 1,
                _ => len,
            },
        )
        .collect();
    let fits = |(&mask_len, &len): (&usize, &usize)| mask_len == len || mask_len == 1;
    let covers = Broadcast::new(shape, &mask_shape);
    assert_eq!(
        covers.is_ok(),
        mask_shape.iter().zip(shape).all(fits),
        "{case:?}"
    );
    let Ok(covers) = covers else { return };
    let bit_of = |i: usize| flat(&mask_shape, &indices(shape, i));
    for i in 0..covers.len() {
        assert_eq!(covers.bit_of(i), bit_of(i), "{case:?}: element {i}");
    }

    let mask = keep_bits(case.rate.0, case.window.0.key.into(), covers.mask_len());
    let keep: Vec<bool> = (0..covers.len())
        .map(|i| mask.get(bit_of(i)) == Some(true))
        .collect();
    if case.half {
        apply(case, &covers, &mask, &keep, |x| bf16::from_f32(x as f32));
    } else {
        apply(case, &covers, &mask, &keep, |x| x);
    }
}

/// What kept and dropped elements become, in the type itself: numbers of few bits, so that nothing is
/// rounded but the scale.
fn apply<T: Element>(
    case: &Case,
    covers: &Broadcast,
    mask: &BitMask,
    keep: &[bool],
    of: impl Fn(f64) -> T,
) {
    let Rate(rate) = case.rate;
    let engine = Engine::new(case.backend.0);
    let x: Vec<T> = (0..covers.len())
        .map(|i| of((i % 31) as f64 - 15.0))
        .collect();
    let mut y = x.clone();
    let residual: Vec<T> = (0..covers.len())
        .map(|i| of((i % 13) as f64 + case.residual.map_or(0.0, f64::from)))
        .collect();
    let expected: Vec<T> = match case.affine {
        None if case.residual.is_some() => {
            y.copy_from_slice(&residual);
            let buffers = if case.in_place {
                Buffers::in_place(&mut y)
            } else {
                Buffers::new(&residual, &mut y).unwrap()
            };
            let result = buffers.with_elements(&x).map_err(Error::from);
            let result = result
                .and_then(|buffers| engine.dropout_add_broadcast(rate, mask, covers, buffers));
            assert_eq!(result, Ok(()), "{case:?}");
            let sum = |(x, residual): (&T, &T)| {
                let product = T::Scale::narrow(x.widened() * T::scale(rate));
                T::narrow(residual.widened() + product)
            };
            let each = x.iter().zip(&residual).zip(keep);
            each.map(|(pair, &keep)| if keep { sum(pair) } else { *pair.1 })
                .collect()
        }
        None => {
            let result = if case.in_place {
                engine.apply_broadcast(rate, mask, covers, Buffers::in_place(&mut y))
            } else {
                engine.apply_broadcast(rate, mask, covers, Buffers::new(&x, &mut y).unwrap())
            };
            assert_eq!(result, Ok(()), "{case:?}");
            let kept = |&x: &T| {
                if rate.p() == 0.0 {
                    x
                } else {
                    x.times(T::scale(rate))
                }
            };
            let each = x.iter().zip(keep);
            each.map(|(x, &keep)| if keep { kept(x) } else { T::ZERO })
                .collect()
        }
        Some(numbers) => {
            let [scale, shift, dropped] = numbers.map(f64::from);
            let affine = Affine {
                scale,
                shift,
                dropped,
            };
            let result = if case.in_place {
                engine.apply_affine(affine, mask, covers, Buffers::in_place(&mut y))
            } else {
                engine.apply_affine(affine, mask, covers, Buffers::new(&x, &mut y).unwrap())
            };
            assert_eq!(result, Ok(()), "{case:?}");
            // Without a shift it is a multiplication.
            let kept = |&x: &T| {
                if shift == 0.0 && dropped.to_bits() == 0 {
                    x.times(T::factor(scale))
                } else {
                    x.times_plus(T::factor(scale), T::factor(shift))
                }
            };
            let dropped = T::narrow(T::factor(dropped));
            let each = x.iter().zip(keep);
            each.map(|(x, &keep)| if keep { kept(x) } else { dropped })
                .collect()
        }
    };
    for (i, (got, want)) in y.iter().zip(&expected).enumerate() {
        // One NaN is as good as another.
        let is_nan = |x: &T| x.partial_cmp(x).is_none();
        let both_nan = is_nan(got) && is_nan(want);
        assert!(
            both_nan || bytemuck::bytes_of(got) == bytemuck::bytes_of(want),
            "{case:?}: element {i} is {got:?}, expected {want:?}"
        );
    }
}

fn shard(case: &Case) {
    let Shape(shape) = &case.shape;
    let (axis, key) = (usize::from(case.axis % 5), case.window.0.key);
    let [start, end] = case.range.map(|i| usize::from(i % 24));
    let fits = start <= end && shape.get(axis).is_some_and(|&len| end <= len);
    let region = key.shard(shape, axis, start..end);
    assert_eq!(region.is_ok(), fits, "{case:?}: {region:?}");
    let Ok(region) = region else { return };
    check_region(case, region, axis, start..end);
}

fn check_region(case: &Case, region: MaskRegion, axis: usize, range: core::ops::Range<usize>) {
    let (Rate(rate), Shape(shape)) = (case.rate, &case.shape);
    let whole = keep_bits(rate, case.window.0.key.into(), shape.iter().product());
    let of_part: Vec<bool> = (0..whole.len())
        .filter(|&i| range.contains(&indices(shape, i)[axis]))
        .map(|i| whole.get(i) == Some(true))
        .collect();
    assert_eq!(region.len(), Some(of_part.len()), "{case:?}");

    let engine = Engine::new(case.backend.0);
    let mut mask = BitMask::new(of_part.len());
    assert_eq!(
        engine.fill_mask(rate, region, &mut mask),
        Ok(()),
        "{case:?}"
    );
    assert_eq!(mask.to_bools(), of_part, "{case:?}");
    let x = vec![1.0_f32; of_part.len()];
    let (mut y, mut replayed) = (x.clone(), x.clone());
    let forward = engine.forward(rate, region, Buffers::new(&x, &mut y).unwrap(), &mut mask);
    assert_eq!(forward, Ok(()), "{case:?}");
    let replay = engine.replay(rate, region, Buffers::new(&x, &mut replayed).unwrap());
    assert_eq!(replay, Ok(()), "{case:?}");
    assert_eq!(mask.to_bools(), of_part, "{case:?}");
    assert_eq!(y, replayed, "{case:?}");
    assert!(
        y.iter().zip(&of_part).all(|(&y, &keep)| (y != 0.0) == keep),
        "{case:?}"
    );

    // A buffer of another length is refused and left alone.
    let mut longer = BitMask::new(of_part.len() + 1);
    assert!(
        engine.fill_mask(rate, region, &mut longer).is_err(),
        "{case:?}"
    );
    assert_eq!(longer.count_kept(), 0, "{case:?}");
}
