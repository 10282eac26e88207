//! `sorix-bench-peers`, the program behind `cargo xtask bench --peers`: the rows of `sorix-bench`, and
//! in the same run and process those of candle and burn.

use std::process::ExitCode;

use sorix_benches::program;

fn main() -> ExitCode {
    program::main(Some(sorix_peers::frameworks()))
}
