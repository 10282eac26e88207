//! Every kernel of the portable backend once, on few elements: little enough for an interpreter that
//! looks at every access.

use half::{bf16, f16};
use sorix_kernels::backend::reference::Reference;
use sorix_kernels::stream::TILE;
use sorix_kernels::{
    Affine, BitMask, Broadcast, Buffers, DropRate, Element, Engine, MaskKey, dispatch,
};

#[test]
fn every_kernel_on_a_few_elements() {
    check::<f32>(|x| x);
    check::<f64>(f64::from);
    check::<bf16>(bf16::from_f32);
    check::<f16>(f16::from_f32);
}

fn check<T: Element>(from_f32: fn(f32) -> T) {
    let engines = [
        Engine::new(&Reference),
        Engine::new(dispatch::by_name("portable").unwrap()),
    ];
    // The end of one tile and the start of the next, neither at a word.
    let (rate, at) = (
        DropRate::new(0.3).unwrap(),
        MaskKey::new(1, 2).window(TILE as u64 - 67),
    );
    let x: Vec<T> = (0..150_u8).map(|i| from_f32(f32::from(i) - 75.5)).collect();
    let rows = Broadcast::new(&[15, 10], &[15, 1]).unwrap();
    let affine = Affine {
        scale: 1.5,
        shift: -2.0,
        dropped: 7.0,
    };
    let results = engines.map(|engine| {
        let engine = engine.sequential();
        let mut mask = BitMask::new(x.len());
        let mut outputs = [(); 4].map(|()| x.clone());
        let [forward, replay, broadcast, shifted] = &mut outputs;
        engine
            .forward(rate, at, Buffers::new(&x, forward).unwrap(), &mut mask)
            .unwrap();
        engine
            .replay(rate, at, Buffers::new(&x, replay).unwrap())
            .unwrap();
        assert!(bytemuck::cast_slice::<T, u8>(forward) == bytemuck::cast_slice::<T, u8>(replay));
        let mut bits = BitMask::new(rows.mask_len());
        engine.fill_mask(rate, at, &mut bits).unwrap();
        engine
            .apply_broadcast(rate, &bits, &rows, Buffers::new(&x, broadcast).unwrap())
            .unwrap();
        engine
            .apply_affine(affine, &bits, &rows, Buffers::new(&x, shifted).unwrap())
            .unwrap();
        (
            mask,
            outputs.map(|y| bytemuck::cast_slice::<T, u8>(&y).to_vec()),
        )
    });
    assert_eq!(results[0], results[1], "{}", T::NAME);
}
