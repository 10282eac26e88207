//! The two classical demonstrations of dropout.
//!
//! ```text
//! cargo run --release --example dropout [SEED]
//! ```
//!
//! With a seed the run can be repeated; without one it says which seed it drew.

use std::env;
use std::error::Error;
use std::process::ExitCode;

use sorix::nn::{Dropout, Module};
use sorix::{DType, Tensor, default_generator, manual_seed, tensor};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    if let Some(seed) = seed_argument()? {
        manual_seed(seed);
    }
    println!("seed {}", default_generator()?.seed());
    means()?;
    gradient()
}

fn seed_argument() -> Result<Option<u64>, String> {
    let mut arguments = env::args_os()
        .skip(1)
        .map(|argument| argument.display().to_string());
    let Some(seed) = arguments.next() else {
        return Ok(None);
    };
    if let Some(surplus) = arguments.next() {
        return Err(format!(
            "expected at most one argument, the seed; got also {surplus:?}"
        ));
    }
    match seed.parse() {
        Ok(seed) => Ok(Some(seed)),
        Err(_) => Err(format!(
            "expected a seed from 0 to {}, got {seed:?}",
            u64::MAX
        )),
    }
}

/// (a) Training keeps the mean, eval keeps everything.
fn means() -> Result<(), Box<dyn Error>> {
    let mut dropout = Dropout::new(0.3)?;
    let x = Tensor::ones([100_000], DType::F32)?;
    let mean = |x: &Tensor| x.mean()?.item::<f32>();

    println!("\n(a) 100,000 ones, p = 0.3");
    println!("    mean of the input            {:.4}", mean(&x)?);
    println!(
        "    mean of the training output  {:.4}",
        mean(&dropout.forward(&x)?)?
    );
    dropout.eval();
    println!(
        "    mean of the eval output      {:.4}",
        mean(&dropout.forward(&x)?)?
    );
    Ok(())
}

/// (b) The gradient goes where the values went.
fn gradient() -> Result<(), Box<dyn Error>> {
    let dropout = Dropout::new(0.5)?;
    let x = tensor([10.0, 20.0, 30.0, 40.0, 50.0]).requires_grad(true);
    let y = dropout.forward(&x)?;
    y.sum()?.backward()?;
    let gradient = x.grad().ok_or("X has no gradient")?;

    println!("\n(b) p = 0.5, training");
    println!("    X                    {x}");
    println!("    Y                    {y}");
    println!("    gradient of Y.sum()  {gradient}");
    println!("    scale                {:.2}", dropout.rate().scale());
    Ok(())
}
