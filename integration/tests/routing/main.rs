//! Encapsulation and routing modes between nodes of two subnets, in both families.

mod doctor;
mod faults;
mod flips;
mod interop;
mod live;
mod matrix;
mod outgoing;
mod paths;
mod racks;
mod strangers;
mod uplinks;
