//! PyTorch's dropout, where a Python that has it is on PATH: measured by a process of its own, which
//! samples dropout and copy in turn as we do.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::json;

use super::{Peer, Setting};
use crate::sample::Measured;

/// The program that measures, run by `python3 -c`.
const PROGRAM: &str = include_str!("torch.py");

#[derive(Debug)]
pub(super) struct Torch {
    python: Mutex<Python>,
}

#[derive(Debug)]
struct Python {
    process: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Torch {
    /// Starts Python and waits until it has loaded torch.
    pub(super) fn start() -> Result<Self> {
        let mut process = Command::new("python3")
            .args(["-c", PROGRAM])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("no python3 on PATH")?;
        let requests = process.stdin.take();
        let answers = process
            .stdout
            .take()
            .context("python3 has no standard output")?;
        let mut python = Python {
            process,
            requests,
            answers: BufReader::new(answers),
        };
        python
            .answer()
            .context("the python3 on PATH has no torch")?;
        Ok(Self {
            python: Mutex::new(python),
        })
    }
}

impl Python {
    fn ask(&mut self, request: &serde_json::Value) -> Result<serde_json::Value> {
        let requests = self
            .requests
            .as_mut()
            .context("python3 has no standard input")?;
        writeln!(requests, "{request}")?;
        self.answer()
    }

    fn answer(&mut self) -> Result<serde_json::Value> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        ensure!(!line.is_empty(), "the process ended without an answer");
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        // The end of its input ends the program.
        drop(self.requests.take());
        let _ = self.process.wait();
    }
}

impl Peer for Torch {
    fn backend(&self) -> &'static str {
        "peer:torch"
    }

    fn measure(&self, setting: Setting<'_>) -> Result<Measured> {
        let Setting {
            shape,
            p,
            threads,
            sampling,
            ..
        } = setting;
        let request = json!({
            "shape": shape.0,
            "p": p,
            "threads": threads,
            "budget": sampling.budget.as_secs_f64(),
            "sample": sampling.sample.as_secs_f64(),
            "pairs": sampling.pairs,
        });
        let mut python = self.python.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = python.ask(&request).context("PyTorch's process failed")?;
        let number = |key: &str| {
            answer[key]
                .as_f64()
                .ok_or_else(|| anyhow!("no number {key:?} in {answer}"))
        };
        Ok(Measured {
            subject: number("subject")?,
            copy: number("copy")?,
            ratio: number("ratio")?,
            pairs: number("pairs")? as usize,
        })
    }
}
