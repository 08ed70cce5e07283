//! One coordinator a sync: it alone starts, drives and ends the jobs of its sync.

pub mod protocol;
