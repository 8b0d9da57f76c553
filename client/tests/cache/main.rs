//! What a cache promises, over a cluster level that is made up, on a wound clock.

mod double;
mod events;
mod freshness;
mod loads;
mod near;
mod random;
mod refresh;
mod source;
mod threads;
mod trouble;
mod world;
mod writes;
