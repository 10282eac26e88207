//! `BitMask` and its views against a `Vec<bool>`: programs of any operations.

use std::ops::Bound;

use arbitrary::Arbitrary;
use sorix::kernels::backend::BitSliceMut;
use sorix::kernels::{BitMask, BitSlice};

#[derive(Arbitrary, Debug)]
enum Step {
    FromBools(Vec<bool>),
    /// Words, and by how much the length is less than they hold; negative: more.
    FromWords(Vec<u64>, i16),
    FromBytes(Vec<u8>, i16),
    TryNew(u16),
    Fill(bool),
    /// Goes on with a part.
    Slice(Bound<u16>, Bound<u16>),
    Split(u16, bool),
    Get(u16),
    Word(u8),
    Skip(u16),
    Collect,
    /// A mutable view: cut at a multiple of 64 or at the end, each part filled.
    FillParts(Vec<u64>, u8, u8, [bool; 2]),
}

/// The target.
pub fn run(data: &[u8]) {
    crate::with_arbitrary(data, |steps: Vec<Step>| {
        let (mut mask, mut model) = (BitMask::new(0), Vec::new());
        for step in steps.iter().take(40) {
            apply(step, &mut mask, &mut model);
            compare(mask.as_slice(), &model);
            assert_eq!(mask.words().len(), model.len().div_ceil(64), "{steps:?}");
            assert_eq!(mask, BitMask::from_bools(&model), "{steps:?}");
            assert_eq!(
                BitMask::from_bytes(&mask.to_bytes(), mask.len()).as_ref(),
                Ok(&mask)
            );
            assert_eq!(
                BitMask::from_words(mask.clone().into_words(), mask.len()).as_ref(),
                Ok(&mask)
            );
        }
    });
}

fn apply(step: &Step, mask: &mut BitMask, model: &mut Vec<bool>) {
    match step {
        Step::FromBools(bools) => {
            *mask = bools.iter().copied().collect();
            model.clone_from(bools);
        }
        Step::FromWords(words, less) => {
            let len = (words.len() * 64).saturating_add_signed(-isize::from(*less));
            let bit = |i: usize| words[i / 64] >> (i % 64) & 1 == 1;
            let made = BitMask::from_words(words.clone(), len);
            adopt(made, words.len() * 64, 64, len, bit, mask, model);
        }
        Step::FromBytes(bytes, less) => {
            let len = (bytes.len() * 8).saturating_add_signed(-isize::from(*less));
            let bit = |i: usize| bytes[i / 8] >> (i % 8) & 1 == 1;
            let made = BitMask::from_bytes(bytes, len);
            adopt(made, bytes.len() * 8, 8, len, bit, mask, model);
        }
        Step::TryNew(len) => {
            *mask = BitMask::try_new((*len).into()).expect("a few kilobytes");
            *model = vec![false; (*len).into()];
        }
        Step::Fill(keep) => {
            mask.fill(*keep);
            model.fill(*keep);
        }
        Step::Slice(begin, end) => {
            let range = (begin.map(usize::from), end.map(usize::from));
            let expected = slice(model, range);
            let part = mask.slice(range);
            assert_eq!(
                part.is_ok(),
                expected.is_some(),
                "{range:?} of {}",
                model.len()
            );
            if let (Ok(part), Some(expected)) = (part, expected) {
                compare(part, &expected);
                assert_eq!(part, BitMask::from_bools(&expected).as_slice());
                (*mask, *model) = (part.iter().collect(), expected);
            }
        }
        Step::Split(mid, second) => {
            let mid = usize::from(*mid).min(model.len());
            let (head, tail) = mask.as_slice().split_at(mid);
            compare(head, &model[..mid]);
            compare(tail, &model[mid..]);
            if *second {
                (*mask, *model) = (tail.iter().collect(), model.split_off(mid));
            }
        }
        Step::Get(i) => assert_eq!(mask.get((*i).into()), model.get(usize::from(*i)).copied()),
        Step::Word(i) => {
            let i = usize::from(*i);
            // From a bit of its own, so that the word lies across two.
            let start = i.min(model.len());
            let view = mask.slice(start..).expect("inside");
            if i * 64 < view.len() {
                let bools = model[start..].iter().skip(i * 64).take(64);
                let word = bools
                    .enumerate()
                    .fold(0, |word, (b, &keep)| word | u64::from(keep) << b);
                assert_eq!(view.word(i), word);
            }
        }
        Step::Skip(n) => {
            let (mut bits, mut bools) = (mask.iter(), model.iter().copied());
            assert_eq!(bits.nth((*n).into()), bools.nth((*n).into()));
            assert_eq!(bits.len(), bools.len());
            assert!(bits.eq(bools));
        }
        Step::Collect => *mask = mask.iter().collect(),
        Step::FillParts(words, less, mid, keep) => {
            let mut words = words.clone();
            let len = (words.len() * 64).saturating_sub((less % 64).into());
            let mut view = BitSliceMut::new(&mut words, len).expect("as many words");
            let mid = (usize::from(*mid) * 64).min(len);
            let (mut head, mut tail) = view.reborrow().split_at(mid);
            assert_eq!((head.len(), tail.len()), (mid, len - mid));
            head.fill(keep[0]);
            tail.fill(keep[1]);
            *model = [vec![keep[0]; mid], vec![keep[1]; len - mid]].concat();
            compare(view.as_slice(), model);
            *mask = BitMask::from_words(words, len).expect("fill leaves surplus bits zero");
        }
    }
}

/// What `from_words` and `from_bytes` have to do with `bits` bits in units of `unit`.
fn adopt<E: std::fmt::Debug>(
    made: Result<BitMask, E>,
    bits: usize,
    unit: usize,
    len: usize,
    bit: impl Fn(usize) -> bool,
    mask: &mut BitMask,
    model: &mut Vec<bool>,
) {
    let right = len.div_ceil(unit) * unit == bits && !(len..bits).any(&bit);
    assert_eq!(
        made.is_ok(),
        right,
        "{len} elements in {bits} bits: {made:?}"
    );
    if let Ok(made) = made {
        *mask = made;
        *model = (0..len).map(bit).collect();
    }
}

/// The same part of the model, where there is one.
fn slice(model: &[bool], (begin, end): (Bound<usize>, Bound<usize>)) -> Option<Vec<bool>> {
    let begin = match begin {
        Bound::Included(begin) => begin,
        Bound::Excluded(before) => before + 1,
        Bound::Unbounded => 0,
    };
    let end = match end {
        Bound::Included(last) => last + 1,
        Bound::Excluded(end) => end,
        Bound::Unbounded => model.len(),
    };
    model.get(begin..end).map(<[bool]>::to_vec)
}

fn compare(bits: BitSlice<'_>, model: &[bool]) {
    assert_eq!(bits.len(), model.len());
    assert_eq!(bits.is_empty(), model.is_empty());
    assert!(bits.iter().eq(model.iter().copied()));
    let kept = model.iter().filter(|&&keep| keep).count();
    assert_eq!(bits.count_kept(), kept);
    let shown = format!("BitSlice {{ len: {}, kept: {kept}, .. }}", model.len());
    assert_eq!(format!("{bits:?}"), shown);
}
