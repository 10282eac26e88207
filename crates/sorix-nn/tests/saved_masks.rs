//! What a layer keeps until backward, by counting the bytes that a forward leaves allocated.
//!
//! A forward leaves its output, whose size is known, the node of the graph, and what the node saved.
//! The same forward on a larger tensor shows which part grows.

use sorix_core::{DType, Tensor, pool};
use sorix_nn::dropout::{DropoutLayer, Form};
use sorix_nn::{
    AlphaDropout, DropBlock2d, DropPath, Dropout, Dropout2d, FeatureAlphaDropout, GaussianDropout,
    Generator, LockedDropout, Module, SaveMask,
};

/// Bytes that `forward` leaves allocated beside its output, for an input of `[n, 64, 16, 16]`.
fn kept(layer: &dyn Module, n: usize) -> i64 {
    let x = Tensor::ones([n, 64, 16, 16], DType::F32)
        .unwrap()
        .requires_grad(true);
    let mut y = None;
    let info = allocation_counter::measure(|| y = Some(layer.forward(&x).unwrap()));
    assert!(y.unwrap().needs_grad());
    info.bytes_current - (x.numel() * 4) as i64
}

fn growth<F: Form + 'static>(layer: sorix_nn::Result<DropoutLayer<F>>, save: SaveMask) -> i64 {
    let layer = layer.unwrap().save_mask(save).generator(Generator::new(1));
    // Memory that is not recycled is allocated, and so counted.
    pool::set_limit(0);
    kept(&layer, 1);
    kept(&layer, 8) - kept(&layer, 4)
}

/// Four samples more of 16,384 elements: bits of each form, and nothing of any with `Replay`.
#[test]
fn bits_grow_with_the_mask_and_replay_does_not_grow() {
    let elements = 4 * 64 * 16 * 16 / 8;
    let grows = [SaveMask::Bits, SaveMask::Replay].map(|save| {
        [
            ("dropout", growth(Dropout::new(0.3), save)),
            ("alpha_dropout", growth(AlphaDropout::new(0.3), save)),
            ("drop_block2d", growth(DropBlock2d::new(0.3, 3), save)),
            ("dropout2d", growth(Dropout2d::new(0.3), save)),
            (
                "feature_alpha_dropout",
                growth(FeatureAlphaDropout::new(0.3), save),
            ),
            ("locked_dropout", growth(LockedDropout::new(0.3), save)),
            ("drop_path", growth(DropPath::new(0.3), save)),
            ("gaussian_dropout", growth(GaussianDropout::new(0.3), save)),
        ]
    });
    let [bits, replay] = grows;
    let expected = [
        ("dropout", elements),
        ("alpha_dropout", elements),
        ("drop_block2d", elements),
        ("dropout2d", 4 * 64 / 8),
        ("feature_alpha_dropout", 4 * 64 / 8),
        ("locked_dropout", 4 * 64 * 16 / 8),
        // Both 4 and 8 bits are one word.
        ("drop_path", 0),
        // Four bytes of noise per element.
        ("gaussian_dropout", elements * 8 * 4),
    ];
    assert_eq!(bits, expected);
    assert_eq!(replay, expected.map(|(name, _)| (name, 0)));
}
