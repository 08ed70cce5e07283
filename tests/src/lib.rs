//! What b2sync is tested against: the real Worker on the real runtime ([`workerd`]).

#![forbid(unsafe_code)]

pub mod workerd;
