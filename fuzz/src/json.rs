//! The state of a generator as JSON.

use sorix::{Generator, GeneratorState};

/// The target: the bytes are a document.
pub fn run(data: &[u8]) {
    let Ok(state) = serde_json::from_slice::<GeneratorState>(data) else {
        return;
    };
    let written = serde_json::to_string(&state).expect("two numbers");
    let again: GeneratorState = serde_json::from_str(&written).expect("what was written");
    assert_eq!(again, state);
    // A generator goes on from any state.
    let generator = Generator::from_state(state);
    let key = generator.next_key();
    assert_eq!((key.seed, key.offset), (state.seed, state.offset));
    assert_eq!(generator.state().offset, state.offset.wrapping_add(1));
}
