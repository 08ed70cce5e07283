//! What b2sync is tested against, besides the embedded B2 (the package [`fake_b2`]): the real Worker on the real
//! runtime ([`workerd`]) and what its users see of it ([`service`]), the engine without a Worker ([`twin`]), and a
//! world whose time and chance are a seed's ([`virtual_world`]).

#![forbid(unsafe_code)]

pub mod folder;
pub mod fuzz;
pub mod service;
pub mod simulation;
pub mod twin;
pub mod workerd;

pub use fake_b2::virtual_world;
