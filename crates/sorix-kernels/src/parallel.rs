//! Threads: a large job is cut at tiles and its parts are done by the rayon thread pool.
//!
//! What is computed does not depend on where the cuts are, so neither the number of threads nor
//! their schedule shows in a result.

#[cfg(feature = "parallel")]
pub(crate) use crate::job::Split;
#[cfg(feature = "parallel")]
use crate::stream::TILE;

/// Without threads nothing is cut, and any job will do.
#[cfg(not(feature = "parallel"))]
pub(crate) trait Split {}

#[cfg(not(feature = "parallel"))]
impl<J> Split for J {}

/// Does `job` by calling `kernel` on it whole or in parts.
///
/// `bytes` is the memory that the job reads and writes; below a threshold no thread is woken.
#[cfg(feature = "parallel")]
pub(crate) fn run<J: Split>(job: J, bytes: usize, kernel: &(impl Fn(J) + Sync)) {
    let parts = (bytes / MIN_BYTES).min(rayon::current_num_threads());
    split(job, parts, kernel);
}

#[cfg(not(feature = "parallel"))]
pub(crate) fn run<J: Split>(job: J, _bytes: usize, kernel: &(impl Fn(J) + Sync)) {
    kernel(job);
}

/// Bytes read and written below which a part is not worth a thread.
#[cfg(feature = "parallel")]
const MIN_BYTES: usize = 256 * 1024;

#[cfg(feature = "parallel")]
fn split<J: Split>(job: J, parts: usize, kernel: &(impl Fn(J) + Sync)) {
    if parts <= 1 {
        return kernel(job);
    }
    let Some(mid) = cut(job.first(), job.len(), parts) else {
        return kernel(job);
    };
    let (head, tail) = job.split_at(mid);
    rayon::join(
        || split(head, parts / 2, kernel),
        || split(tail, parts - parts / 2, kernel),
    );
}

/// Where to cut a job that begins at element `first` of its mask so that its head is worth
/// `parts / 2` of `parts` parts: at a tile, so that no tile is made twice; or, where the job does
/// not begin at a word of the mask, at the last whole word of its own before a tile. `None` where
/// there is no tile to cut at.
#[cfg(feature = "parallel")]
fn cut(first: u64, len: usize, parts: usize) -> Option<usize> {
    let wanted = len / parts * (parts / 2);
    // How far the wanted cut is beyond the start of its tile.
    let beyond = ((first % TILE as u64) as usize + wanted) % TILE;
    let mid = wanted.checked_sub(beyond)? / 64 * 64;
    (0 < mid && mid < len).then_some(mid)
}
