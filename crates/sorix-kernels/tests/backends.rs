//! Every backend this CPU has, by name, against the oracle: equal by bits, whatever the length, the
//! alignment, the window, the rate and the values.

use half::{bf16, f16};
use sorix_kernels::{
    Backend, BitMask, DropRate, Element, Engine, MaskKey, MaskWindow, dispatch,
    reference::Reference,
};

/// Runs `check` for every backend but the oracle, saying which.
fn for_each_backend(check: impl Fn(&'static dyn Backend)) {
    for &backend in dispatch::available() {
        if backend.name() != "reference" {
            println!("backend {}", backend.name());
            check(backend);
        }
    }
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

const RATES: [f64; 9] = [1e-10, 0.1, 0.25, 0.3, 0.5, 0.75, 0.9, 0.999, 1.0 - 1e-12];

/// Values that multiplication and rounding treat in every way there is, cyclically.
trait Samples: Element {
    fn sample(i: usize) -> Self;
    fn bits(self) -> u64;
}

const SPECIAL: [f64; 16] = [
    1.0,
    -1.0,
    0.0,
    -0.0,
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
    1e-40,
    -6e-8,
    65504.0,
    3.0e38,
    1e-310,
    1.5,
    -0.1,
    5.960_464_477_539_063e-8,
    1.797e308,
];

macro_rules! samples {
    ($t:ty, $from_f64:expr, $random:expr, $bits:expr) => {
        impl Samples for $t {
            fn sample(i: usize) -> Self {
                // Every bit pattern of 16 bits comes up over time; specials come up often.
                let hash = (i as u64)
                    .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                    .rotate_left(29);
                if i.is_multiple_of(3) {
                    $from_f64(SPECIAL[i / 3 % 16])
                } else {
                    $random(hash)
                }
            }

            fn bits(self) -> u64 {
                $bits(self)
            }
        }
    };
}

samples!(
    f32,
    |x| x as f32,
    |h: u64| f32::from_bits((h >> 16) as u32),
    |x: f32| x.to_bits().into()
);
samples!(f64, |x| x, f64::from_bits, f64::to_bits);
samples!(
    bf16,
    bf16::from_f64,
    |h: u64| bf16::from_bits((h >> 13) as u16),
    |x: bf16| x.to_bits().into()
);
samples!(
    f16,
    f16::from_f64,
    |h: u64| f16::from_bits((h >> 13) as u16),
    |x: f16| x.to_bits().into()
);

fn assert_same<T: Samples>(got: &[T], want: &[T], context: &dyn Fn() -> String) {
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert_eq!(
            got.bits(),
            want.bits(),
            "element {i}: {got} for {want}; {}",
            context()
        );
    }
}

/// All kernels on `len` elements whose output begins `misaligned` elements into a buffer.
fn check_kernels<T: Samples>(
    backend: &dyn Backend,
    p: f64,
    window: MaskWindow,
    len: usize,
    misaligned: usize,
) {
    let rate = DropRate::new(p).unwrap();
    let context = || {
        format!(
            "{} {} p={p} {window:?} len={len} +{misaligned}",
            backend.name(),
            T::NAME
        )
    };
    let (tested, oracle) = (
        Engine::new(backend).sequential(),
        Engine::new(&Reference).sequential(),
    );
    let x: Vec<T> = (0..len).map(|i| T::sample(i + len)).collect();

    let (mut want, mut want_mask) = (vec![T::ZERO; len], BitMask::new(len));
    oracle
        .forward(rate, window, &x, &mut want, &mut want_mask)
        .unwrap();

    // Canaries before and after: a kernel writes its output and nothing else.
    let canary = T::sample(1);
    let mut buffer = vec![canary; misaligned + len + 64];
    let check = |run: &dyn Fn(&mut [T]), buffer: &mut [T]| {
        run(&mut buffer[misaligned..misaligned + len]);
        assert_same(&buffer[misaligned..misaligned + len], &want, &context);
        let (before, after) = (&buffer[..misaligned], &buffer[misaligned + len..]);
        assert!(
            before
                .iter()
                .chain(after)
                .all(|x| x.bits() == canary.bits()),
            "{}",
            context()
        );
        buffer.fill(canary);
    };
    let mask =
        std::cell::RefCell::new(BitMask::from_words(vec![0; len.div_ceil(64)], len).unwrap());
    let check_mask = || {
        assert_eq!(mask.borrow().words(), want_mask.words(), "{}", context());
        mask.borrow_mut().fill(true);
    };

    tested
        .fill_mask(rate, window, &mut mask.borrow_mut())
        .unwrap();
    check_mask();
    check(
        &|y| {
            tested
                .forward(rate, window, &x, y, &mut mask.borrow_mut())
                .unwrap()
        },
        &mut buffer,
    );
    check_mask();
    check(
        &|y| tested.replay(rate, window, &x, y).unwrap(),
        &mut buffer,
    );
    check(
        &|y| tested.backward(rate, &want_mask, &x, y).unwrap(),
        &mut buffer,
    );
    check(
        &|y| tested.apply(rate, &want_mask, &x, y).unwrap(),
        &mut buffer,
    );
    check(
        &|y| {
            y.copy_from_slice(&x);
            tested
                .forward_in_place(rate, window, y, &mut mask.borrow_mut())
                .unwrap();
        },
        &mut buffer,
    );
    check_mask();
    for in_place in [Engine::backward_in_place, Engine::apply_in_place] {
        check(
            &|y| {
                y.copy_from_slice(&x);
                in_place(tested, rate, &want_mask, y).unwrap();
            },
            &mut buffer,
        );
    }
    check(
        &|y| {
            y.copy_from_slice(&x);
            tested.replay_in_place(rate, window, y).unwrap();
        },
        &mut buffer,
    );
}

fn check_dtypes(backend: &dyn Backend, p: f64, window: MaskWindow, len: usize, misaligned: usize) {
    check_kernels::<f32>(backend, p, window, len, misaligned);
    check_kernels::<f64>(backend, p, window, len, misaligned);
    check_kernels::<bf16>(backend, p, window, len, misaligned);
    check_kernels::<f16>(backend, p, window, len, misaligned);
}

const KEY: MaskKey = MaskKey {
    seed: 0x0123_4567_89AB_CDEF,
    offset: 7,
};

#[test]
fn every_length_to_300() {
    for_each_backend(|backend| {
        for len in 0..=300 {
            check_dtypes(backend, RATES[len % RATES.len()], KEY.into(), len, 0);
        }
    });
}

#[test]
fn every_rate_over_several_tiles() {
    for_each_backend(|backend| {
        for p in RATES {
            check_dtypes(backend, p, KEY.into(), 2 * 8192 + 577, 0);
        }
    });
}

/// The stores that large outputs get, at sizes that a test can afford.
#[test]
fn streaming_stores_write_the_same() {
    fn check<T: Samples>(backend: &dyn Backend, len: usize, misaligned: usize, first: u64) {
        let (rate, window) = (DropRate::new(0.3).unwrap(), KEY.window(first));
        let [streaming, ordinary] =
            [0, usize::MAX].map(|bytes| Engine::new(backend).sequential().streaming_above(bytes));
        let x: Vec<T> = (0..len).map(T::sample).collect();
        let run = |engine: Engine<'_>, buffer: &mut [T]| {
            let y = &mut buffer[misaligned..][..len];
            let mut mask = BitMask::new(len);
            engine.forward(rate, window, &x, y, &mut mask).unwrap();
            let forward = y.to_vec();
            y.fill(T::ZERO);
            engine.backward(rate, &mask, &x, y).unwrap();
            assert_same(y, &forward, &|| {
                format!("{} len={len} +{misaligned}", backend.name())
            });
            engine.replay(rate, window, &x, y).unwrap();
            assert_same(y, &forward, &|| {
                format!("{} len={len} +{misaligned}", backend.name())
            });
        };
        let [mut want, mut got] = [(); 2].map(|()| vec![T::sample(1); misaligned + len + 64]);
        run(ordinary, &mut want);
        run(streaming, &mut got);
        assert_same(&got, &want, &|| {
            format!("{} len={len} +{misaligned}", backend.name())
        });
    }
    for_each_backend(|backend| {
        for (len, first) in [(20_000, 0), (700, 0), (9000, 8192 - 256), (9000, 3), (5, 0)] {
            for misaligned in [0, 1, 7, 16, 31] {
                check::<f32>(backend, len, misaligned, first);
                check::<f64>(backend, len, misaligned, first);
                check::<bf16>(backend, len, misaligned, first);
                check::<f16>(backend, len, misaligned, first);
            }
        }
    });
}

