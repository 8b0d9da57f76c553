//! What near caches promise: as stories, and in random histories.

mod model;
mod random;
mod stories;
