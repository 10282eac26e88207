//! The seeds, replayed: what once was interesting, or wrong.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use sorix_fuzz::TARGETS;

fn inside(directory: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let entries =
        fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_target_has_a_program_and_seeds() {
    let names: BTreeSet<_> = TARGETS.iter().map(|&(name, _)| name.to_owned()).collect();
    for directory in ["fuzz_targets", "corpus-seeds"] {
        let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
        let found: BTreeSet<_> = inside(directory).into_iter().map(stem).collect();
        assert_eq!(found, names, "{directory}");
    }
}

#[test]
fn the_seeds_find_nothing() {
    for (name, run) in TARGETS {
        let seeds = inside(&format!("corpus-seeds/{name}"));
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for seed in seeds {
            // Shown where the target panics.
            println!("{}", seed.display());
            run(&fs::read(&seed).unwrap());
        }
    }
}

/// Not a search, but every target runs further than its seeds.
#[test]
fn bytes_at_random_find_nothing() {
    for (name, run) in TARGETS {
        let mut state = 1_u64;
        for round in 0..200_usize {
            println!("{name}, round {round}");
            let bytes: Vec<u8> = (0..round % 100)
                .map(|_| {
                    // Knuth's linear congruential generator; the upper bits are the better ones.
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    (state >> 56) as u8
                })
                .collect();
            run(&bytes);
        }
    }
}
