//! The jobs that a backend is given.

use super::{Case, Dtype, Job, MaskOfRows};
use crate::function::Function;
use crate::key::{MaskKey, MaskWindow};
use crate::pass::{PassKind, Reads};
use crate::stream::{BLOCK, TILE};

const KEY: MaskKey = MaskKey {
    seed: 0x0123_4567_89AB_CDEF,
    offset: 7,
};

/// Thresholds that are plain, that are long, and at either end; and a scale that is no short fraction.
const RATES: [f64; 12] = [
    1e-10,
    0.1,
    0.25,
    0.3,
    0.5,
    0.75,
    0.9,
    0.999,
    1.0 - 1e-12,
    // 2^-64 and 1 - 2^-53: the least that drops anything, the greatest that keeps anything.
    5.421_010_862_427_522e-20,
    1.0 - f64::EPSILON / 2.0,
    1.0 / 3.0,
];

/// What a case is unless it says otherwise.
const PLAIN: Case = Case {
    job: Job::FillMask,
    p: 0.3,
    window: MaskWindow { key: KEY, first: 0 },
    len: 0,
    misaligned: 0,
    mask_bit: 0,
    with_row: false,
    in_place: false,
    streaming: false,
};

/// What the cases of all kernels and element types have in common, shortest first.
pub(super) fn shapes() -> Vec<Case> {
    let plain = PLAIN;
    let tile = TILE as u64;
    let mut shapes = Vec::new();
    for len in 0..=300 {
        let p = RATES[len % RATES.len()];
        shapes.push(Case { p, len, ..plain });
    }
    for p in RATES {
        for len in [BLOCK + 65, 2 * TILE + 577] {
            shapes.push(Case { p, len, ..plain });
        }
    }
    for len in [BLOCK, 2 * BLOCK, TILE].map(|edge| [edge - 1, edge, edge + 1]) {
        shapes.extend(len.map(|len| Case { len, ..plain }));
    }
    for misaligned in 0..64 {
        for len in [3, 65, 1100 + misaligned] {
            let streaming = len > 1000;
            shapes.extend([false, streaming].map(|streaming| Case {
                len,
                misaligned,
                streaming,
                ..plain
            }));
        }
    }
    for (len, first) in [
        (20_000, 0),
        (700, 0),
        (9000, tile - 256),
        (9000, 3),
        (5, 0),
        (2 * TILE, 8000),
        (2 * TILE, 64),
    ] {
        for (misaligned, streaming) in [(0, false), (0, true), (8, true), (40, true)] {
            shapes.push(Case {
                window: KEY.window(first),
                len,
                misaligned,
                streaming,
                ..plain
            });
        }
    }
    let blocks = [1, 63, 64, 65, 511, 512, 513];
    let tiles = [tile - 1, tile, tile + 1, 2 * tile - 100];
    let far = [
        (1 << 32) - 5,
        (1 << 45) + tile - 30,
        u64::MAX - 700,
        u64::MAX - 599,
    ];
    for first in blocks.into_iter().chain(tiles).chain(far) {
        for (p, len, misaligned) in [(0.1, 600, 0), (0.5, 65, 24), (0.25, 1, 8)] {
            let window = KEY.window(first);
            shapes.push(Case {
                p,
                window,
                len,
                misaligned,
                ..plain
            });
        }
    }
    // The last element there is.
    shapes.push(Case {
        window: KEY.window(u64::MAX),
        len: 1,
        ..plain
    });
    for mask_bit in 1..64 {
        for len in [1, 64, 130] {
            shapes.push(Case {
                len,
                mask_bit,
                ..plain
            });
        }
    }
    for (seed, offset) in [(0, 0), (0, 1), (1, 0), (u64::MAX, u64::MAX)] {
        shapes.push(Case {
            window: MaskKey { seed, offset }.into(),
            len: 130,
            ..plain
        });
    }
    shapes.sort_by_key(|shape| shape.len);
    shapes
}

/// The jobs of one shape: every job, pass and function, with a row and without, in place and not, for every
/// element type.
pub(super) fn jobs(shape: Case) -> impl Iterator<Item = Case> {
    let fitting = move |dtype: &Dtype| shape.misaligned.is_multiple_of(dtype.size());
    let dtypes = Dtype::ALL.into_iter().filter(fitting);
    let passes = dtypes
        .clone()
        .flat_map(|dtype| PassKind::ALL.iter().map(move |&kind| (kind, dtype)));
    let of_passes = passes.flat_map(|(kind, dtype)| {
        let rows: &[bool] = match kind.reads() {
            Reads::Nothing => &[false],
            Reads::Row | Reads::ElementsAndRow | Reads::Any => &[false, true],
        };
        rows.iter().flat_map(move |&with_row| {
            [
                Job::Apply(kind, dtype),
                Job::Forward(kind, dtype),
                Job::Replay(kind, dtype),
            ]
            .map(|job| (job, with_row))
        })
    });
    let of_rows = dtypes.clone().flat_map(|dtype| {
        let add_norm = MaskOfRows::ALL.map(|mask| Job::AddNorm(mask, dtype));
        add_norm.into_iter().chain([Job::NormBackward(dtype)])
    });
    // Nothing goes around the cache; and that masks are right at every rate, across tiles, is seen by the
    // other jobs.
    let is_worth_it = !shape.streaming && (shape.len < TILE || shape.p == 0.3);
    let of_rows = of_rows.filter(move |_| is_worth_it);
    let of_functions = dtypes
        .filter(move |_| has_maps(shape))
        .flat_map(move |dtype| {
            let jobs = move |&function| [Job::Map(function, dtype), Job::MapTimes(function, dtype)];
            functions(shape).flat_map(jobs)
        });
    let without_row = of_rows.chain(of_functions).map(|job| (job, false));
    let cases = of_passes
        .chain(without_row)
        .flat_map(move |(job, with_row)| {
            [false, true].map(|in_place| Case {
                job,
                with_row,
                in_place,
                ..shape
            })
        });
    core::iter::once(shape).chain(cases)
}

/// The functions that a shape is tried with. The loop is the same for all: short shapes have every one, and
/// long ones two, another two each.
fn functions(shape: Case) -> impl Iterator<Item = &'static Function> {
    let all = Function::ALL;
    let (first, count) = if shape.len <= 130 {
        (0, all.len())
    } else {
        (shape.len + shape.misaligned, 2)
    };
    all.iter().cycle().skip(first % all.len()).take(count)
}

/// Whether a function of every element, which knows no mask, is worth a case: one shape of those that
/// differ in their masks alone.
fn has_maps(shape: Case) -> bool {
    let lengths = shape.len <= 300 || shape.p == PLAIN.p;
    lengths && shape.mask_bit == 0 && shape.window == PLAIN.window
}