#[test]
fn every_alignment() {
    for_each_backend(|backend| {
        for misaligned in 0..64 {
            check_dtypes(backend, 0.3, KEY.into(), 1100 + misaligned, misaligned);
        }
    });
}

#[test]
fn windows_at_every_kind_of_element() {
    let edges = [
        1,
        63,
        64,
        65,
        511,
        512,
        513,
        8191,
        8192,
        8193,
        16_384 - 100,
        (1 << 32) - 5,
    ];
    let far = [(1 << 45) + 8192 - 30, u64::MAX - 700];
    for_each_backend(|backend| {
        for first in edges.into_iter().chain(far) {
            for (p, len, misaligned) in [(0.1, 600, 0), (0.5, 65, 3), (0.25, 1, 1)] {
                check_dtypes(backend, p, KEY.window(first), len, misaligned);
            }
        }
        check_dtypes(backend, 0.1, KEY.window(8000), 8192 * 2, 5);
        check_dtypes(backend, 0.1, KEY.window(64), 8192 * 2, 0);
        // The last element there is.
        check_dtypes(backend, 0.5, KEY.window(u64::MAX), 1, 0);
    });
}

#[test]
fn a_view_of_a_mask_serves_any_part() {
    let mask = BitMask::from_bools(&std::array::from_fn::<_, 1000, _>(|i| i * i % 7 < 3));
    let rate = DropRate::new(0.5).unwrap();
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
                .apply(rate, part, &x[begin..end], &mut y)
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
