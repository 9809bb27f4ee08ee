//! Encapsulation and routing modes between nodes of two subnets, in both families.

mod matrix;
mod racks;
