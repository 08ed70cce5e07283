//! What b2sync is tested against: the embedded B2 ([`fake_b2`]), the real Worker on the real runtime ([`workerd`]) and
//! what its users see of it ([`service`]), the engine without a Worker ([`twin`]), and a world whose time and chance are
//! a seed's ([`virtual_world`]).

#![forbid(unsafe_code)]

pub mod fake_b2;
pub mod folder;
pub mod fuzz;
pub mod service;
pub mod simulation;
pub mod twin;
pub mod virtual_world;
pub mod workerd;
