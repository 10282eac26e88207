//! `cargo xtask test-python`: what must pass in `python/`, a workspace of its own.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::cargo::{Workspace, call_nested, root, works};
use crate::step::{Action, Outcome, Step, Which};
use crate::test::{check_dependencies, without};
use crate::test_neon::{Compiler, HOW_TO_GET_IT, TARGET};

/// Build and test the Python package (needs Python 3.11 or later, and its package index).
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    which: Which,

    /// Install PyTorch too, the whole of it: 3 GB to load, 5 GB of disk. Without this, or one that is in
    /// `target/python/newest` already, the tests of `sorix.torch` are left out.
    #[arg(long)]
    torch: bool,
}

/// Runs the command.
///
/// # Errors
///
/// If a step fails, or one is named that there is not.
pub(crate) fn run(args: &Args) -> Result<()> {
    let package = Package::at(&Workspace::read()?.target);
    let steps = steps(&package, args.torch);
    args.which.run("cargo xtask test-python", steps)
}

/// A Python that is new enough, of those on PATH.
fn python() -> Option<&'static str> {
    const NEW_ENOUGH: &str = "import sys, venv; sys.exit(sys.version_info < (3, 11))";
    [
        "python3",
        "python",
        "python3.13",
        "python3.12",
        "python3.11",
    ]
    .into_iter()
    .find(|python| works(Command::new(python).args(["-c", NEW_ENOUGH])))
}

/// A virtual environment.
#[derive(Debug)]
struct Environment(PathBuf);

impl Environment {
    /// A program of it, to be called in `python/`.
    fn program(&self, name: &str) -> Command {
        let programs = self.0.join("bin");
        let mut command = Command::new(programs.join(name));
        command.current_dir(root().join("python"));
        // maturin, and what it calls, look for each other there.
        let path = env::var_os("PATH").unwrap_or_default();
        let path = [programs].into_iter().chain(env::split_paths(&path));
        if let Ok(path) = env::join_paths(path) {
            command.env("PATH", path);
        }
        command.env("VIRTUAL_ENV", &self.0);
        command
    }

    fn call(&self, words: &str, last: &[&Path]) -> Command {
        let mut words = words.split(' ');
        let mut command = self.program(words.next().unwrap_or_default());
        command.args(words).args(last);
        command
    }

    /// What makes it, and installs the packages of some lists.
    fn made(&self, python: &str, lists: &[&str]) -> Vec<Command> {
        let mut make = Command::new(python);
        make.args(["-m", "venv"]).arg(&self.0);
        let installs = lists.iter().map(|list| {
            let words = "python -m pip install --quiet --disable-pip-version-check";
            let mut install = self.call(words, &[]);
            install.arg(format!("--requirement=requirements/{list}.txt"));
            install
        });
        [make].into_iter().chain(installs).collect()
    }
}

/// Where the package is built, and the environments it is installed in.
#[derive(Debug)]
pub(crate) struct Package {
    home: PathBuf,
    newest: Environment,
    oldest: Environment,
    bare: Environment,
    wheels: PathBuf,
    sources: PathBuf,
    /// The root's: what both build alike is built once.
    cargo_target: PathBuf,
}

impl Package {
    pub(crate) fn at(target: &Path) -> Self {
        let home = target.join("python");
        let environment = |name| Environment(home.join(name));
        Self {
            newest: environment("newest"),
            oldest: environment("oldest"),
            bare: environment("bare"),
            wheels: home.join("wheels"),
            sources: home.join("sources"),
            cargo_target: target.to_path_buf(),
            home,
        }
    }

    /// Whether the environment with the newest of everything has PyTorch.
    pub(crate) fn has_torch(&self) -> bool {
        works(&mut self.newest.call("python -c", &[Path::new("import torch")]))
    }

