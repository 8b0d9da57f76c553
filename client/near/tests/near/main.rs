//! What near caches promise, as stories.

mod stories;
