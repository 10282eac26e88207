//! `sorix-bench`, the program behind `cargo xtask bench`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    sorix_benches::program::main(None)
}
