//! Encapsulation and routing modes between nodes of two subnets, in both families.

mod interop;
mod live;
mod matrix;
mod paths;
mod racks;
