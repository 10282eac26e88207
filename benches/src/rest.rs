//! Waiting until the threads of what was just measured are at rest.
//!
//! A library's threads may spin, clean up or free memory for a while after its call has returned. A copy
//! that is timed meanwhile shares the machine with them, and looks many times slower than it is.

use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// No thread is waited for longer than this.
const PATIENCE: Duration = Duration::from_millis(20);

/// What one look takes at least, so that looking does not itself keep a core busy.
const LOOK: Duration = Duration::from_micros(50);

/// Waits until no other thread of this process runs, and returns whether that came to be within 20
/// milliseconds. Where the system does not say what threads do, waits a millisecond and returns true.
pub fn rest() -> bool {
    let start = Instant::now();
    loop {
        match others_run() {
            Ok(false) => return true,
            Err(_) => {
                thread::sleep(Duration::from_millis(1));
                return true;
            }
            Ok(true) if start.elapsed() >= PATIENCE => return false,
            Ok(true) => thread::sleep(LOOK),
        }
    }
}

/// Whether another thread of this process runs or could run now, as Linux says it.
fn others_run() -> io::Result<bool> {
    let own = fs::read_link("/proc/thread-self")?;
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        if task.file_name() != own.file_name() && runs(&task) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a thread is in the state R. One that has ended meanwhile does not run.
fn runs(task: &Path) -> bool {
    let stat = fs::read_to_string(task.join("stat")).unwrap_or_default();
    // The name before the state may hold anything, parentheses and spaces included.
    stat.rsplit_once(") ")
        .is_some_and(|(_, fields)| fields.starts_with('R'))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_thread_that_spins_is_seen() {
        // Other tests run on other threads of this process, so rest itself may or may not come; that
        // a spinning thread is seen as such may not fail.
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let spinning = scope.spawn(|| {
                let task = fs::read_link("/proc/thread-self").unwrap();
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
                task
            });
            let rested = rest();
            stop.store(true, Ordering::Relaxed);
            assert!(!rested);
            let task = Path::new("/proc").join(spinning.join().unwrap());
            assert!(!runs(&task), "a thread that has ended does not run");
        });
    }
}