    /// What builds the wheel and installs it in that environment: from the source distribution, as
    /// `pip install sorix-rs` does where there is no wheel.
    pub(crate) fn build_and_install(&self) -> Vec<Command> {
        // pip keeps what it built, by the archive's path, which is the same for every commit.
        let words = "python -m pip wheel --quiet --disable-pip-version-check --no-cache-dir \
                     --no-index --no-deps --no-build-isolation --no-binary sorix-rs --find-links";
        let mut from_source = self.built(&self.newest, words, &[&self.sources]);
        from_source
            .arg("--wheel-dir")
            .arg(&self.wheels)
            .arg("sorix-rs")
            .env("MATURIN_PEP517_ARGS", "--locked");
        let mut commands = vec![
            self.newest.call("maturin sdist --out", &[&self.sources]),
            from_source,
            self.install(&self.newest),
        ];
        for directory in [&self.wheels, &self.sources] {
            // Of an earlier version there may be others.
            commands.insert(0, self.remove(directory));
        }
        commands
    }

    /// A program of the package's, to be called where the user stands.
    pub(crate) fn program(&self, path: &str) -> Command {
        let mut command = self
            .newest
            .call("python", &[&root().join("python").join(path)]);
        command.current_dir(".");
        command
    }

    fn remove(&self, directory: &Path) -> Command {
        let remove = "import shutil, sys; shutil.rmtree(sys.argv[1], ignore_errors=True)";
        self.newest
            .call("python -c", &[Path::new(remove), directory])
    }

    /// A call of what compiles the native half.
    fn built(&self, environment: &Environment, words: &str, last: &[&Path]) -> Command {
        let mut command = environment.call(words, last);
        command.env("CARGO_TARGET_DIR", &self.cargo_target);
        command
    }

    fn install(&self, environment: &Environment) -> Command {
        let words = "python -m pip install --quiet --disable-pip-version-check --force-reinstall \
                     --no-index --no-deps --find-links";
        let mut command = environment.call(words, &[&self.wheels]);
        command.arg("sorix-rs");
        command
    }

    /// A wheel for AArch64: abi3 needs no Python of the target. Whether it runs there is what the tests of
    /// the crates by `cargo xtask test-neon` say, so an unoptimised one will do.
    fn for_aarch64(&self) -> Action {
        if cfg!(all(target_arch = "aarch64", target_os = "linux")) {
            return Action::Skip(
                "this machine is AArch64: the wheel that was tested is one".into(),
            );
        }
        let Some(compiler) = Compiler::find() else {
            return Action::Try(|| without(HOW_TO_GET_IT));
        };
        let wheels = self.home.join("wheels-aarch64");
        let words = format!("maturin build --locked --compatibility linux --target {TARGET} --out");
        let mut build = self.newest.call(&words, &[&wheels]);
        // The compiler may be another one than that of the other builds.
        let target = self.cargo_target.join("aarch64");
        compiler.set_up(&mut build).env("CARGO_TARGET_DIR", target);
        let check = self
            .newest
            .call("python -c", &[Path::new(IS_AARCH64), &wheels]);
        Action::Run(vec![self.remove(&wheels), build, check])
    }
}

