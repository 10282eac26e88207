//! The instruction sets of x86-64.

mod avx2;
mod avx512;

pub(crate) use avx2::Avx2;
pub(crate) use avx512::Avx512;

use core::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};

use crate::simd::{ALIGN, GROUP, PREFETCH_AHEAD};

/// [`Streaming::prefetch_write`](crate::simd::Streaming::prefetch_write) of both.
#[inline(always)]
fn prefetch_write<T>(y: &mut [T; GROUP]) {
    let ahead = y.as_mut_ptr().cast::<i8>().wrapping_add(PREFETCH_AHEAD);
    for line in 0..size_of_val(y) / ALIGN {
        // SAFETY: a prefetch touches no memory that the program can see and cannot fault, whatever
        // the address; processors without this one do nothing.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(ahead.wrapping_add(line * ALIGN)) };
    }
}
