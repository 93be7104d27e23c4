//! The rooms of `malled`.

pub mod index;
pub mod mime;
