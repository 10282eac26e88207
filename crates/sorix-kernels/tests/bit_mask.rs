//! `BitMask` and its views against a `Vec<bool>`.

use sorix_kernels::{BitMask, LengthError, MaskError};

fn length(error: LengthError) -> (&'static str, usize, usize) {
    (error.what, error.expected, error.got)
}

fn sample(len: usize) -> Vec<bool> {
    (0..len).map(|i| (i * i + i / 7) % 3 == 0).collect()
}

#[test]
fn agrees_with_bools_at_every_length() {
    for len in (0..200).chain([511, 512, 513, 8193]) {
        let bools = sample(len);
        let mask = BitMask::from_bools(&bools);
        assert_eq!(mask.len(), len);
        assert_eq!(mask.is_empty(), len == 0);
        assert_eq!(mask.to_bools(), bools);
        assert_eq!(mask.iter().len(), len);
        assert_eq!(mask.count_kept(), bools.iter().filter(|&&b| b).count());
        assert_eq!(mask, bools.iter().copied().collect());
        assert_eq!(mask.get(len), None);
        assert!((0..len).all(|i| mask.get(i) == Some(bools[i])));
        assert_eq!(mask.words().len(), len.div_ceil(64));
        assert_eq!(BitMask::from_bytes(&mask.to_bytes(), len).unwrap(), mask);
        assert_eq!(
            BitMask::from_words(mask.clone().into_words(), len).unwrap(),
            mask
        );
    }
}

#[test]
fn the_layout_is_little_endian_with_zero_surplus() {
    let mut bools = vec![false; 70];
    (bools[0], bools[9], bools[63], bools[64], bools[69]) = (true, true, true, true, true);
    let mask = BitMask::from_bools(&bools);
    assert_eq!(mask.words(), [1 | 1 << 9 | 1 << 63, 0b10_0001]);
    assert_eq!(mask.to_bytes(), [1, 2, 0, 0, 0, 0, 0, 0x80, 0b10_0001]);
    let mut full = BitMask::new(70);
    full.fill(true);
    assert_eq!(full.words(), [u64::MAX, 0b11_1111]);
    full.fill(false);
    assert_eq!(full, BitMask::new(70));
}

#[test]
fn views_begin_and_end_anywhere() {
    let bools = sample(200);
    let mask = BitMask::from_bools(&bools);
    for begin in 0..=200 {
        for end in [begin, begin + 1, begin + 63, begin + 64, begin + 65, 200] {
            let view = mask.slice(begin..end);
            if end > 200 {
                assert_eq!(
                    length(view.unwrap_err()),
                    ("mask (end of the range at most)", 200, end)
                );
                continue;
            }
            let view = view.unwrap();
            assert!(
                view.iter().eq(bools[begin..end].iter().copied()),
                "{begin}..{end}"
            );
            assert_eq!(
                view.count_kept(),
                bools[begin..end].iter().filter(|&&b| b).count()
            );
            let again = view.slice(view.len() / 2..).unwrap();
            assert!(
                again
                    .iter()
                    .eq(bools[begin + view.len() / 2..end].iter().copied())
            );
        }
    }
    assert!(mask.slice(5..=6).unwrap().iter().eq([bools[5], bools[6]]));
    assert_eq!(mask.slice(..).unwrap(), mask.as_slice());
    #[expect(clippy::reversed_empty_ranges, reason = "what the error is for")]
    let reversed = mask.slice(3..2);
    assert_eq!(
        length(reversed.unwrap_err()),
        ("mask (begin of the range at most)", 2, 3)
    );
    assert!(mask.slice(0..=usize::MAX).is_err());
}

#[test]
fn what_is_not_a_mask_is_refused() {
    let wrong = |mask| match mask {
        Err(MaskError::Length(error)) => length(error),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        wrong(BitMask::from_words(vec![0; 3], 65)),
        ("mask words", 2, 3)
    );
    assert_eq!(
        wrong(BitMask::from_bytes(&[0; 2], 17)),
        ("mask bytes", 3, 2)
    );
    assert_eq!(
        BitMask::from_words(vec![0, 0b110], 65),
        Err(MaskError::SurplusBits { len: 65, bit: 65 })
    );
    let error = BitMask::from_bytes(&[0b1000_0000], 7).unwrap_err();
    assert_eq!(
        error.to_string(),
        "bits beyond the last element must be zero: the mask has 7 elements, bit 7 is set"
    );
}

#[test]
fn absurd_sizes_are_errors() {
    let error = BitMask::try_new(usize::MAX).unwrap_err();
    assert_eq!(error.bytes, 1 << 61);
    assert_eq!(
        error.to_string(),
        "cannot allocate 2305843009213693952 bytes"
    );
}

#[test]
fn debug_is_short() {
    let mask = BitMask::from_bools(&[true; 100]);
    assert_eq!(format!("{mask:?}"), "BitMask { len: 100, kept: 100, .. }");
    assert_eq!(
        format!("{:?}", mask.slice(1..3).unwrap()),
        "BitSlice { len: 2, kept: 2, .. }"
    );
}

/// In optimised builds, too, where the subtraction behind it would wrap.
#[test]
#[should_panic(expected = "word 1 of 10 mask bits")]
fn a_word_beyond_the_end_is_not_there() {
    let mask = BitMask::new(128);
    let _ = mask.slice(..10).unwrap().word(1);
}
