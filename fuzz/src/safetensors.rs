//! Checkpoints in safetensors files: loaded whole, or refused with nothing changed.

use sorix::Generator;
use sorix::nn::{Checkpoint, Dropout, Linear, Module, Result, Sequential};

use crate::patches::File;

/// The target.
pub fn run(data: &[u8]) {
    crate::with_arbitrary(data, |file: File| {
        let right = saved(&net(1).expect("a small network"), &Generator::new(1));
        check(&file.bytes(&right));
    });
}

fn net(seed: u64) -> Result<Sequential> {
    let generator = Generator::new(seed);
    let dropout = Dropout::new(0.5)?.generator(generator.fork("dropout"));
    Ok(Sequential::new()
        .with(Linear::new(2, 1, &generator)?)
        .with(dropout))
}

fn sections<'a>(net: &dyn Module, generator: &'a Generator) -> Checkpoint<'a> {
    Checkpoint::new()
        .parameters("model", net)
        .generators("layers", net)
        .generator("data", generator)
}

fn saved(net: &dyn Module, generator: &Generator) -> Vec<u8> {
    sections(net, generator)
        .to_bytes()
        .expect("a checkpoint in memory")
}

fn check(file: &[u8]) {
    let (net, generator) = (net(2).expect("a small network"), Generator::new(2));
    let before = saved(&net, &generator);
    let loaded = sections(&net, &generator).load_bytes(file);
    let after = saved(&net, &generator);
    match loaded {
        Err(error) => assert!(before == after, "changed, though refused: {error}"),
        Ok(()) => {
            let again = sections(&net, &generator).load_bytes(&after);
            assert!(again.is_ok(), "what was saved is not loaded: {again:?}");
            assert!(
                saved(&net, &generator) == after,
                "another one after loading it"
            );
        }
    }
}
