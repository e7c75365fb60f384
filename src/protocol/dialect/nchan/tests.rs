//! Answers as bytes.
