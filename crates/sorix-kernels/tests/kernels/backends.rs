//! Every backend this CPU has, by name, against the oracle: held to the conformance kit, and driven
//! through every method of the engine.

use half::{bf16, f16};
use sorix_kernels::backend::Backend;
use sorix_kernels::backend::conformance::check_backend;
use sorix_kernels::backend::reference::Reference;
use sorix_kernels::stream::TILE;
use sorix_kernels::{Affine, BitMask, Broadcast, Buffers, Element, Engine, MaskKey, dispatch};

use crate::common::{self, rate};

/// Runs `check` for every backend but the oracle, saying which.
fn for_each_backend(check: impl Fn(&'static dyn Backend)) {
    common::for_each_backend(|engine| {
        if engine.backend().name() != "reference" {
            check(engine.backend());
        }
    });
}

/// With `SORIX_REQUIRE_BACKENDS=avx2,avx512`, a machine that lacks one fails instead of testing
/// less.
#[test]
fn required_backends_are_available() {
    let names: Vec<_> = dispatch::available()
        .iter()
        .map(|backend| backend.name())
        .collect();
    println!("available: {}", names.join(", "));
    assert!(names.ends_with(&["portable", "reference"]), "{names:?}");
    for required in std::env::var("SORIX_REQUIRE_BACKENDS")
        .iter()
        .flat_map(|list| list.split(','))
    {
        assert!(
            names.contains(&required),
            "{required} is required, this machine has {names:?}"
        );
    }
    #[cfg(target_arch = "aarch64")]
    assert!(names.contains(&"neon"));
}

#[test]
fn every_backend_conforms_to_the_reference() {
    for_each_backend(|backend| match check_backend(backend) {
        Ok(report) => println!("{report}"),
        Err(failure) => panic!("{failure}"),
    });
}

/// The kit checks what a backend does with jobs; this, that every method of the engine makes the
/// right job for every element type, whichever stores it chooses.
#[test]
fn every_method_of_the_engine_agrees_with_the_oracle() {
    fn check<T: Element>(backend: &dyn Backend, from_f64: fn(f64) -> T) {
        let (rate, at) = (rate(0.3), MaskKey::new(1, 7).window(TILE as u64 - 256));
        let x: Vec<T> = (0..9000).map(|i| from_f64(f64::from(i) - 99.5)).collect();
        let (mut want, mut mask) = (x.clone(), BitMask::new(x.len()));
        let oracle = Engine::new(&Reference).sequential();
        oracle
            .forward(rate, at, Buffers::new(&x, &mut want).unwrap(), &mut mask)
            .unwrap();

        for streaming_above in [0, usize::MAX] {
            let tested = Engine::new(backend).streaming_above(streaming_above);
            let mut y = x.clone();
            let same = |method: &str, y: &mut [T], bits: &mut BitMask| {
                let equal = bytemuck::cast_slice::<T, u8>(y) == bytemuck::cast_slice(&want);
                assert!(equal, "{method} of {} {}", backend.name(), T::NAME);
                assert_eq!(bits.words(), mask.words(), "{method} of {}", backend.name());
                y.copy_from_slice(&x);
                bits.fill(true);
            };
            let bits = &mut BitMask::new(x.len());
            tested.fill_mask(rate, at, bits).unwrap();
            assert_eq!(bits, &mask);
            bits.fill(true);
            tested
                .forward(rate, at, Buffers::new(&x, &mut y).unwrap(), bits)
                .unwrap();
            same("forward", &mut y, bits);
            tested
                .forward(rate, at, Buffers::in_place(&mut y), bits)
                .unwrap();
            same("forward_in_place", &mut y, bits);

            let same = |method: &str, y: &mut [T]| same(method, y, &mut mask.clone());
            tested
                .apply(rate, &mask, Buffers::new(&x, &mut y).unwrap())
                .unwrap();
            same("backward", &mut y);
            tested
                .apply(rate, &mask, Buffers::in_place(&mut y))
                .unwrap();
            same("backward_in_place", &mut y);
            tested
                .apply(rate, &mask, Buffers::new(&x, &mut y).unwrap())
                .unwrap();
            same("apply", &mut y);
            tested
                .apply(rate, &mask, Buffers::in_place(&mut y))
                .unwrap();
            same("apply_in_place", &mut y);
            tested
                .replay(rate, at, Buffers::new(&x, &mut y).unwrap())
                .unwrap();
            same("replay", &mut y);
            tested.replay(rate, at, Buffers::in_place(&mut y)).unwrap();
            same("replay_in_place", &mut y);
        }
    }
    for_each_backend(|backend| {
        check::<f32>(backend, |x| x as f32);
        check::<f64>(backend, |x| x);
        check(backend, bf16::from_f64);
        check(backend, f16::from_f64);
    });
}

#[test]
fn a_view_of_a_mask_serves_any_part() {
    let mask = BitMask::from_bools(&std::array::from_fn::<_, 1000, _>(|i| i * i % 7 < 3));
    let rate = rate(0.5);
    let x: Vec<f32> = (0..1000).map(|i| i as f32).collect();
    for_each_backend(|backend| {
        for (begin, end) in [
            (0, 1000),
            (1, 1000),
            (63, 700),
            (64, 65),
            (65, 400),
            (999, 1000),
            (5, 5),
        ] {
            let mut y = vec![f32::NAN; end - begin];
            let part = mask.slice(begin..end).unwrap();
            Engine::new(backend)
                .apply(rate, part, Buffers::new(&x[begin..end], &mut y).unwrap())
                .unwrap();
            for (i, y) in (begin..end).zip(y) {
                assert_eq!(
                    y,
                    if i * i % 7 < 3 { 2.0 * i as f32 } else { 0.0 },
                    "element {i}"
                );
            }
        }
    });
}

/// Every bf16 and every f16, with scales whose products lie half way between two numbers of the type
/// (p = 0.2 is 1.25, 0.6 is 2.5), and with scales whose products never do.
#[test]
fn every_16_bit_number_is_rounded_as_the_oracle_does() {
    fn check<T: Element>(backend: &dyn Backend, from_bits: fn(u16) -> T) {
        let x: Vec<T> = (0..=u16::MAX).map(from_bits).collect();
        let all_kept = BitMask::from_bools(&vec![true; x.len()]);
        let (mut y, mut want) = (x.clone(), x.clone());
        for p in [0.1, 0.2, 0.25, 0.3, 0.5, 0.6, 0.75, 0.9, 0.999, 1.0 - 1e-9] {
            let rate = rate(p);
            let oracle = Engine::new(&Reference).sequential();
            oracle
                .apply(rate, &all_kept, Buffers::new(&x, &mut want).unwrap())
                .unwrap();
            let tested = Engine::new(backend);
            tested
                .apply(rate, &all_kept, Buffers::new(&x, &mut y).unwrap())
                .unwrap();
            let wrong =
                (0..x.len()).find(|&i| bytemuck::bytes_of(&y[i]) != bytemuck::bytes_of(&want[i]));
            if let Some(i) = wrong {
                panic!(
                    "{} {} p = {p}: bits {i:#06x} became {:?}, expected {:?}",
                    backend.name(),
                    T::NAME,
                    y[i],
                    want[i]
                );
            }
        }
    }
    for_each_backend(|backend| {
        check(backend, bf16::from_bits);
        check(backend, f16::from_bits);
    });
}

/// A NaN whose payload, rounded to f32 and carried up, would end as `-0.0`.
#[test]
fn a_scale_that_is_not_a_number_makes_everything_kept_not_a_number() {
    let scale = f64::from_bits(i64::MAX.cast_unsigned());
    for_each_backend(|backend| {
        let (mask, all) = (BitMask::from_bools(&[true; 70]), Broadcast::full(70));
        let mut y = [bf16::ZERO; 70];
        let engine = Engine::new(backend);
        let x = [bf16::ONE; 70];
        engine
            .apply_affine(
                Affine::scale(scale),
                &mask,
                &all,
                Buffers::new(&x, &mut y).unwrap(),
            )
            .unwrap();
        assert!(y.iter().all(|y| y.is_nan()), "{} {y:?}", backend.name());
    });
}
