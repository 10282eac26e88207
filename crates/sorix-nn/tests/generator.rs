//! Generators: one key per call, repeatable, forkable, restorable, shared by threads.

use std::collections::HashSet;
use std::sync::Mutex;

use sorix_core::MaskKey;
use sorix_nn::{Generator, GeneratorState, default_generator, manual_seed};

#[test]
fn keys_count_up_from_zero() {
    let generator = Generator::new(9);
    for offset in 0..5 {
        assert_eq!(generator.next_key(), MaskKey { seed: 9, offset });
    }
    assert_eq!(generator.state(), GeneratorState { seed: 9, offset: 5 });
    generator.manual_seed(10);
    assert_eq!(
        generator.next_key(),
        MaskKey {
            seed: 10,
            offset: 0
        }
    );
}

#[test]
fn a_restored_generator_continues() {
    let generator = Generator::new(9);
    for _ in 0..3 {
        generator.next_key();
    }
    let state = generator.state();
    let following = [generator.next_key(), generator.next_key()];

    let restored = Generator::from_state(state);
    assert_eq!([restored.next_key(), restored.next_key()], following);
    let other = Generator::new(1);
    other.set_state(state);
    assert_eq!([other.next_key(), other.next_key()], following);
}

#[test]
fn the_last_offset_is_followed_by_the_first() {
    let generator = Generator::from_state(GeneratorState {
        seed: 1,
        offset: u64::MAX,
    });
    assert_eq!(generator.next_key().offset, u64::MAX);
    assert_eq!(generator.next_key().offset, 0);
}

/// Computed with an implementation of SipHash-2-4 in another language that was checked against the
/// vector of the paper (key 00..0f, message 00..0e, a129ca6149be45e5).
#[test]
fn the_seeds_of_forks_are_the_published_ones() {
    let vectors = [
        (0, "", 0x79fb_e2a9_af5b_79a2),
        (0, "encoder", 0x0d4e_df78_328f_9523),
        (42, "", 0x2d4b_3c44_3f87_c656),
        (42, "encoder", 0x9d95_a9db_ca3c_344f),
        (42, "layer.0", 0x9e5e_0eb9_356a_de47),
        (42, "schicht ü", 0xe097_7079_9839_a4ca),
        (u64::MAX, "encoder", 0x8077_7515_c938_e0d8),
    ];
    for (seed, name, expected) in vectors {
        let state = Generator::new(seed).fork(name).state();
        assert_eq!(
            state,
            GeneratorState {
                seed: expected,
                offset: 0
            },
            "{seed} {name:?}"
        );
    }
    let nested = Generator::new(42).fork("encoder").fork("layer.0");
    assert_eq!(nested.seed(), 0x5b75_4f05_dc86_7b24);
}

#[test]
fn a_fork_depends_on_seed_and_name_alone() {
    let (early, late) = (Generator::new(3), Generator::new(3));
    let names = ["a", "b", "c"];
    let forward: Vec<u64> = names.iter().map(|name| early.fork(name).seed()).collect();
    late.next_key();
    let backward: Vec<u64> = names
        .iter()
        .rev()
        .map(|name| late.fork(name).seed())
        .collect();
    assert!(forward.iter().eq(backward.iter().rev()));
    assert_eq!(early.state().offset, 0, "forking takes no key");
    let seeds: HashSet<u64> = (0..100)
        .flat_map(|seed| (0..100).map(move |i| Generator::new(seed).fork(&i.to_string()).seed()))
        .collect();
    assert_eq!(seeds.len(), 10_000);
}

#[test]
fn every_key_is_given_once_whatever_the_number_of_threads() {
    const THREADS: usize = 4;
    const KEYS: usize = 1000;
    let generator = Generator::new(7);
    let keys = Mutex::new(HashSet::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mine: Vec<MaskKey> = (0..KEYS).map(|_| generator.next_key()).collect();
                keys.lock().unwrap().extend(mine);
            });
        }
    });
    let keys = keys.into_inner().unwrap();
    assert_eq!(
        keys,
        (0..(THREADS * KEYS) as u64)
            .map(|offset| MaskKey { seed: 7, offset })
            .collect()
    );
}

/// Half the threads reseed while the others draw: a key with the seed of one moment and the offset
/// of another would have an offset that no run of its seed reaches.
#[test]
fn seed_and_offset_are_read_together() {
    let generator = Generator::from_state(GeneratorState {
        seed: 1,
        offset: 1_000_000,
    });
    let states = [
        GeneratorState {
            seed: 1,
            offset: 1_000_000,
        },
        GeneratorState {
            seed: 2,
            offset: 2_000_000,
        },
    ];
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for i in 0..20_000 {
                    generator.set_state(states[i % 2]);
                }
            });
            scope.spawn(|| {
                for _ in 0..20_000 {
                    let key = generator.next_key();
                    assert_eq!(key.offset / 1_000_000, key.seed, "{key:?}");
                }
            });
        }
    });
}

#[test]
fn seeds_of_the_operating_system_differ_and_can_be_told() {
    let (a, b) = (Generator::from_os().unwrap(), Generator::from_os().unwrap());
    assert_ne!(a.seed(), b.seed());
    assert_eq!(Generator::new(a.seed()).next_key(), a.next_key());
}

// One test, as the generator is one for the process.
#[test]
fn the_generator_of_the_process() {
    let drawn = default_generator().unwrap().seed();
    assert_eq!(
        default_generator().unwrap().seed(),
        drawn,
        "it is seeded once"
    );
    default_generator().unwrap().next_key();
    manual_seed(42);
    assert_eq!(
        default_generator().unwrap().next_key(),
        MaskKey {
            seed: 42,
            offset: 0
        }
    );
    assert_eq!(
        default_generator().unwrap().next_key(),
        MaskKey {
            seed: 42,
            offset: 1
        }
    );
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(default_generator().unwrap().next_key().offset, 2));
    });
}

#[cfg(feature = "serde")]
#[test]
fn a_state_is_serialised_as_two_numbers() {
    let state = GeneratorState {
        seed: u64::MAX,
        offset: 7,
    };
    let text = serde_json::to_string(&state).unwrap();
    assert_eq!(text, r#"{"seed":18446744073709551615,"offset":7}"#);
    assert_eq!(
        serde_json::from_str::<GeneratorState>(&text).unwrap(),
        state
    );
}
