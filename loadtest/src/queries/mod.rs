//! Queries of one channel at one rate: the smallest load there is.

pub mod draw;
pub mod report;
pub mod run;
