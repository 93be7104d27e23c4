//! Whole sessions against a store in memory: dialogues from `gateway/tests/imap`, hostile input, and imap-codec as a second opinion.

mod compress;
mod corpus;
mod dialogue;
mod hostile;
mod memory;
mod oracle;
mod roster;
mod summary;
