//! What a poll does with the pages of a listing ([`path`]), and listings to do it with ([`listing`]).
//!
//! The bench calls it natively, and as WebAssembly through the exports of this file, which take and answer numbers
//! alone: the pages are generated inside, so nothing needs to be handed across.

#![deny(unsafe_code)]

pub mod listing;
pub mod path;

#[cfg(target_arch = "wasm32")]
mod exports {
    use std::cell::RefCell;

    use crate::path::{PollBench, filters};

    thread_local! {
        static BENCH: RefCell<Option<PollBench>> = const { RefCell::new(None) };
    }

    /// Generates this many pages and takes their snapshot. 1: done, 0: failed.
    #[expect(unsafe_code, reason = "a name that the host can call")]
    #[unsafe(no_mangle)]
    extern "C" fn prepare(pages: u32) -> u32 {
        BENCH.with(|bench| {
            *bench.borrow_mut() = PollBench::prepare(pages, &filters()).ok();
            u32::from(bench.borrow().is_some())
        })
    }

    /// Polls all pages this often, and answers how many keys that were; 0: something differed, which must not be.
    #[expect(unsafe_code, reason = "a name that the host can call")]
    #[unsafe(no_mangle)]
    extern "C" fn poll(times: u32) -> u32 {
        BENCH.with(|bench| {
            let bench = bench.borrow();
            let keys = (0..times).map(|_| bench.as_ref().and_then(|bench| bench.poll().ok()).unwrap_or(0)).sum::<u64>();
            u32::try_from(keys).unwrap_or(0)
        })
    }
}
