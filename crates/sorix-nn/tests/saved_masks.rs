//! What a layer keeps until backward, by counting the bytes that a forward leaves allocated.
//!
//! A forward leaves its output, whose size is known, the node of the graph, and what the node saved.
//! The same forward on a larger tensor shows which part grows.

use sorix_core::{DType, SaveMask, Tensor, pool};
use sorix_nn::dropout::{DropoutLayer, Form, Rows};
use sorix_nn::{
    AlphaDropout, BroadcastDropout, DropBlock2d, DropPath, Dropout, Dropout1d, Dropout2d,
    Dropout3d, Embedding, EmbeddingDropout, FeatureAlphaDropout, GaussianDropout, Generator,
    Linear, LockedDropout, Module, Result, WeightDropout,
};

/// Bytes that `forward` of an input leaves allocated beside its output.
fn kept(layer: &dyn Module, x: &Tensor) -> i64 {
    // Memory that is not recycled is allocated, and so counted.
    pool::set_limit(0);
    let mut y = None;
    let info = allocation_counter::measure(|| y = Some(layer.forward(x).unwrap()));
    let y = y.unwrap();
    assert!(y.needs_grad());
    info.bytes_current - (y.numel() * y.dtype().size()) as i64
}

/// What it keeps more of eight samples than of four, each of 16,384 elements in 64 channels.
fn growth<F: Form + 'static>(layer: Result<DropoutLayer<F>>, save: SaveMask) -> i64 {
    growth_at(layer, save, &[16, 16])
}

fn growth_at<F: Form + 'static>(
    layer: Result<DropoutLayer<F>>,
    save: SaveMask,
    positions: &[usize],
) -> i64 {
    let layer = layer.unwrap().save_mask(save).generator(Generator::new(1));
    let kept = |n: usize| {
        let x = Tensor::ones([&[n, 64], positions].concat(), DType::F32).unwrap();
        kept(&layer, &x.requires_grad(true))
    };
    kept(1);
    kept(8) - kept(4)
}

/// Four samples more of 16,384 elements: bits of each form, and nothing of any with `Replay`.
#[test]
fn bits_grow_with_the_mask_and_replay_does_not_grow() {
    let elements = 4 * 64 * 16 * 16 / 8;
    let grows = [SaveMask::Bits, SaveMask::Replay].map(|save| {
        [
            ("dropout", growth(Dropout::new(0.3), save)),
            ("alpha_dropout", growth(AlphaDropout::new(0.3), save)),
            (
                "drop_block2d",
                growth(DropBlock2d::with_block_size(0.3, 3), save),
            ),
            ("dropout1d", growth_at(Dropout1d::new(0.3), save, &[256])),
            ("dropout2d", growth(Dropout2d::new(0.3), save)),
            (
                "dropout3d",
                growth_at(Dropout3d::new(0.3), save, &[4, 8, 8]),
            ),
            (
                "broadcast_dropout",
                growth(BroadcastDropout::shared_along(0.3, [2]), save),
            ),
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
        ("dropout1d", 4 * 64 / 8),
        ("dropout2d", 4 * 64 / 8),
        ("dropout3d", 4 * 64 / 8),
        ("broadcast_dropout", 4 * 64 * 16 / 8),
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

/// A parameter that is dropped from is kept itself for the product with it, or to be selected from;
/// beside it there are the bits, or nothing that grows.
#[test]
fn masks_of_parameters_grow_as_bits_and_not_with_replay() {
    let of_linear = |save: SaveMask, outputs: usize| {
        let linear = Linear::new(64, outputs, &Generator::new(1)).unwrap();
        let dropout = Dropout::new(0.3).unwrap().save_mask(save);
        let layer = WeightDropout::new(linear, dropout.generator(Generator::new(1)));
        kept(&layer, &Tensor::ones([2, 64], DType::F32).unwrap())
    };
    let of_embedding = |save: SaveMask, rows: usize| {
        let table = Embedding::new(rows, 16, &Generator::new(1)).unwrap();
        let dropout = DropoutLayer::<Rows>::new(0.3).unwrap().save_mask(save);
        let layer = EmbeddingDropout::new(table, dropout.generator(Generator::new(1)));
        kept(&layer, &Tensor::ones([3], DType::F32).unwrap())
    };
    type Kept<'a> = &'a dyn Fn(SaveMask, usize) -> i64;
    let cases: [(&str, Kept<'_>, i64); 2] = [
        ("weight_dropout", &of_linear, 512 * 64 / 8),
        ("embedding_dropout", &of_embedding, 512 / 8),
    ];
    for (name, kept, expected) in cases {
        // What is allocated once, for products of this size.
        kept(SaveMask::Bits, 1024);
        let grows = |save| kept(save, 1024) - kept(save, 512);
        let bits = grows(SaveMask::Bits) - grows(SaveMask::Replay);
        assert_eq!(bits, expected, "{name}");
    }
}