fn steps(package: &Package, torch: bool) -> Vec<Step> {
    let Package {
        home,
        newest,
        oldest,
        bare,
        cargo_target,
        ..
    } = package;
    let call = |words: &str, last: &[&str]| call_nested("python", cargo_target, words, last);

    let rust = vec![
        Step::new(
            "fmt",
            "the code is formatted",
            Action::Run(vec![call("fmt --all", &["--check"])]),
        ),
        Step::new(
            "deny",
            "licences and sources of dependencies",
            Action::Try(deny),
        ),
        Step::new(
            "clippy",
            "no warnings of the compiler",
            Action::Run(vec![call(
                "clippy --release --locked --all-targets",
                &["--", "-D", "warnings"],
            )]),
        ),
    ];
    let Some(python) = python() else {
        let why = Action::Try(|| without("there is no Python 3.11 or later on PATH"));
        let what = "the Python package is built and tested";
        return rust
            .into_iter()
            .chain([Step::new("python", what, why)])
            .collect();
    };

    // One that was installed before will do.
    let torch = torch || package.has_torch();
    let mut lists = vec!["newest"];
    if torch {
        lists.push("torch");
    }
    let pytest = |environment: &Environment| {
        let mut command = environment.call("python -m pytest --quiet", &[]);
        if torch && environment.0 == newest.0 {
            command.env("SORIX_REQUIRE_TORCH", "1");
        }
        command
    };
    let mut stubtest = newest.call("stubtest sorix --allowlist", &[]);
    stubtest.arg(root().join("python/stubtest-allowlist.txt"));
    // Not in `python/`, where it would take the sources for another package of the same name.
    stubtest.current_dir(home);
    let mut mypy = newest.call("mypy", &[]);
    if !torch {
        mypy.args(["--exclude", "py_src/sorix/torch/"]);
    }

    let mut page = bare.call("python -c", &[Path::new(PAGE)]);
    page.current_dir(home);

    rust.into_iter()
        .chain([
            Step::new(
                "environment",
                "a virtual environment with the newest of everything",
                Action::Run(newest.made(python, &lists)),
            ),
            Step::new(
                "wheel",
                "the wheel is built from the source distribution and installed",
                Action::Run(package.build_and_install()),
            ),
            Step::new(
                "ruff",
                "the Python code is formatted and without known mistakes",
                Action::Run(vec![
                    newest.call("ruff format --check --quiet", &[]),
                    newest.call("ruff check --quiet", &[]),
                ]),
            ),
            Step::new("mypy", "types are right", Action::Run(vec![mypy])),
            Step::new(
                "stubtest",
                "the types of the native half are those that it has",
                if torch {
                    Action::Run(vec![stubtest])
                } else {
                    Action::Skip("PyTorch is not installed: `--torch` installs it".into())
                },
            ),
            Step::new("tests", "all tests", Action::Run(vec![pytest(newest)])),
            Step::new(
                "torch",
                "PyTorch is there for its tests",
                if torch {
                    Action::Try(|| Ok(Outcome::Passed))
                } else {
                    Action::Try(|| without("PyTorch is not installed: `--torch` installs it"))
                },
            ),
            Step::new(
                "oldest",
                "the tests with the oldest numpy",
                Action::Run({
                    let mut commands = oldest.made(python, &["oldest"]);
                    commands.extend([package.install(oldest), pytest(oldest)]);
                    commands
                }),
            ),
            Step::new(
                "aarch64",
                "a wheel for AArch64 is built",
                package.for_aarch64(),
            ),
            Step::new(
                "bare",
                "the original's page runs where nothing else is installed",
                Action::Run({
                    let mut commands = bare.made(python, &[]);
                    let words = "python -m pip install --quiet --disable-pip-version-check \
                                 --force-reinstall --only-binary :all: --find-links";
                    let mut install = bare.call(words, &[&package.wheels]);
                    install.arg("sorix-rs");
                    commands.extend([install, page]);
                    commands
                }),
            ),
        ])
        .collect()
}

/// That there is one wheel, for every Python from 3.11 on, and that the code in it is for AArch64.
const IS_AARCH64: &str = "\
import pathlib, sys, zipfile
[wheel] = pathlib.Path(sys.argv[1]).glob('*.whl')
assert wheel.name.endswith('-cp311-abi3-linux_aarch64.whl'), wheel.name
archive = zipfile.ZipFile(wheel)
[library] = [name for name in archive.namelist() if name.endswith('.so')]
with archive.open(library) as file:
    # The machine in the head of an ELF file; 183 is AArch64.
    assert int.from_bytes(file.read(20)[18:], 'little') == 183
";

/// The cells of the original's page.
const PAGE: &str = "\
import numpy as np
import sorix
from sorix import tensor
from sorix.nn import Dropout
X = tensor(np.ones((1, 100_000)))
dropout = Dropout(p=0.5)
dropout.train()
assert abs(dropout(X).data.mean() - 1.0) < 0.01
dropout.eval()
assert f'{dropout(X).data.mean():.4f}' == '1.0000'
dropout.train()
X = tensor([10.0, 20.0, 30.0, 40.0, 50.0], requires_grad=True)
Y = dropout(X)
Y.sum().backward()
assert (X.grad.data * X.data == Y.data).all()
print(X.grad)
";

fn deny() -> Result<Outcome> {
    check_dependencies("python")
}
