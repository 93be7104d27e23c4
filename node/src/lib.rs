//! The rooms of `malled`.

pub mod index;
