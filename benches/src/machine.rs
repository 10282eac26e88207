//! The machine a run was measured on.

use serde::{Deserialize, Serialize};
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

/// What to know about the machine to read the figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's brand.
    pub cpu: String,
    /// The numbers of its family, model and stepping, since virtual machines often tell no more than a brand;
    /// empty if the system does not say.
    #[serde(default)]
    pub model: String,
    /// The number of threads that run at once.
    pub cores: usize,
    /// The size of the last-level cache in bytes, as the kernels take it.
    pub llc_bytes: u64,
    /// The size of the memory in bytes.
    pub memory_bytes: u64,
    /// The operating system.
    pub os: String,
    /// The instruction set.
    pub arch: String,
    /// The compiler that built the kernels.
    pub rustc: String,
    /// The version of sorix.
    pub sorix: String,
    /// When the run began, in seconds since 1970-01-01 UTC.
    pub unix_time: u64,
    /// Whether it was a quick run, of fewer samples.
    pub quick: bool,
}

impl Machine {
    /// Describes this machine.
    #[must_use]
    pub fn here(quick: bool) -> Self {
        let system = system();
        Self {
            cpu: system
                .cpus()
                .first()
                .map_or_else(String::new, |cpu| cpu.brand().trim().into()),
            model: model(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
            cores: cores(),
            llc_bytes: sorix_kernels::internal::last_level_bytes() as u64,
            memory_bytes: system.total_memory(),
            os: System::long_os_version().unwrap_or_else(|| std::env::consts::OS.into()),
            arch: std::env::consts::ARCH.into(),
            rustc: env!("SORIX_BENCH_RUSTC").into(),
            sorix: env!("CARGO_PKG_VERSION").into(),
            unix_time: std::time::UNIX_EPOCH
                .elapsed()
                .map_or(0, |since| since.as_secs()),
            quick,
        }
    }
}

/// Family, model and stepping, from what Linux says of the first processor.
fn model(cpuinfo: &str) -> String {
    let number = |wanted: &str| {
        cpuinfo.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == wanted).then(|| value.trim())
        })
    };
    let numbers = ["cpu family", "model", "stepping"].map(number);
    numbers.into_iter().flatten().collect::<Vec<_>>().join("-")
}

/// The number of threads that run at once.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

/// The memory that tensors may take: half of what is free.
#[must_use]
pub fn memory_budget() -> u64 {
    let system = system();
    let free = system
        .cgroup_limits()
        .map_or(u64::MAX, |limits| limits.free_memory);
    system.available_memory().min(free) / 2
}

fn system() -> System {
    System::new_with_specifics(
        RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing())
            .with_memory(MemoryRefreshKind::nothing().with_ram()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_read_as_linux_writes_it() {
        let cpuinfo =
            "processor\t: 0\ncpu family\t: 6\nmodel\t\t: 173\nmodel name\t: Xeon\nstepping\t: 1\n";
        assert_eq!(model(cpuinfo), "6-173-1");
        assert_eq!(model(""), "");
    }
}
